use fastclip_images::DecoderError;
use fastclip_shards::ReadError;

use crate::tables::TableError;

/// Why nothing can be said about a dataset, or shown of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// A shard cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A table beside a shard cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// No decoder could be set up.
    #[error("could not read images")]
    Decoder(#[from] DecoderError),
    /// No runtime could be started.
    #[error("could not start a runtime")]
    Start(#[source] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {num_read} of {num_shards} shards")]
    Stopped {
        /// Shards that were read by then.
        num_read: usize,
        /// Shards that were to be read.
        num_shards: usize,
    },
}
