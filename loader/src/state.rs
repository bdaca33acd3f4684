use fastclip_schemas::{Digest, Position};
use serde::{Deserialize, Serialize};

/// Where a stream stands: all that has to be stored to go on with the very same batches later, on any number of ranks. Some
/// hundred bytes of JSON, however large the dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamState {
    /// The next batch.
    pub next: Position,
    /// What that counts in: the loader's [`order_digest`](crate::Loader::order_digest).
    pub order: Digest,
}
