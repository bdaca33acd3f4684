//! What can go wrong with checkpoints.

use std::io;
use std::path::{Path, PathBuf};

use fastclip_shards::StoreError;

use crate::distributed::CommError;
use crate::estimator::EstimatorError;
use crate::model::WeightsError;
use crate::optimizer::OptimizerError;

/// A checkpoint that could not be written, found or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder or bucket of checkpoints cannot be used.
    #[error("could not keep checkpoints in `{location}`")]
    Location {
        /// Folder or URL.
        location: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The store refused.
    #[error("could not {action} `{file}`")]
    Store {
        /// What was being done.
        action: &'static str,
        /// The file, with its folder or URL.
        file: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is not what its name says.
    #[error("could not understand `{file}`")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Written by another version of the program.
    #[error("`{file}` has format version {found}, this program reads version {expected}")]
    Version {
        /// The file.
        file: String,
        /// The version in it.
        found: u32,
        /// The version of this program.
        expected: u32,
    },
    /// There is none.
    #[error("there is no checkpoint in `{location}`")]
    Nothing {
        /// Where it should be.
        location: String,
    },
    /// Writing it never came to its end, or it is none.
    #[error("`{location}` is no complete checkpoint: it has no `{missing}`")]
    Incomplete {
        /// Where it lies.
        location: String,
        /// The file that is written last.
        missing: &'static str,
    },
    /// A file that is not the one that was written.
    #[error("`{file}` is damaged: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// What differs, with both values.
        reason: String,
    },
    /// It belongs to another run.
    #[error("checkpoint `{location}` was trained with `{key}` = {saved}, this run has {now}")]
    OtherRun {
        /// The checkpoint.
        location: String,
        /// What differs.
        key: String,
        /// In the checkpoint.
        saved: String,
        /// In this run.
        now: String,
    },
    /// Tensors could not be taken from a file, or copied for one.
    #[error("could not {action} the tensors of `{file}`")]
    Tensors {
        /// What was being done.
        action: &'static str,
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: TensorsError,
    },
    /// Weights do not fit the model.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The optimizer's state does not fit.
    #[error("could not restore `{file}`")]
    Optimizer {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: OptimizerError,
    },
    /// A shard of the table does not fit.
    #[error("could not restore `{file}`")]
    Estimators {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: EstimatorError,
    },
    /// The last checkpoint of a session is not there.
    #[error("could not write the checkpoint of step {steps}{}", kept(last))]
    Last {
        /// Steps taken.
        steps: u64,
        /// Steps of the newest checkpoint that is there.
        last: Option<u64>,
    },
    /// Ranks could not wait for each other.
    #[error("could not write or find a checkpoint together with the other ranks")]
    Together(#[from] CommError),
    /// The machine has no thread or event loop left.
    #[error("could not start what writes checkpoints")]
    Start(#[source] io::Error),
}

/// What is wrong with tensors in a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsError {
    /// libtorch refused.
    #[error("libtorch refused")]
    Torch(#[from] tch::TchError),
    /// It is no safetensors file, or one with numbers of a kind that is unknown here.
    #[error("it is no safetensors file of known kinds of numbers")]
    Format(#[from] safetensors::SafeTensorError),
    /// A kind of number that checkpoints do not hold.
    #[error("numbers of the kind {0} are not kept")]
    Kind(String),
}

fn kept(last: &Option<u64>) -> String {
    match last {
        Some(steps) => format!("; the one of step {steps} is the newest that is complete"),
        None => "; there is no earlier one".to_owned(),
    }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}

impl CheckpointError {
    /// Returns the error and its causes in one line.
    pub fn with_causes(&self) -> String {
        let first: &(dyn std::error::Error + 'static) = self;
        let causes = std::iter::successors(Some(first), |&error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
