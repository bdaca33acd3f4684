use fastclip_images::DecoderError;
use fastclip_shards::WriteError;

use crate::fetch::{ClientError, Outage};
use crate::run_state::RunStateError;
use crate::source::SourceError;

/// Why nothing, or not everything, was fetched. What single rows lack is counted instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The list cannot be read.
    #[error("could not read the input")]
    Source(#[from] SourceError),
    /// A shard or the manifest cannot be written.
    #[error("could not write the dataset")]
    Write(#[from] WriteError),
    /// What lies in the output cannot be used, or what goes with the dataset cannot be written.
    #[error(transparent)]
    State(#[from] RunStateError),
    /// Outcomes that came early could not be kept on the disk.
    #[error("could not keep images in the folder for temporary files")]
    Spool(#[source] std::io::Error),
    /// No runtime could be started.
    #[error("could not start a runtime")]
    Runtime(#[source] std::io::Error),
    /// No client could be set up.
    #[error(transparent)]
    Client(ClientError),
    /// No decoder could be set up.
    #[error(transparent)]
    Decoder(DecoderError),
    /// The table of a shard could not be made.
    #[error("could not make the table of shard {shard}")]
    Metadata {
        /// Number of the shard.
        shard: u64,
        /// What the writer of parquet said.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// The list has other rows than before.
    #[error("the list gave {found} rows, it had {expected} before")]
    Rows {
        /// Rows that had an outcome.
        found: u64,
        /// Rows that were counted.
        expected: u64,
    },
    /// No image could be had.
    #[error("none of {num_rows} rows became a sample: {failures}")]
    NoSamples {
        /// Rows of the list.
        num_rows: u64,
        /// How often each failure was found.
        failures: String,
    },
    /// Nothing can be reached.
    #[error(
        "stopped, for the network is down; complete shards are kept, and no row of this time counts as failed"
    )]
    Offline(#[source] Outage),
    /// Somebody asked to stop.
    #[error("stopped after {num_rows} rows; complete shards are kept")]
    Stopped {
        /// Rows that had an outcome by then.
        num_rows: u64,
    },
}

impl DownloadError {
    /// Whether the request or the input is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Source(source) => source.is_refusal(),
            Self::State(state) => state.is_refusal(),
            Self::Rows { .. } | Self::NoSamples { .. } => true,
            _ => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Source(SourceError::Column { .. }) => {
                Some("name the columns with --url-col, --caption-col or --save-additional-columns")
            }
            Self::State(state) => state.hint(),
            Self::Spool(_) => Some("set TMPDIR to a folder on a disk with more room"),
            Self::NoSamples { .. } => {
                Some("the tables beside the shards, `*.parquet`, say what every row failed of")
            }
            Self::Offline(_) => Some(
                "run the same command to continue when the network is back. If the hosts of this list are really gone, --max-outage off \
                 counts such rows as failed",
            ),
            Self::Stopped { .. } => Some("run the same command to continue"),
            _ => None,
        }
    }
}
