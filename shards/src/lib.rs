//! Bytes at rest: tar shards, their index and manifest, on any object store.
//!
//! This is the one crate that knows tar and object stores. A reader and a writer of the same bytes live side by side, so
//! that a change of the format is a change of one folder.
//!
//! | to | take |
//! |---|---|
//! | read a dataset | [`Dataset`], then [`Dataset::index`] and [`Dataset::fetch`] |
//! | keep what comes from a slow store | [`Cache`] |
//! | write one | [`DatasetWriter`], or shard by shard with [`ShardWriter`] |
//! | scan tars of any origin | [`tar`] and [`SampleGrouper`] |
//! | reach a folder or bucket | [`Store`] |
//!
//! ```no_run
//! # async fn read() -> Result<(), fastclip_shards::ReadError> {
//! use fastclip_shards::Dataset;
//!
//! let dataset = Dataset::open("data/toy").await?;
//! let index = dataset.index(0).await?;
//! let run = dataset.fetch(0, &index, 0..index.len()).await?;
//! for position in run.samples() {
//!     let sample = run.sample(position)?;
//!     println!("{} {} {:?}", sample.id(), sample.key(), sample.member("txt"));
//! }
//! # Ok(())
//! # }
//! ```

mod cache;
mod compression;
mod dataset;
mod error;
mod fetch;
mod group;
mod index;
mod joint;
mod run;
mod shard_writer;
mod sources;
mod store;
pub mod tar;
mod writer;

pub use cache::{Cache, CacheError, CacheStats};
pub use compression::Compression;
pub use dataset::Dataset;
pub use error::{ReadError, WriteError};
pub use group::{SampleGrouper, SampleSpan};
pub use index::{IndexBuilder, IndexError, RunIndex, ShardIndex};
pub use joint::DatasetPart;
pub use run::{Sample, SampleRun};
pub use shard_writer::ShardWriter;
pub use sources::expand_braces;
pub use store::{Store, StoreError, StoreErrorKind, StoreOptions, StoredObject, Upload, without_secrets};
pub use writer::{Appended, DatasetWriter, WriterOptions};
