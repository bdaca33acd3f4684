use fastclip_shards::tar::TarError;
use fastclip_shards::{ReadError, StoreError, StoreErrorKind, WriteError};

use crate::rejection::RejectionCounts;
use crate::run_state::RunStateError;
use crate::source::SourceError;

/// Why nothing, or not everything, was packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The input cannot be read.
    #[error("could not read the input")]
    Source(#[from] SourceError),
    /// Shards to read cannot be read.
    #[error("could not read the input")]
    Shards(#[from] ReadError),
    /// A store that has shards without a manifest refused or failed.
    #[error("could not read `{location}`")]
    Store {
        /// Where they lie, without credentials.
        location: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A shard without an index cannot be read to its end.
    #[error("shard `{shard}` is damaged")]
    Damaged {
        /// The shard.
        shard: String,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// A shard or the manifest cannot be written.
    #[error("could not write the dataset")]
    Write(#[from] WriteError),
    /// What lies in the output cannot be used, or what goes with the dataset cannot be written.
    #[error(transparent)]
    State(#[from] RunStateError),
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
            Self::State(state) => state.is_refusal(),
            Self::Shards(error) => !matches!(error, ReadError::File { .. }),
            Self::Store { source, .. } => source.kind() != StoreErrorKind::Other,
            Self::Budget { .. } | Self::NoSamples { .. } | Self::Damaged { .. } => true,
            Self::SideFile { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Write(_) | Self::Start { .. } | Self::Stopped { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Source(source) => source.hint(),
            Self::State(state) => state.hint(),
            Self::Budget { .. } => Some(
                "`rejected.jsonl` in the output lists every rejected row; correct the input, or allow more with \
                 --max-bad-fraction and continue with --resume",
            ),
            Self::Shards(error) => error.hint(),
            Self::Damaged { .. } => Some(
                "`ingest index --skip-damaged` makes a manifest of what is whole in the input, and `reshard` then \
                 takes that",
            ),
            Self::Stopped { .. } => Some("run the same command with --resume to continue"),
            _ => None,
        }
    }
}
