//! The binary `ingest`, run as people run it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod damage;
mod download;
mod foreign;
mod formats;
mod help;
mod hostile;
mod inputs;
mod inspect;
mod kills;
mod launchers;
mod object_store;
mod parts;
mod rejections;
mod reshard;
mod resume;
mod retry;
mod stats;
mod support;
