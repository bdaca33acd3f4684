use std::borrow::Cow;

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
    /// Parts cannot agree on when what is there has to go.
    #[error("`{location}` cannot be overwritten by a part of a run")]
    OverwritePart {
        /// The output without credentials.
        location: String,
    },
    /// Another process completed a shard that this one was about to.
    #[error("another process has written shard {shard} of `{location}` in the meantime")]
    Taken {
        /// The output without credentials.
        location: String,
        /// Number of the shard.
        shard: u64,
    },
    /// Another process wrote shards at the same time as this one, and their files are some of one and some of the other.
    #[error("another process has written to `{location}` at the same time, which mixed shards: {shards}")]
    Mixed {
        /// The output without credentials.
        location: String,
        /// Their numbers.
        shards: String,
    },
    /// There is nothing that could be finished.
    #[error("`{location}` holds no download that was begun")]
    NotBegun {
        /// The output without credentials.
        location: String,
    },
    /// Rows are tried again when all have been tried once.
    #[error("`{location}` holds no download that is complete")]
    NotFinished {
        /// The output without credentials.
        location: String,
    },
    /// The dataset lacks what is needed to fetch its rows once more.
    #[error("the rows of `{location}` cannot be tried again: {problem}")]
    NotDownloaded {
        /// The output without credentials.
        location: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// A pass that chose other failures was not finished.
    #[error("an unfinished retry of `{location}` chose {there}, this one {here}")]
    OtherRetry {
        /// The output without credentials.
        location: String,
        /// What was chosen then, separated by commas.
        there: String,
        /// What is chosen now.
        here: String,
    },
    /// The table beside a shard cannot be read.
    #[error("could not read the table `{name}` of `{location}`: {problem}")]
    Table {
        /// The output without credentials.
        location: String,
        /// Name of the table.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Shards are not there yet.
    #[error("`{location}` lacks {num_missing} of {num_shards} shards: {missing}")]
    Incomplete {
        /// The output without credentials.
        location: String,
        /// Shards that are not complete.
        num_missing: usize,
        /// All shards.
        num_shards: u64,
        /// Their numbers.
        missing: String,
        /// What makes them.
        remedy: String,
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
            Self::Rows { .. }
            | Self::NoSamples { .. }
            | Self::OverwritePart { .. }
            | Self::NotBegun { .. }
            | Self::NotFinished { .. }
            | Self::NotDownloaded { .. }
            | Self::OtherRetry { .. }
            | Self::Incomplete { .. } => true,
            _ => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::Incomplete { remedy, .. } => return Some(remedy.clone().into()),
            Self::OtherRetry { there, .. } => {
                return Some(format!("end it first, with --only {there}").into());
            }
            Self::NotFinished { .. } => {
                "end it with `ingest download`, or with `ingest finish` if it was fetched in parts"
            }
            Self::Source(SourceError::Column { .. }) => {
                "name the columns with --url-col, --caption-col or --save-additional-columns"
            }
            Self::State(state) => return state.hint().map(Cow::from),
            Self::Spool(_) => "set TMPDIR to a folder on a disk with more room",
            Self::NoSamples { .. } => {
                "the tables beside the shards, `*.parquet`, say what every row failed of"
            }
            Self::Offline(_) => {
                "run the same command to continue when the network is back. If the hosts of this list are really gone, --max-outage off \
                 counts such rows as failed"
            }
            Self::Stopped { .. } => "run the same command to continue",
            Self::OverwritePart { .. } => "empty the output before the first part begins, or choose another",
            Self::Taken { .. } => {
                "let only one process fetch each part; run this one again when the other has ended"
            }
            Self::Mixed { .. } => {
                "let only one process fetch each part; run the same again to fetch these shards once more"
            }
            Self::NotBegun { .. } => "begin with `ingest download`",
            _ => return None,
        };
        Some(hint.into())
    }
}
