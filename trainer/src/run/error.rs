//! Why a run could not go on.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use fastclip_loader::LoadError;
use fastclip_shards::{CacheError, ReadError};
use fastclip_torch_ext::TorchError;

use crate::checkpoint::CheckpointError;
use crate::distributed::{CommError, Communicator};
use crate::embed::EmbedError;
use crate::eval::EvalError;
use crate::metrics::MetricsError;
use crate::model::{ModelConfigError, WeightsError};
use crate::step::StepError;

/// A run that cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A dataset could not be opened.
    #[error(transparent)]
    Dataset(Box<ReadError>),
    /// The folder that keeps what was read cannot be used.
    #[error("could not use `--data-cache`")]
    Cache(#[source] CacheError),
    /// Training data could not be loaded.
    #[error("could not load training data")]
    Load(#[from] LoadError),
    /// A batch did not get to where it is computed with.
    #[error("could not bring a batch to the device")]
    Feed(#[source] TorchError),
    /// A step failed.
    #[error("could not take a step")]
    Step(#[from] StepError),
    /// The model could not be evaluated.
    #[error("could not evaluate the model")]
    Evaluate(#[from] EvalError),
    /// A checkpoint could not be written or used.
    #[error("could not keep or restore the state of the run")]
    Checkpoint(#[from] CheckpointError),
    /// A model config that cannot be used.
    #[error("`--model` cannot be used")]
    Model(#[source] ModelConfigError),
    /// The weights of a model cannot be used.
    #[error("could not load the model")]
    Weights(#[source] WeightsError),
    /// Embeddings could not be written.
    #[error("could not write embeddings")]
    Embed(#[source] EmbedError),
    /// The weights to begin with cannot be used.
    #[error("could not begin with the weights of `--pretrained`")]
    Pretrained(#[source] WeightsError),
    /// Metrics could not be written.
    #[error("could not record the run")]
    Metrics(#[from] MetricsError),
    /// Ranks could not wait for each other.
    #[error("could not start together with the other ranks")]
    Together(#[from] CommError),
    /// libtorch refused a setting.
    #[error("could not set up libtorch")]
    Torch(#[from] TorchError),
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The asynchronous runtime for reading could not be made.
    #[error("could not start reading")]
    Runtime(#[source] io::Error),
}

impl RunError {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: &(dyn Error + 'static) = self;
        std::iter::successors(Some(first), |&error| error.source())
    }

    /// Tells the other ranks, unless they know already.
    pub fn announce_to(&self, comm: &dyn Communicator) {
        if self.fault_of_others().is_none() {
            comm.announce_failure(&self.with_causes(), self.is_refusal());
        }
    }

    /// Returns what another rank or the network did, if that is the cause: the others know it already.
    fn fault_of_others(&self) -> Option<&CommError> {
        self.causes().find_map(|error| error.downcast_ref())
    }

    /// Returns the error and its causes in one line.
    pub fn with_causes(&self) -> String {
        self.causes().map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    /// Returns whether the input was refused, be it by another rank, as opposed to something having broken on the way.
    pub fn is_refusal(&self) -> bool {
        if let Some(error) = self.fault_of_others() {
            return error.is_refusal();
        }
        match self {
            Self::Dataset(source) => lies_in_the_data(source),
            Self::Cache(_) | Self::Model(_) | Self::Weights(_) | Self::Pretrained(_) => true,
            Self::Embed(EmbedError::Encode(error)) => lies_in_the_request(error),
            Self::Load(error) => lies_in_what_is_loaded(error),
            Self::Checkpoint(error) => {
                matches!(
                    error,
                    CheckpointError::OtherRun { .. }
                        | CheckpointError::Nothing { .. }
                        | CheckpointError::Location { .. }
                        | CheckpointError::Incomplete { .. }
                        | CheckpointError::Damaged { .. }
                        | CheckpointError::Json { .. }
                        | CheckpointError::Version { .. }
                )
            }
            Self::Evaluate(error) => lies_in_the_request(error),
            _ => false,
        }
    }

    /// Returns what a person could try.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(CheckpointError::OtherRun { .. }) => {
                "choose another `--name`, or start this one over with `--resume none`"
            }
            Self::Checkpoint(CheckpointError::Nothing { .. }) => "`--resume auto` starts a run that has none",
            Self::Checkpoint(CheckpointError::Damaged { .. } | CheckpointError::Json { .. }) => {
                "`--resume LOCATION` continues from an earlier checkpoint; `--keep-last` says how many there are"
            }
            Self::Checkpoint(CheckpointError::Incomplete { .. }) => {
                "all ranks must see the same folder or bucket; `--resume` takes a checkpoint or the folder that holds them"
            }
            Self::Checkpoint(CheckpointError::Last { .. }) => {
                "make room or repair the storage; the same command then continues from the newest checkpoint"
            }
            Self::Load(LoadError::TooFewSamples { .. }) => {
                "the global batch is `--batch-size` times `--accum-freq` times the number of ranks"
            }
            Self::Dataset(source) => source.hint()?,
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Whether there is something wrong with what an evaluation was asked for.
fn lies_in_the_request(error: &EvalError) -> bool {
    match error {
        EvalError::Empty { .. } | EvalError::SideFile { .. } | EvalError::UnknownClass { .. } => true,
        EvalError::Read(source) => lies_in_the_data(source),
        EvalError::Load(error) => lies_in_what_is_loaded(error),
        _ => false,
    }
}

/// Whether there is something wrong with a dataset or how it was to be loaded.
fn lies_in_what_is_loaded(error: &LoadError) -> bool {
    match error {
        LoadError::WorldSize { .. }
        | LoadError::NoSamples
        | LoadError::TooFewSamples { .. }
        | LoadError::Setting { .. }
        | LoadError::MemoryBound { .. }
        | LoadError::BadSamples { .. }
        | LoadError::NoGoodSample { .. } => true,
        LoadError::Read { source, .. } => lies_in_the_data(source),
        _ => false,
    }
}

/// Whether the bytes of a dataset are at fault, as opposed to the store that they come from.
fn lies_in_the_data(error: &ReadError) -> bool {
    !matches!(error, ReadError::File { .. } | ReadError::Fetch { .. } | ReadError::Short { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_held_out_dataset_is_refused_like_a_damaged_training_set() {
        let damage = || ReadError::Missing { location: "data".to_owned(), name: "00003.tar".to_owned() };
        for error in [
            RunError::Dataset(Box::new(damage())),
            RunError::Evaluate(EvalError::Read(damage())),
            RunError::Evaluate(EvalError::Load(LoadError::NoSamples)),
            RunError::Embed(EmbedError::Encode(EvalError::Read(damage()))),
        ] {
            assert!(error.is_refusal(), "{}", error.with_causes());
        }
    }
}
