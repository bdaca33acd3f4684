use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fastclip_shards::{Dataset, ReadError, SampleRun, ShardIndex};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::IndexCache;
use super::budget::{ByteBudget, HeldBytes, OpenBytes};
use super::schedule::{RunRequest, Schedule};
use crate::LoadError;
use crate::stats::Meters;

/// A run in memory.
#[derive(Debug)]
pub(super) struct LoadedRun {
    pub(super) samples: SampleRun,
    /// Uses of this rank, after which the run is not needed any more.
    pub(super) num_uses: u32,
    /// Given back together with the bytes.
    _held: HeldBytes,
}

/// Fetches runs ahead of their use.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) dataset: Dataset,
    pub(super) indexes: Arc<IndexCache>,
    pub(super) budget: ByteBudget,
    pub(super) requests_in_flight: usize,
    pub(super) window_samples: u64,
    pub(super) meters: Arc<Meters>,
}

/// How runs reach the dispatcher. Without a capacity in runs, as the budget bounds them in bytes: were the reader to
/// wait here, nobody would drive the requests in flight.
pub(super) type RunSender = mpsc::UnboundedSender<Result<LoadedRun, LoadError>>;

impl Reader {
    /// Sends all runs of the schedule in order, until the first failure or until told to stop.
    pub(super) async fn run(self, schedule: Schedule, runs: RunSender, stop: oneshot::Receiver<()>) {
        let work = async {
            let mut fetched = pin!(self.fetch_all(schedule));
            while let Some(run) = fetched.next().await {
                let is_last = run.is_err();
                if runs.send(run).is_err() || is_last {
                    break;
                }
            }
        };
        // Nothing is ever sent: the other side of `stop` is dropped.
        futures::future::select(pin!(work), stop).await;
    }

    fn fetch_all(&self, schedule: Schedule) -> impl futures::Stream<Item = Result<LoadedRun, LoadError>> {
        let num_lanes = schedule.num_lanes();
        let mut open = OpenBytes::default();
        stream::iter(schedule.flat_map(|step| step.runs))
            .map(move |request| async move {
                let index = self.indexes.get(request.shard).await;
                let index = index.map_err(|source| self.unreadable(&request, source))?;
                Ok((request, index))
            })
            .buffered(self.requests_in_flight)
            .map_ok(move |(request, index)| {
                let needed = open.add(&request, ByteBudget::cost(num_bytes(&index, &request.samples)));
                (request, index, needed)
            })
            // One after the other, so that the budget goes to whom it is needed by first.
            .and_then(move |(request, index, needed)| async move {
                if needed > self.budget.bound() {
                    let (bound, window_samples) = (self.budget.bound(), self.window_samples);
                    return Err(LoadError::MemoryBound { bound, needed, num_lanes, window_samples });
                }
                let held = self.budget.take(num_bytes(&index, &request.samples)).await;
                Ok((request, index, held))
            })
            .map(move |admitted| async move {
                let (request, index, held) = admitted?;
                self.fetch(request, index, held).await
            })
            .buffered(self.requests_in_flight)
    }

    async fn fetch(
        &self,
        request: RunRequest,
        index: Arc<ShardIndex>,
        held: HeldBytes,
    ) -> Result<LoadedRun, LoadError> {
        let start = Instant::now();
        let samples = self.dataset.fetch(request.shard, &index, request.samples.clone()).await;
        let samples = samples.map_err(|source| self.unreadable(&request, source))?;
        self.meters.fetch.add(start.elapsed());
        self.meters.bytes_read.fetch_add(samples.num_bytes() as u64, Ordering::Relaxed);
        Ok(LoadedRun { samples, num_uses: request.num_uses, _held: held })
    }

    fn unreadable(&self, request: &RunRequest, source: ReadError) -> LoadError {
        let shard = self.dataset.manifest().shards[request.shard].name.clone();
        LoadError::Read { shard, samples: request.samples.clone(), source: Box::new(source) }
    }
}

fn num_bytes(index: &ShardIndex, samples: &Range<u32>) -> u64 {
    let bytes = index.byte_range(samples.clone());
    bytes.end - bytes.start
}
