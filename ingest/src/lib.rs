//! From sources to shards: the library behind the binary `ingest`.
//!
//! | function | does |
//! |---|---|
//! | [`pack()`] | packs a folder or table of images and captions into shards with a manifest |
//! | [`index()`] | makes a manifest for tars that another program wrote |
//! | [`verify()`] | compares a dataset with its manifest, down to every member |
//! | [`synth::synth`] | draws a toy world to try all this on |
//!
//! All take a [`Progress`] to report to, and the long ones a [`Stop`] to be ended by. None reads the environment or
//! prints; that is left to the binary.

mod index;
mod pack;
mod progress;
mod rejection;
mod scan;
mod source;
mod stop;
pub mod synth;
mod verify;

pub use index::{IdSource, IndexError, IndexOptions, IndexReport, index};
pub use pack::{Limits, OnExisting, PackError, PackOptions, PackReport, REJECTED_FILE, SIZES_FILE, pack};
pub use progress::Progress;
pub use rejection::{Reason, Rejection, RejectionCounts};
pub use source::{Columns, SourceError, Split};
pub use stop::Stop;
pub use verify::{ShardVerdict, VerifyError, VerifyReport, verify};
