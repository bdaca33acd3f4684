//! A world of one.

use std::cell::Cell;

use tch::Tensor;

use super::{CommCounters, CommError, Communicator, Traffic};

/// The communicator of a run in one process, without launcher, store or sockets.
///
/// It counts and checks like a [`Group`](super::Group) of one rank.
#[derive(Debug, Default)]
pub struct Alone {
    counters: Cell<CommCounters>,
}

impl Alone {
    /// Returns the only rank of a new world.
    pub fn new() -> Self {
        Self::default()
    }

    fn count(&self, of: impl FnOnce(&mut CommCounters) -> &mut Traffic, tensor: &Tensor) {
        let mut counters = self.counters.get();
        of(&mut counters).count(tensor);
        self.counters.set(counters);
    }
}

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<(), CommError> {
        self.count(|counters| &mut counters.all_reduce, tensor);
        Ok(())
    }

    fn all_gather(&self, local: &Tensor) -> Result<Tensor, CommError> {
        self.count(|counters| &mut counters.all_gather, local);
        Ok(rows(local).detach().copy())
    }

    fn reduce_scatter_sum(&self, full: &Tensor) -> Result<Tensor, CommError> {
        check_divides("reduce_scatter", full, 1)?;
        self.count(|counters| &mut counters.reduce_scatter, full);
        Ok(full.detach().copy())
    }

    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), CommError> {
        check_root(tensor, root, 1)?;
        self.count(|counters| &mut counters.broadcast, tensor);
        Ok(())
    }

    fn barrier(&self) -> Result<(), CommError> {
        let mut counters = self.counters.get();
        counters.barrier.num_calls += 1;
        self.counters.set(counters);
        Ok(())
    }

    /// Nobody is there to be told.
    fn announce_failure(&self, _cause: &str) {}

    fn counters(&self) -> CommCounters {
        self.counters.get()
    }
}

/// Returns `tensor` with at least one dimension, so that ranks have something to be concatenated along.
pub(super) fn rows(tensor: &Tensor) -> Tensor {
    if tensor.dim() == 0 { tensor.reshape([1]) } else { tensor.shallow_clone() }
}

/// Refuses a tensor whose rows cannot be dealt out evenly.
pub(super) fn check_divides(
    collective: &'static str,
    tensor: &Tensor,
    world_size: usize,
) -> Result<(), CommError> {
    let shape = tensor.size();
    match shape.first() {
        Some(&num_rows) if num_rows % world_size as i64 == 0 => Ok(()),
        Some(&num_rows) => Err(CommError::Argument {
            collective,
            reason: format!("{num_rows} rows cannot be dealt out evenly to {world_size} ranks"),
            shape,
        }),
        None => {
            Err(CommError::Argument { collective, reason: "it has no rows to deal out".to_owned(), shape })
        }
    }
}

/// Refuses a root that is not a rank.
pub(super) fn check_root(tensor: &Tensor, root: usize, world_size: usize) -> Result<(), CommError> {
    if root < world_size {
        return Ok(());
    }
    Err(CommError::Argument {
        collective: "broadcast",
        shape: tensor.size(),
        reason: format!("there is no rank {root} among {world_size}"),
    })
}
