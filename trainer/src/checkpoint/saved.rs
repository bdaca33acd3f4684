//! A checkpoint that is read.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fastclip_shards::{Store, StoreErrorKind, StoreOptions};
use tch::Tensor;
use tokio::runtime::Runtime;

use super::contents::{CONTENTS_FILE, Contents};
use super::error::CheckpointError;
use super::folder::{Checkpoints, Keep, start_runtime};
use super::snapshot::{OPTIMIZER_FILE, STATE_FILE, shard_name};
use super::state::RunState;
use super::tensors;
use crate::estimator::Dealing;
use crate::model::WEIGHTS_FILE;
use crate::step::Trainer;

/// A complete checkpoint. Every file that is read of it is compared with what was written.
#[derive(Debug)]
pub struct Saved {
    store: Store,
    runtime: Arc<Runtime>,
    /// Its folder within the store; empty if it is the store itself.
    folder: String,
    contents: Contents,
    state: RunState,
}

impl Saved {
    /// Opens a checkpoint by its folder or URL, or that of a run's checkpoints, of which the newest is taken.
    ///
    /// # Errors
    /// When it is not there, not complete, damaged, or of another version.
    pub fn open(location: &str) -> Result<Self, CheckpointError> {
        let store = Store::open(location, &StoreOptions::from_process())
            .map_err(|source| CheckpointError::Location { location: location.to_owned(), source })?;
        let keep = Keep { last: std::num::NonZeroUsize::MIN, every_steps: None };
        match Self::of_store(store.clone(), Arc::new(start_runtime()?), "") {
            Err(incomplete @ CheckpointError::Incomplete { .. }) => {
                let checkpoints = Checkpoints::of_store(store, keep)?;
                match checkpoints.newest()? {
                    Some(steps) => checkpoints.saved(steps),
                    None => Err(incomplete),
                }
            }
            found => found,
        }
    }

    pub(super) fn of_store(
        store: Store,
        runtime: Arc<Runtime>,
        folder: &str,
    ) -> Result<Self, CheckpointError> {
        let name = within(folder, CONTENTS_FILE);
        let file = format!("{}/{name}", store.location());
        let text = runtime.block_on(store.get(&name)).map_err(|source| {
            if source.kind() == StoreErrorKind::NotFound {
                let location = shown(&store, folder);
                CheckpointError::Incomplete { location, missing: CONTENTS_FILE }
            } else {
                CheckpointError::Store { action: "read", file: file.clone(), source }
            }
        })?;
        let contents = Contents::parse(&file, &text)?;
        let state = RunState::start(String::new(), std::collections::BTreeMap::new());
        let mut saved = Self { store, runtime, folder: folder.to_owned(), contents, state };
        let text = saved.read(STATE_FILE)?;
        saved.state = serde_json::from_slice(&text)
            .map_err(|source| CheckpointError::Json { file: saved.shown_file(STATE_FILE), source })?;
        Ok(saved)
    }

    /// Where the run stood.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Where it is, fit for messages.
    pub fn location(&self) -> String {
        shown(&self.store, &self.folder)
    }

    fn shown_file(&self, name: &str) -> String {
        format!("{}/{name}", self.location())
    }

    /// Reads a file and checks it.
    fn read(&self, name: &str) -> Result<Bytes, CheckpointError> {
        let file = self.shown_file(name);
        let damaged = |reason| CheckpointError::Damaged { file: file.clone(), reason };
        let record = self.contents.files.iter().find(|record| record.name == name);
        let record = record.ok_or_else(|| damaged(format!("`{CONTENTS_FILE}` does not list it")))?;
        let bytes = self
            .runtime
            .block_on(self.store.get(&within(&self.folder, name)))
            .map_err(|source| CheckpointError::Store { action: "read", file: file.clone(), source })?;
        record.check(&bytes).map_err(damaged)?;
        Ok(bytes)
    }

    fn tensors(&self, name: &str) -> Result<Vec<(String, Tensor)>, CheckpointError> {
        tensors::parse(&self.read(name)?).map_err(|source| CheckpointError::Tensors {
            action: "read",
            file: self.shown_file(name),
            source,
        })
    }

    /// Takes over its tensors. Of the objective's table, this reads the shards that hold rows of this rank.
    ///
    /// # Errors
    /// When a file cannot be read, is damaged, or does not fit.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<(), CheckpointError> {
        let file = self.shown_file(WEIGHTS_FILE);
        trainer.model.take_weights(&PathBuf::from(file), self.tensors(WEIGHTS_FILE)?)?;
        trainer
            .optimizer
            .restore(self.tensors(OPTIMIZER_FILE)?)
            .map_err(|source| CheckpointError::Optimizer { file: self.shown_file(OPTIMIZER_FILE), source })?;
        let num_ranks = self.state.num_ranks;
        if let Some(table) = trainer.objective.estimators_mut() {
            let own = table.dealing();
            for rank in (0..num_ranks).filter(|&rank| own.shares_rows_with(rank, num_ranks)) {
                let name = shard_name(rank, num_ranks);
                let num_ids = self.state.num_sample_ids.unwrap_or(0);
                let dealing = Dealing { num_ids, rank, world_size: num_ranks };
                for (_, rows) in self.tensors(&name)? {
                    table.adopt(&rows, dealing).map_err(|source| CheckpointError::Estimators {
                        file: self.shown_file(&name),
                        source,
                    })?;
                }
            }
        }
        trainer.step = self.state.steps;
        Ok(())
    }
}

fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn shown(store: &Store, folder: &str) -> String {
    let location = store.location().trim_end_matches('/');
    if folder.is_empty() { location.to_owned() } else { format!("{location}/{folder}") }
}
