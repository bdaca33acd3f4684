//! What the end-to-end tests share. The tests themselves are in `tests/`, a file for each topic.
//!
//! They run the programs as a person would, and read what these leave with the libraries or with other
//! people's tools.

mod programs;
mod reading;
mod toy;

pub use programs::{ingest, train};
pub use reading::{StoredSample, loader, read_all, runtime};
pub use toy::ToyWorld;
