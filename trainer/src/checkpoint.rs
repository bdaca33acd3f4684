//! What survives a restart.
//!
//! A checkpoint is a folder, `step_00000500`, written beside its place and renamed when all ranks have finished their
//! part; `latest` then names it. So a crash at any moment leaves the checkpoint before untouched and named.
//!
//! | file | holds | written by |
//! |---|---|---|
//! | `open_clip_model.safetensors`, `open_clip_config.json` | the model, as OpenCLIP loads it | rank 0 |
//! | `optimizer.safetensors` | what the optimizer remembers: running means, step counts | rank 0 |
//! | `trainer.json` | [`RunState`] | rank 0 |
//! | `estimators-rank0-of-2.safetensors` | a shard of the objective's table | its rank |
//!
//! Ranks must see one file system. Shards may be read by a world of another size.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use fastclip_schemas::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::distributed::{CommError, Communicator};
use crate::estimator::{Dealing, EstimatorError};
use crate::files;
use crate::model::{WeightsError, read_tensors, write_tensors};
use crate::optimizer::OptimizerError;
use crate::step::Trainer;

const FORMAT_VERSION: u32 = 1;
const LATEST_FILE: &str = "latest";
const STATE_FILE: &str = "trainer.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const ESTIMATOR_TENSOR: &str = "rows";

/// Where a run stands, and what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Version of this format.
    format_version: u32,
    /// Program that wrote it.
    pub written_by: String,
    /// The next global batch.
    pub position: Position,
    /// Steps taken.
    pub steps: u64,
    /// Samples of all ranks used.
    pub samples_seen: u64,
    /// Seconds spent in training steps, over all sessions.
    pub seconds: f64,
    /// Ranks that wrote the checkpoint.
    num_ranks: usize,
    /// Rows of the objective's table, if it has one.
    num_sample_ids: Option<u64>,
    /// What decides the result, by name: a run that differs in any of it is another run.
    pub identity: BTreeMap<String, Value>,
}

/// A checkpoint that could not be written, found or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
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
    #[error("could not understand `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a newer program.
    #[error("`{}` has format version {found}, this program reads version {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// There is none.
    #[error("there is no checkpoint in `{}`", folder.display())]
    Nothing {
        /// Where it should be.
        folder: PathBuf,
    },
    /// It belongs to another run.
    #[error("checkpoint `{}` was trained with `{key}` = {saved}, this run has {now}", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        key: String,
        /// In the checkpoint.
        saved: String,
        /// In this run.
        now: String,
    },
    /// Weights or tables could not be written or read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The optimizer's state does not fit.
    #[error("could not restore `{}`", path.display())]
    Optimizer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OptimizerError,
    },
    /// A shard of the table does not fit.
    #[error("could not restore `{}`", path.display())]
    Estimators {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: EstimatorError,
    },
    /// Ranks could not wait for each other.
    #[error("could not write or find a checkpoint together with the other ranks")]
    Together(#[from] CommError),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}

impl RunState {
    /// Describes a run before its first step.
    pub fn start(written_by: String, identity: BTreeMap<String, Value>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            written_by,
            position: Position::default(),
            steps: 0,
            samples_seen: 0,
            seconds: 0.0,
            num_ranks: 0,
            num_sample_ids: None,
            identity,
        }
    }

    /// Reads the state of a checkpoint, without the tensors.
    ///
    /// # Errors
    /// When it cannot be read or is of another version.
    pub fn read(checkpoint: &Path) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let path = checkpoint.join(STATE_FILE);
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        let json = |source| CheckpointError::Json { path: path.clone(), source };
        let Version { format_version: found } = serde_json::from_slice(&text).map_err(json)?;
        if found != FORMAT_VERSION {
            return Err(CheckpointError::Version { path, found });
        }
        serde_json::from_slice(&text).map_err(json)
    }

    /// Checks that a checkpoint belongs to the run that this state describes.
    ///
    /// # Errors
    /// Names the first difference, with both values.
    pub fn check_same_run(&self, saved: &Self, path: &Path) -> Result<(), CheckpointError> {
        let keys = self.identity.keys().chain(saved.identity.keys());
        let text =
            |state: &Self, key: &str| state.identity.get(key).map_or("nothing".to_owned(), Value::to_string);
        match keys.into_iter().find(|key| self.identity.get(*key) != saved.identity.get(*key)) {
            None => Ok(()),
            Some(key) => Err(CheckpointError::OtherRun {
                path: path.to_owned(),
                key: key.clone(),
                saved: text(saved, key),
                now: text(self, key),
            }),
        }
    }
}

/// The checkpoints of a run.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: NonZeroUsize,
}

