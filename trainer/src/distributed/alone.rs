//! A world of one.

use fastclip_torch_ext::GradientBuckets;
use tch::Tensor;

use super::counters::Meter;
use super::{CommCounters, CommError, Communicator};

/// The communicator of a run in one process, without launcher, store or sockets.
///
/// It counts and checks like a [`Group`](super::Group) of one rank.
#[derive(Debug)]
pub struct Alone {
    meter: Meter,
}

impl Alone {
    /// Returns the only rank of a new world.
    pub fn new() -> Self {
        Self { meter: Meter::new(0, 1) }
    }
}

impl Default for Alone {
    fn default() -> Self {
        Self::new()
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
        self.meter.all_reduce(tensor);
        Ok(())
    }

    fn all_reduce_during(
        &self,
        buckets: &mut GradientBuckets,
        backward: &mut dyn FnMut(),
    ) -> Result<(), CommError> {
        buckets.flats().iter().for_each(|flat| self.meter.all_reduce(flat));
        buckets.complete(backward).map_err(|source| CommError::Buckets { source })
    }

    fn all_gather(&self, local: &Tensor) -> Result<Tensor, CommError> {
        self.meter.all_gather(local);
        Ok(rows(local).detach().copy())
    }

    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), CommError> {
        check_root(tensor, root, 1)?;
        self.meter.broadcast(tensor, root);
        Ok(())
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.meter.barrier();
        Ok(())
    }

    /// Nobody is there to be told.
    fn announce_failure(&self, _cause: &str, _is_refusal: bool) {}

    fn counters(&self) -> CommCounters {
        self.meter.counters()
    }
}

/// Returns `tensor` with at least one dimension, so that ranks have something to be concatenated along.
pub(super) fn rows(tensor: &Tensor) -> Tensor {
    if tensor.dim() == 0 { tensor.reshape([1]) } else { tensor.shallow_clone() }
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
