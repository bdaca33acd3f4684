//! Several ranks, over a process group.

use std::cell::Cell;

use fastclip_torch_ext::{CollectiveError, FailureKind, ProcessGroup, ReduceOp, TcpStore, Work};
use tch::{Tensor, no_grad};

use super::alone::{check_divides, check_root, rows};
use super::watch::Watch;
use super::{CommCounters, CommError, Communicator, Traffic};

/// One of several ranks that [`connect`](super::connect) has brought together.
///
/// A collective that fails costs the time-out at most, and up to a quarter of it more until the ranks have agreed on whom
/// to blame. Dropping a group says good-bye to the others first, so that they can tell leaving from dying.
#[derive(Debug)]
pub struct Group {
    // In the order in which they end: the watch says good-bye while the connections are still open, and the store goes
    // last, because the other two use it.
    watch: Watch,
    group: ProcessGroup,
    _store: TcpStore,
    counters: Cell<CommCounters>,
}

impl Group {
    pub(super) fn new(group: ProcessGroup, watch: Watch, store: TcpStore) -> Self {
        Self { watch, group, _store: store, counters: Cell::default() }
    }

    fn count(&self, of: impl FnOnce(&mut CommCounters) -> &mut Traffic, tensor: &Tensor) {
        let mut counters = self.counters.get();
        of(&mut counters).count(tensor);
        self.counters.set(counters);
    }

    /// Runs a collective to its end, and finds out whom to blame if it fails.
    fn run(
        &self,
        start: impl FnOnce(&ProcessGroup) -> Result<Work, CollectiveError>,
    ) -> Result<(), CommError> {
        self.watch.enter(self.group.sequence() + 1);
        start(&self.group).and_then(Work::wait).map_err(|source| {
            if source.kind == FailureKind::Refused {
                self.watch.announce(&format!("{source}: {}", source.source));
                CommError::Refused { source: Box::new(source) }
            } else {
                let verdict = Box::new(self.watch.diagnose(&source));
                CommError::Peer { verdict, source: Box::new(source) }
            }
        })
    }

    /// Runs a collective that changes `tensor` in place.
    fn run_in_place(
        &self,
        tensor: &Tensor,
        start: impl FnOnce(&ProcessGroup, &Tensor) -> Result<Work, CollectiveError>,
    ) -> Result<(), CommError> {
        // All ranks have the same shape, so that all leave it out or none.
        if tensor.numel() == 0 {
            return Ok(());
        }
        if tensor.is_contiguous() {
            return self.run(|group| start(group, tensor));
        }
        let flat = tensor.detach().contiguous();
        self.run(|group| start(group, &flat))?;
        no_grad(|| tensor.shallow_clone().copy_(&flat));
        Ok(())
    }
}

impl Communicator for Group {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn world_size(&self) -> usize {
        self.group.world_size()
    }

    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<(), CommError> {
        self.count(|counters| &mut counters.all_reduce, tensor);
        self.run_in_place(tensor, |group, tensor| group.all_reduce(tensor, ReduceOp::Sum))
    }

    fn all_gather(&self, local: &Tensor) -> Result<Tensor, CommError> {
        self.count(|counters| &mut counters.all_gather, local);
        let local = rows(&local.detach()).contiguous();
        let mut shape = local.size();
        shape[0] *= self.world_size() as i64;
        let all = Tensor::empty(&shape, (local.kind(), local.device()));
        if local.numel() > 0 {
            self.run(|group| group.all_gather_into(&all, &local))?;
        }
        Ok(all)
    }

    fn reduce_scatter_sum(&self, full: &Tensor) -> Result<Tensor, CommError> {
        check_divides("reduce_scatter", full, self.world_size())?;
        self.count(|counters| &mut counters.reduce_scatter, full);
        let full = full.detach().contiguous();
        let mut shape = full.size();
        shape[0] /= self.world_size() as i64;
        let part = Tensor::empty(&shape, (full.kind(), full.device()));
        if full.numel() > 0 {
            self.run(|group| group.reduce_scatter_into(&part, &full, ReduceOp::Sum))?;
        }
        Ok(part)
    }

    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), CommError> {
        check_root(tensor, root, self.world_size())?;
        self.count(|counters| &mut counters.broadcast, tensor);
        self.run_in_place(tensor, |group, tensor| group.broadcast(tensor, root))
    }

    fn barrier(&self) -> Result<(), CommError> {
        let mut counters = self.counters.get();
        counters.barrier.num_calls += 1;
        self.counters.set(counters);
        self.run(ProcessGroup::barrier)
    }

    fn announce_failure(&self, cause: &str) {
        self.watch.announce(cause);
    }

    fn counters(&self) -> CommCounters {
        self.counters.get()
    }
}
