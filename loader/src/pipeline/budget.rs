use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::schedule::RunRequest;
use crate::stats::Meters;

/// Unit of the budget. A semaphore hands out at most 2^32 permits at once, which in bytes would be too few.
const UNIT_BYTES: u64 = 1024;

/// Bytes of shards that may be held at once.
#[derive(Debug)]
pub(super) struct ByteBudget {
    units: Arc<Semaphore>,
    bound: u64,
    meters: Arc<Meters>,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    _units: OwnedSemaphorePermit,
    num_bytes: u64,
    meters: Arc<Meters>,
}

impl ByteBudget {
    pub(super) fn new(bound: u64, meters: Arc<Meters>) -> Self {
        let units = usize::try_from(bound / UNIT_BYTES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), bound, meters }
    }

    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// Bytes of the budget that a run of this size takes.
    pub(super) fn cost(num_bytes: u64) -> u64 {
        num_bytes.div_ceil(UNIT_BYTES) * UNIT_BYTES
    }

    /// Waits for room. Served in the order of asking.
    pub(super) async fn take(&self, num_bytes: u64) -> HeldBytes {
        let units =
            u32::try_from(num_bytes.div_ceil(UNIT_BYTES)).expect("a run has less than four terabytes");
        let units = Arc::clone(&self.units).acquire_many_owned(units).await;
        let num_bytes = Self::cost(num_bytes);
        self.meters.hold_bytes(num_bytes);
        let units = units.expect("nobody closes the semaphore");
        HeldBytes { _units: units, num_bytes, meters: Arc::clone(&self.meters) }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.meters.free_bytes(self.num_bytes);
    }
}

/// Bytes that must be held together, computed ahead of time from the uses of runs.
#[derive(Debug, Default)]
pub(super) struct OpenBytes {
    /// Last use and size of the runs that are still needed.
    open: BinaryHeap<Reverse<(u64, u64)>>,
    num_bytes: u64,
}

impl OpenBytes {
    /// Adds a run and returns the bytes of all runs that are open when it is first used.
    pub(super) fn add(&mut self, request: &RunRequest, num_bytes: u64) -> u64 {
        while let Some(&Reverse((last_use, finished))) = self.open.peek() {
            if last_use >= request.first_use {
                break;
            }
            self.open.pop();
            self.num_bytes -= finished;
        }
        self.open.push(Reverse((request.last_use, num_bytes)));
        self.num_bytes += num_bytes;
        self.num_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(first_use: u64, last_use: u64) -> RunRequest {
        RunRequest { run: 0, shard: 0, samples: 0..1, pass: 0, num_uses: 1, first_use, last_use }
    }

    #[test]
    fn runs_count_from_their_first_to_their_last_use() {
        let mut open = OpenBytes::default();
        assert_eq!(open.add(&request(0, 5), 100), 100);
        assert_eq!(open.add(&request(1, 2), 10), 110);
        assert_eq!(open.add(&request(2, 9), 1), 111);
        assert_eq!(open.add(&request(3, 3), 1), 102);
        assert_eq!(open.add(&request(6, 7), 1000), 1001);
    }

    #[test]
    fn bytes_beyond_the_budget_wait_until_others_are_given_back() {
        let meters = Arc::new(Meters::default());
        let budget = ByteBudget::new(10 << 10, Arc::clone(&meters));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let first = budget.take(6 << 10).await;
            let mut second = std::pin::pin!(budget.take((4 << 10) + 1));
            assert!(futures::poll!(&mut second).is_pending());
            assert_eq!(meters.read(0).bytes_in_flight, 6 << 10);
            drop(first);
            let second = second.await;
            assert_eq!(meters.read(0).bytes_in_flight, 5 << 10);
            drop(second);
        });
        assert_eq!(meters.read(0).bytes_in_flight, 0);
        assert_eq!(meters.read(0).peak_bytes_in_flight, 6 << 10);
    }
}
