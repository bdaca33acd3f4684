use fastclip_shards::{StoreError, StoreErrorKind, WriteError};

use crate::rejection::RejectionCounts;
use crate::source::SourceError;

/// Why nothing, or not everything, was packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The input cannot be read.
    #[error("could not read the input")]
    Source(#[from] SourceError),
    /// A shard or the manifest cannot be written.
    #[error("could not write the dataset")]
    Write(#[from] WriteError),
    /// A file that goes with the dataset cannot be read or written.
    #[error("could not {action} of `{location}`")]
    Store {
        /// What was to be done, for example ``write `manifest.json` ``.
        action: String,
        /// The output without credentials.
        location: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A file that was to lie beside the shards cannot be read.
    #[error("could not read the side file `{}`", path.display())]
    SideFile {
        /// Its path.
        path: std::path::PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// No JPEG decoder or runtime could be started.
    #[error("could not start {what}: {reason}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// Why it did not.
        reason: String,
    },
    /// The output holds something, and nobody said what to do about it.
    #[error("`{location}` already holds {what}")]
    Occupied {
        /// The output without credentials.
        location: String,
        /// What was found there.
        what: String,
        /// Whether `--resume` would do.
        is_resumable: bool,
    },
    /// What lies in the output was made in another way.
    #[error("`{location}` was packed in another way: {}", differences.join("; "))]
    OtherSettings {
        /// The output without credentials.
        location: String,
        /// Each setting that differs, with both values.
        differences: Vec<String>,
    },
    /// A shard that was complete is not any more.
    #[error("cannot resume in `{location}`: `{name}` {problem}")]
    Changed {
        /// The output without credentials.
        location: String,
        /// The file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Too many rows are unusable.
    #[error(
        "{} of {num_rows} rows were rejected, more than max_bad_fraction = {max_bad_fraction} allows: {}",
        rejections.total(),
        rejections.summary()
    )]
    Budget {
        /// The output without credentials.
        location: String,
        /// Rows of the input.
        num_rows: u64,
        /// The fraction that was allowed.
        max_bad_fraction: f64,
        /// What was rejected until then.
        rejections: RejectionCounts,
    },
    /// No row belongs to the chosen split, or none is left.
    #[error("none of {num_rows} rows became a sample: {reasons}")]
    NoSamples {
        /// Rows of the input.
        num_rows: u64,
        /// Where they went.
        reasons: String,
    },
    /// Somebody asked to stop.
    #[error("stopped after {num_rows} rows; complete shards are kept")]
    Stopped {
        /// Rows that had an outcome by then.
        num_rows: u64,
    },
}

impl PackError {
    /// Whether the request or the input is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Source(source) => source.is_refusal(),
            Self::Occupied { .. }
            | Self::OtherSettings { .. }
            | Self::Changed { .. }
            | Self::Budget { .. }
            | Self::NoSamples { .. } => true,
            Self::Store { source, .. } => source.kind() == StoreErrorKind::Location,
            Self::SideFile { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Write(_) | Self::Start { .. } | Self::Stopped { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Source(source) => source.hint(),
            Self::Occupied { is_resumable: true, .. } => {
                Some("continue with --resume, or replace it with --overwrite")
            }
            Self::Occupied { is_resumable: false, .. } => {
                Some("choose another folder, or replace what is there with --overwrite")
            }
            Self::OtherSettings { .. } => {
                Some("use the same input and settings, or replace it with --overwrite")
            }
            Self::Changed { .. } => Some("replace the dataset with --overwrite"),
            Self::Budget { .. } => Some(
                "`rejected.jsonl` in the output lists every rejected row; correct the input, or allow more with \
                 --max-bad-fraction and continue with --resume",
            ),
            Self::Stopped { .. } => Some("run the same command with --resume to continue"),
            _ => None,
        }
    }
}
