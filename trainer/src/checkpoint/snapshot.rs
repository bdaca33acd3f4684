//! A copy of what training changes, in host memory.
//!
//! The step waits for this copy and for nothing else. Its memory is kept for the next one: asking the system for
//! gigabytes of fresh pages takes longer than filling them. Beside a GPU it is page-locked, which the card can write
//! to at the full speed of its bus.

use std::collections::HashMap;

use tch::{Device, Tensor, no_grad};

use super::error::{CheckpointError, TensorsError};
use super::state::RunState;
use crate::distributed::Communicator;
use crate::model::{CONFIG_FILE, WEIGHTS_FILE};
use crate::step::Trainer;

pub(super) const STATE_FILE: &str = "trainer.json";
pub(super) const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const SETTINGS_FILE: &str = "config.toml";
const ESTIMATOR_TENSOR: &str = "rows";

pub(super) fn shard_name(rank: usize, num_ranks: usize) -> String {
    format!("estimators-rank{rank}-of-{num_ranks}.safetensors")
}

/// One rank's part of a checkpoint.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) steps: u64,
    pub(super) files: Vec<(String, Content)>,
}

#[derive(Debug)]
pub(super) enum Content {
    Text(Vec<u8>),
    /// In host memory and contiguous.
    Tensors(Vec<(String, Tensor)>),
}

/// Host memory of an earlier snapshot, by file and name.
#[derive(Debug, Default)]
pub(super) struct Buffers(HashMap<(String, String), Tensor>);

impl Buffers {
    /// Takes back the memory of a snapshot that has been written.
    pub(super) fn reclaim(&mut self, snapshot: Snapshot) {
        for (file, content) in snapshot.files {
            if let Content::Tensors(named) = content {
                self.0.extend(named.into_iter().map(|(name, tensor)| ((file.clone(), name), tensor)));
            }
        }
    }

    fn copy(&mut self, file: &str, name: &str, source: &Tensor) -> Result<Tensor, tch::TchError> {
        let kept = self.0.remove(&(file.to_owned(), name.to_owned()));
        let fits = |kept: &Tensor| kept.size() == source.size() && kept.kind() == source.kind();
        let mut buffer = match kept.filter(fits) {
            Some(kept) => kept,
            None => new_buffer(source)?,
        };
        no_grad(|| buffer.f_copy_(&source.detach()))?;
        Ok(buffer)
    }

    fn copy_all(
        &mut self,
        file: &str,
        named: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<(String, Content), CheckpointError> {
        let copies = named.into_iter().map(|(name, tensor)| {
            let copy = self.copy(file, &name, &tensor)?;
            Ok((name, copy))
        });
        let copies: Result<Vec<_>, tch::TchError> = copies.collect();
        let copies = copies.map_err(|source| CheckpointError::Tensors {
            action: "copy",
            file: file.to_owned(),
            source: TensorsError::Torch(source),
        })?;
        Ok((file.to_owned(), Content::Tensors(copies)))
    }
}

fn new_buffer(source: &Tensor) -> Result<Tensor, tch::TchError> {
    let plain = Tensor::f_empty(source.size(), (source.kind(), Device::Cpu))?;
    match source.device() {
        // Page-locked memory is limited; without it the copy is slower and just as good.
        device @ Device::Cuda(_) => Ok(plain.f_pin_memory(device).unwrap_or(plain)),
        _ => Ok(plain),
    }
}

impl Snapshot {
    /// Copies this rank's part: rank 0 has what all ranks have alike, every rank its shard of the table.
    pub(super) fn take(
        trainer: &Trainer,
        state: &RunState,
        settings: &str,
        comm: &dyn Communicator,
        buffers: &mut Buffers,
    ) -> Result<Self, CheckpointError> {
        let (rank, num_ranks) = (comm.rank(), comm.world_size());
        let mut files = Vec::new();
        let table = trainer.objective.estimators();
        if let Some(table) = table {
            let rows = [(ESTIMATOR_TENSOR.to_owned(), table.owned())];
            files.push(buffers.copy_all(&shard_name(rank, num_ranks), rows)?);
        }
        if rank == 0 {
            let model = &trainer.model;
            let weights = model.parameters().state();
            let weights = weights.map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone()));
            files.push(buffers.copy_all(WEIGHTS_FILE, weights)?);
            files.push(buffers.copy_all(OPTIMIZER_FILE, trainer.optimizer.state())?);
            let num_sample_ids = table.map(|table| table.dealing().num_ids);
            let state = RunState { num_ranks, num_sample_ids, ..state.clone() };
            let mut text =
                serde_json::to_vec_pretty(&state).expect("the state of a run is made of plain values");
            text.push(b'\n');
            files.push((STATE_FILE.to_owned(), Content::Text(text)));
            files.push((CONFIG_FILE.to_owned(), Content::Text(model.config_file())));
            files.push((SETTINGS_FILE.to_owned(), Content::Text(settings.as_bytes().to_vec())));
        }
        Ok(Self { steps: state.steps, files })
    }
}
