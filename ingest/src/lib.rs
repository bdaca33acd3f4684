//! From sources to shards: the library behind the binary `ingest`.
//!
//! | function | does |
//! |---|---|
//! | [`download()`] | fetches images by a list of URLs, and packs them |
//! | [`finish()`] | makes one dataset of what several processes have fetched |
//! | [`retry()`] | fetches rows that failed once more |
//! | [`pack()`] | packs a folder or table of images and captions into shards with a manifest |
//! | [`reshard()`] | makes other shards of shards: sizes, formats, filters, duplicates |
//! | [`index()`] | makes a manifest for tars that another program wrote |
//! | [`verify()`] | compares a dataset with its manifest, down to every member |
//! | [`stats()`] | counts samples, sizes of images and captions, and what became of the rows of the list |
//! | [`inspect()`] | looks at some samples of a dataset of any size, for a page that a person reads |
//! | [`synth::synth`] | draws a toy world to try all this on |
//!
//! All take a [`Progress`] to report to, and the long ones a [`Stop`] to be ended by. None reads the environment or
//! prints; that is left to the binary.

mod causes;
mod download;
mod duplicates;
mod fetch;
mod filters;
mod hash;
mod index;
mod inspect;
mod pack;
mod picture;
mod progress;
mod rejection;
mod reshard;
mod run_state;
mod runtime;
mod scan;
mod source;
mod stats;
mod stop;
pub mod synth;
mod tables;
mod terminal;
mod verify;

pub use download::{
    DownloadCounts, DownloadError, DownloadOptions, DownloadReport, Part, PartError, RetryOptions,
    RetryReport, UrlColumns, download, finish, retry,
};
pub use duplicates::DuplicateOptions;
pub use fetch::{ClientError, DnsOptions, FetchOptions, FetchReason, Outage};
pub use filters::{HostList, HostListError, RowFilters};
pub use hash::{HashColumn, HashKind};
pub use index::{IdSource, IndexError, IndexOptions, IndexReport, index};
pub use inspect::{
    CaptionStats, FindError, InspectOptions, InspectReport, Specimen, StoredMembers, Thumbnail, Wanted,
    find_sample, inspect,
};
pub use pack::{Limits, PackError, PackOptions, PackReport, pack};
pub use picture::{EncodeFormat, PictureOptions, PictureReason, ResizeMode};
pub use progress::{LogFormat, Progress, ProgressError, ProgressOptions, ProgressSnapshot};
pub use rejection::{Reason, Rejection, RejectionCounts};
pub use reshard::{ReshardOptions, reshard};
pub use run_state::{OnExisting, RunStateError};
pub use source::{Columns, Inputs, SourceError, Split};
pub use stats::{Histogram, SampleStats, StatsOptions, StatsReport, SurveyError, stats};
pub use stop::Stop;
pub use tables::{HostCount, RowStats, TableCount, TableError};
pub use verify::{DecodeCheck, ShardVerdict, VerifyError, VerifyOptions, VerifyReport, verify};

/// Rows that did not become samples, one JSON object a line.
pub const REJECTED_FILE: &str = "rejected.jsonl";

/// Samples of each shard, in the form that OpenCLIP reads.
pub const SIZES_FILE: &str = "sizes.json";
