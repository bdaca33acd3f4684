use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifies a sample for the life of its dataset.
///
/// Ids are dense: they are the rows of the estimator tables, so their largest value decides how much memory training
/// needs. An id never changes its meaning. A sample that is dropped later leaves a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct SampleId(pub u64);

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
