//! Why ranks could not work together.

use fastclip_torch_ext::CollectiveError;

/// A run that cannot start or go on together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// The call itself was wrong, on this rank and presumably on all.
    #[error("could not run {collective} on a tensor of shape {shape:?}: {reason}")]
    Argument {
        /// The collective that was called.
        collective: &'static str,
        /// Shape of the tensor.
        shape: Vec<i64>,
        /// What is wrong with it.
        reason: String,
    },
    /// A collective failed.
    #[error("could not complete a collective")]
    Collective {
        /// Which, where and how.
        #[source]
        source: CollectiveError,
    },
}
