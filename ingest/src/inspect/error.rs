use fastclip_images::DecoderError;
use fastclip_shards::ReadError;

use crate::tables::TableError;

/// Why nothing can be shown of a dataset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// No shard can be read; the first one's reason.
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
    #[error("stopped before everything was read")]
    Stopped,
}
