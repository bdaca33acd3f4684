//! What went through the collectives.
//!
//! Bytes are counted by formula and not measured: what a rank *receives* when the collective runs as a ring, which is what
//! both backends do with large tensors. The figure is then the same for Gloo and NCCL, can be compared with published
//! ones, and can be checked by a test. With K ranks:
//!
//! | collective | bytes received |
//! |---|---|
//! | all-reduce | 2(K−1)/K of the tensor |
//! | all-gather | (K−1) times the local tensor |
//! | broadcast | the tensor, and nothing on the root |
//! | barrier | nothing |

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Calls and bytes of one collective on one rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How often it was called.
    #[serde(rename = "calls")]
    pub num_calls: u64,
    /// Bytes that this rank received, rounded down in each call.
    #[serde(rename = "bytes")]
    pub num_bytes: u64,
}

impl Traffic {
    fn plus(self, other: Self) -> Self {
        Self { num_calls: self.num_calls + other.num_calls, num_bytes: self.num_bytes + other.num_bytes }
    }

    fn minus(self, other: Self) -> Self {
        Self { num_calls: self.num_calls - other.num_calls, num_bytes: self.num_bytes - other.num_bytes }
    }
}

/// Calls and bytes per collective, since the communicator was made.
///
/// Calls are equal on all ranks at the same point of a run: ranks that disagree have left the common order of collectives.
/// So are bytes, but for broadcasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommCounters {
    /// [`all_reduce_sum`](super::Communicator::all_reduce_sum), and each bucket of
    /// [`all_reduce_during`](super::Communicator::all_reduce_during)
    pub all_reduce: Traffic,
    /// [`all_gather`](super::Communicator::all_gather)
    pub all_gather: Traffic,
    /// [`broadcast`](super::Communicator::broadcast)
    pub broadcast: Traffic,
    /// [`barrier`](super::Communicator::barrier)
    pub barrier: Traffic,
}

impl CommCounters {
    /// Returns the sum over all collectives.
    pub fn total(&self) -> Traffic {
        let Self { all_reduce, all_gather, broadcast, barrier } = *self;
        [all_gather, broadcast, barrier].into_iter().fold(all_reduce, Traffic::plus)
    }

    /// Returns each collective's count by its name.
    pub fn named(&self) -> [(&'static str, Traffic); 4] {
        let Self { all_reduce, all_gather, broadcast, barrier } = *self;
        [
            ("all_reduce", all_reduce),
            ("all_gather", all_gather),
            ("broadcast", broadcast),
            ("barrier", barrier),
        ]
    }

    /// Returns what has come since `earlier`, a state of the same counters.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            all_reduce: self.all_reduce.minus(earlier.all_reduce),
            all_gather: self.all_gather.minus(earlier.all_gather),
            broadcast: self.broadcast.minus(earlier.broadcast),
            barrier: self.barrier.minus(earlier.barrier),
        }
    }
}

/// Counts the collectives of one rank.
#[derive(Debug)]
pub(super) struct Meter {
    rank: usize,
    world_size: u64,
    counters: Cell<CommCounters>,
}

impl Meter {
    pub(super) fn new(rank: usize, world_size: usize) -> Self {
        Self { rank, world_size: world_size as u64, counters: Cell::default() }
    }

    pub(super) fn all_reduce(&self, tensor: &Tensor) {
        let num_bytes = 2 * (self.world_size - 1) * size(tensor) / self.world_size;
        self.count(|counters| &mut counters.all_reduce, num_bytes);
    }

    pub(super) fn all_gather(&self, local: &Tensor) {
        self.count(|counters| &mut counters.all_gather, (self.world_size - 1) * size(local));
    }

    pub(super) fn broadcast(&self, tensor: &Tensor, root: usize) {
        let num_bytes = if self.rank == root { 0 } else { size(tensor) };
        self.count(|counters| &mut counters.broadcast, num_bytes);
    }

    pub(super) fn barrier(&self) {
        self.count(|counters| &mut counters.barrier, 0);
    }

    pub(super) fn counters(&self) -> CommCounters {
        self.counters.get()
    }

    fn count(&self, of: impl FnOnce(&mut CommCounters) -> &mut Traffic, num_bytes: u64) {
        let mut counters = self.counters.get();
        let traffic = of(&mut counters);
        *traffic = traffic.plus(Traffic { num_calls: 1, num_bytes });
        self.counters.set(counters);
    }
}

fn size(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn bytes_are_those_that_a_rank_receives_in_a_ring() {
        let tensor = Tensor::zeros([12], (Kind::Float, Device::Cpu)); // 48 bytes
        let received = |rank, world_size| {
            let meter = Meter::new(rank, world_size);
            meter.all_reduce(&tensor);
            meter.all_gather(&tensor);
            meter.broadcast(&tensor, 0);
            meter.barrier();
            let CommCounters { all_reduce, all_gather, broadcast, barrier } = meter.counters();
            assert_eq!(meter.counters().total().num_calls, 4);
            [all_reduce, all_gather, broadcast, barrier].map(|traffic| traffic.num_bytes)
        };
        assert_eq!(received(0, 1), [0, 0, 0, 0]);
        assert_eq!(received(0, 2), [48, 48, 0, 0]);
        assert_eq!(received(3, 4), [72, 144, 48, 0]);
        assert_eq!(received(1, 5), [76, 192, 48, 0], "rounded down from 76.8");
    }

    #[test]
    fn a_step_is_the_difference_of_two_states() {
        let tensor = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let meter = Meter::new(0, 2);
        meter.all_gather(&tensor);
        let before = meter.counters();
        meter.all_gather(&tensor);
        meter.all_reduce(&tensor);
        let step = meter.counters().since(&before);
        assert_eq!(step.all_gather, Traffic { num_calls: 1, num_bytes: 8 });
        assert_eq!(step.total(), Traffic { num_calls: 2, num_bytes: 16 });
    }
}