impl Checkpoints {
    /// Keeps the newest `keep` checkpoints in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf, keep: NonZeroUsize) -> Self {
        Self { folder, keep }
    }

    /// Finds the newest complete checkpoint.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&self) -> Result<Option<PathBuf>, CheckpointError> {
        let path = self.folder.join(LATEST_FILE);
        match fs::read_to_string(&path) {
            Ok(name) => Ok(Some(self.folder.join(name.trim_end()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Like [`Checkpoints::newest`], where there must be one.
    ///
    /// # Errors
    /// Also when there is none.
    pub fn latest(&self) -> Result<PathBuf, CheckpointError> {
        self.newest()?.ok_or_else(|| CheckpointError::Nothing { folder: self.folder.clone() })
    }

    /// Removes all checkpoints, for a run that starts over.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_all(&self) -> Result<(), CheckpointError> {
        remove_if_there(&self.folder)
    }

    /// Writes a checkpoint and removes those that are not kept. Collective; returns where it is.
    ///
    /// # Errors
    /// When the file system refuses on any rank; the earlier checkpoints are as they were.
    pub fn save(
        &self,
        trainer: &Trainer,
        state: &RunState,
        comm: &dyn Communicator,
    ) -> Result<PathBuf, CheckpointError> {
        let name = format!("step_{:08}", state.steps);
        let (path, beside) = (self.folder.join(&name), self.folder.join(format!("{name}.partial")));
        let is_first = comm.rank() == 0;
        if is_first {
            remove_if_there(&beside)?;
            fs::create_dir_all(&beside).map_err(io_error("create", &beside))?;
        }
        comm.barrier()?;
        if let Some(table) = trainer.objective.estimators() {
            let path = beside.join(shard_name(comm.rank(), comm.world_size()));
            let rows = table.owned().to_device(tch::Device::Cpu).contiguous();
            write_tensors(&path, &[(ESTIMATOR_TENSOR, rows)])?;
        }
        if is_first {
            write_common(&beside, trainer, state, comm.world_size())?;
        }
        comm.barrier()?;
        if is_first {
            sync_folder(&beside)?;
            remove_if_there(&path)?;
            fs::rename(&beside, &path).map_err(io_error("rename", &beside))?;
            sync_folder(&self.folder)?;
            let latest = self.folder.join(LATEST_FILE);
            files::replace(&latest, format!("{name}\n").as_bytes()).map_err(io_error("write", &latest))?;
            sync_folder(&self.folder)?;
            self.remove_old()?;
        }
        Ok(path)
    }

    fn remove_old(&self) -> Result<(), CheckpointError> {
        let read = |error| io_error("read", &self.folder)(error);
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            if let Some(step) = name.strip_prefix("step_").and_then(|step| step.parse::<u64>().ok()) {
                steps.push((step, name));
            }
        }
        steps.sort();
        let num_old = steps.len().saturating_sub(self.keep.get());
        steps[..num_old].iter().try_for_each(|(_, name)| remove_if_there(&self.folder.join(name)))
    }
}

fn write_common(
    folder: &Path,
    trainer: &Trainer,
    state: &RunState,
    num_ranks: usize,
) -> Result<(), CheckpointError> {
    trainer.model.write_folder(folder)?;
    let optimizer: Vec<_> = trainer
        .optimizer
        .state()
        .into_iter()
        .map(|(name, tensor)| (name, tensor.to_device(tch::Device::Cpu)))
        .collect();
    write_tensors(&folder.join(OPTIMIZER_FILE), &optimizer)?;
    let num_sample_ids = trainer.objective.estimators().map(|table| table.dealing().num_ids);
    let state = RunState { num_ranks, num_sample_ids, ..state.clone() };
    let mut text = serde_json::to_vec_pretty(&state).expect("the state of a run is made of plain values");
    text.push(b'\n');
    let path = folder.join(STATE_FILE);
    files::replace(&path, &text).map_err(io_error("write", &path))
}

/// Takes over the tensors of a checkpoint whose state has been read and checked.
///
/// # Errors
/// When a file cannot be read or does not fit.
pub fn restore(path: &Path, state: &RunState, trainer: &mut Trainer) -> Result<(), CheckpointError> {
    trainer.model.read_weights(&path.join(crate::model::WEIGHTS_FILE))?;
    let file = path.join(OPTIMIZER_FILE);
    trainer
        .optimizer
        .restore(read_tensors(&file)?)
        .map_err(|source| CheckpointError::Optimizer { path: file, source })?;
    if let Some(table) = trainer.objective.estimators_mut() {
        for rank in 0..state.num_ranks {
            let file = path.join(shard_name(rank, state.num_ranks));
            let num_ids = state.num_sample_ids.unwrap_or(0);
            let dealing = Dealing { num_ids, rank, world_size: state.num_ranks };
            for (_, rows) in read_tensors(&file)? {
                table
                    .adopt(&rows, dealing)
                    .map_err(|source| CheckpointError::Estimators { path: file.clone(), source })?;
            }
        }
    }
    trainer.step = state.steps;
    Ok(())
}

fn shard_name(rank: usize, num_ranks: usize) -> String {
    format!("estimators-rank{rank}-of-{num_ranks}.safetensors")
}

fn remove_if_there(folder: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write", folder))
}
