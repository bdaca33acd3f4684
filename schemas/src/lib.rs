//! The words that all FastCLIP crates share.
//!
//! Everything here is plain data: it can be serialised, compared and printed, and it does no I/O. A type moves into this
//! crate when both sides of an arrow of the data flow need it.
//!
//! | module | holds |
//! |---|---|
//! | `json` | [`foreign_json`], how JSON of other tools is read |
//! | `ids` | [`SampleId`], the row of a sample in every table that training keeps |
//! | `manifest` | [`Manifest`], what a dataset consists of; written last, so that it never names a shard that is not there |
//! | `position` | [`Position`], where a run stands in its data |
//! | [`zero_shot`] | the files beside a dataset that name its classes and prompt templates |
//! | `summary` | [`RunSummary`], the result of a run in one small JSON file |

mod ids;
mod json;
mod manifest;
mod position;
mod summary;
pub mod zero_shot;

pub use ids::SampleId;
pub use json::foreign_json;
pub use manifest::{Digest, MANIFEST_FILE, MANIFEST_FORMAT_VERSION, Manifest, ManifestError, ShardEntry};
pub use position::Position;
pub use summary::RunSummary;
