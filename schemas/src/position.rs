use serde::{Deserialize, Serialize};

/// Where a run stands in its data: the next global batch to be read.
///
/// Together with manifest, seed and order settings it determines everything that follows, on any number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Passes over the dataset already finished.
    pub epoch: u64,
    /// Global batches of this epoch already used.
    pub step: u64,
}

impl Position {
    /// The first batch of an epoch.
    pub const fn start_of(epoch: u64) -> Self {
        Self { epoch, step: 0 }
    }
}
