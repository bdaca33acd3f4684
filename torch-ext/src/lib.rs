//! What tch lacks of libtorch: process groups and fused optimizer steps, behind a plain C interface.

mod error;

pub use error::{Collective, CollectiveError, FailureKind, StoreError, TorchError};
