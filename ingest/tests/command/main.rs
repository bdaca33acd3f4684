//! The binary `ingest`, run as people run it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod damage;
mod download;
mod foreign;
mod formats;
mod help;
mod hostile;
mod object_store;
mod rejections;
mod resume;
mod stats;
mod support;
