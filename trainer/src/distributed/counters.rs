//! What went through the collectives.

use tch::Tensor;

/// Calls and bytes of one collective on one rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How often it was called.
    pub num_calls: u64,
    /// Bytes of the tensors that this rank handed in. What travels depends on the algorithm that the backend picks;
    /// this number does not.
    pub num_bytes: u64,
}

impl Traffic {
    /// Counts one call that hands in `tensor`.
    pub(super) fn count(&mut self, tensor: &Tensor) {
        self.num_calls += 1;
        self.num_bytes += (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
    }
}

/// Calls and bytes per collective, since the communicator was made.
///
/// Equal on all ranks at the same point of a run: ranks that disagree have left the common order of collectives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommCounters {
    /// [`all_reduce_sum`](super::Communicator::all_reduce_sum)
    pub all_reduce: Traffic,
    /// [`all_gather`](super::Communicator::all_gather)
    pub all_gather: Traffic,
    /// [`reduce_scatter_sum`](super::Communicator::reduce_scatter_sum)
    pub reduce_scatter: Traffic,
    /// [`broadcast`](super::Communicator::broadcast)
    pub broadcast: Traffic,
    /// [`barrier`](super::Communicator::barrier); it moves no bytes
    pub barrier: Traffic,
}

impl CommCounters {
    /// Returns the sum over all collectives.
    pub fn total(&self) -> Traffic {
        let Self { all_reduce, all_gather, reduce_scatter, broadcast, barrier } = self;
        let mut total = Traffic::default();
        for traffic in [all_reduce, all_gather, reduce_scatter, broadcast, barrier] {
            total.num_calls += traffic.num_calls;
            total.num_bytes += traffic.num_bytes;
        }
        total
    }
}
