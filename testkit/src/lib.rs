//! What tests need and nothing else should use: small real datasets, stores that fail, processes that work
//! together.
//!
//! | to | take |
//! |---|---|
//! | have a few real samples | [`Pair`], [`TinyDataset`] |
//! | damage a tar in every way | [`Mutation`] |
//! | have a store fail at a chosen request or byte | [`FaultyStore`], [`Gate`] |
//! | have a real S3 server, sound or faulty | [`S3Server`] |
//! | have one of Google's or Azure's storage | [`CloudServer`] |
//! | have a web server that does everything wrong | [`WebServer`] |
//! | have one with TLS and HTTP/2 | [`TlsServer`] |
//! | say what the names of hosts are | [`DnsServer`] |
//! | run a program of this workspace | [`binary`], [`run`] |
//! | run it as several ranks | [`Ranks`] |
//! | ask Python what it makes of our files | [`Python`] |
//!
//! Functions here panic instead of returning errors, with all that a person would ask for: what was run, how
//! it ended, and what it printed. A test that cannot run for want of something fails and says how to get it;
//! none is skipped.

mod cloud_server;
mod dataset;
mod dns_server;
mod faulty_store;
mod gate;
mod mutation;
mod pair;
mod process;
mod python;
mod ranks;
mod s3_server;
mod tls_server;
mod web_server;

pub use cloud_server::CloudServer;
pub use dataset::TinyDataset;
pub use dns_server::{DnsAnswer, DnsServer};
pub use faulty_store::{Fault, FaultyStore, Request, RequestKind};
pub use gate::Gate;
pub use mutation::Mutation;
pub use pair::Pair;
pub use process::{Finished, binary, run};
pub use python::Python;
pub use ranks::{Ranks, RunningRanks, free_port};
pub use s3_server::{S3Fault, S3Request, S3Server};
pub use tls_server::{Certificate, TlsRequest, TlsServer};
pub use web_server::{WebAnswer, WebServer};
