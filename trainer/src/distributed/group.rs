//! Several ranks, over a process group.

use fastclip_torch_ext::{
    CollectiveError, FailureKind, GradientBuckets, ProcessGroup, ReduceOp, TcpStore, Work,
};
use tch::{Tensor, no_grad};

use super::alone::{check_root, rows};
use super::counters::Meter;
use super::watch::Watch;
use super::{CommCounters, CommError, Communicator};

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
    meter: Meter,
}

impl Group {
    pub(super) fn new(group: ProcessGroup, watch: Watch, store: TcpStore) -> Self {
        watch.follow(group.sequence().clone());
        let meter = Meter::new(group.rank(), group.world_size());
        Self { watch, group, _store: store, meter }
    }

    /// Runs a collective to its end.
    fn run(
        &self,
        start: impl FnOnce(&ProcessGroup) -> Result<Work, CollectiveError>,
    ) -> Result<(), CommError> {
        start(&self.group).and_then(Work::wait).map_err(|source| self.blame(source))
    }

    /// Finds out whose fault it is that a collective failed.
    fn blame(&self, source: CollectiveError) -> CommError {
        if source.kind == FailureKind::Refused {
            self.watch.announce(&format!("{source}: {}", source.source), false);
            CommError::Refused { source: Box::new(source) }
        } else {
            let verdict = Box::new(self.watch.diagnose(&source));
            CommError::Peer { verdict, source: Box::new(source) }
        }
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
        self.meter.all_reduce(tensor);
        self.run_in_place(tensor, |group, tensor| group.all_reduce(tensor, ReduceOp::Sum))
    }

    fn all_reduce_during(
        &self,
        buckets: &mut GradientBuckets,
        backward: &mut dyn FnMut(),
    ) -> Result<(), CommError> {
        buckets.flats().iter().for_each(|flat| self.meter.all_reduce(flat));
        buckets.all_reduce_during(&self.group, backward).map_err(|source| self.blame(source))
    }

    fn all_gather(&self, local: &Tensor) -> Result<Tensor, CommError> {
        self.meter.all_gather(local);
        let local = rows(&local.detach()).contiguous();
        let mut shape = local.size();
        shape[0] *= self.world_size() as i64;
        let all = Tensor::empty(&shape, (local.kind(), local.device()));
        if local.numel() > 0 {
            self.run(|group| group.all_gather_into(&all, &local))?;
        }
        Ok(all)
    }

    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), CommError> {
        check_root(tensor, root, self.world_size())?;
        self.meter.broadcast(tensor, root);
        self.run_in_place(tensor, |group, tensor| group.broadcast(tensor, root))
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.meter.barrier();
        self.run(ProcessGroup::barrier)
    }

    fn announce_failure(&self, cause: &str, is_refusal: bool) {
        self.watch.announce(cause, is_refusal);
    }

    fn counters(&self) -> CommCounters {
        self.meter.counters()
    }
}
