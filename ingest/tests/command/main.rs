//! The binary `ingest`, run as people run it.

mod damage;
mod foreign;
mod formats;
mod help;
mod object_store;
mod rejections;
mod resume;
mod support;
