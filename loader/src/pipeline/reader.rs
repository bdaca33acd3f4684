use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use fastclip_schemas::Position;
use fastclip_shards::{Dataset, ReadError, RunIndex, SampleRun};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::IndexCache;
use super::budget::{ByteBudget, HeldBytes, OpenBytes};
use super::schedule::{RunRequest, Schedule};
use super::watch::{Awaited, Watch};
use crate::sample::with_causes;
use crate::stats::Meters;
use crate::{BadReason, BadSample, LoadError, UnreadableShards};

/// A run in memory.
#[derive(Debug)]
pub(super) struct LoadedRun {
    pub(super) samples: Result<SampleRun, LostRun>,
    /// Number of the shard.
    pub(super) shard: usize,
    /// Which pass over its dataset it belongs to.
    pub(super) pass: u64,
    /// Uses of this rank, after which the run is not needed any more.
    pub(super) num_uses: u32,
    /// Given back together with the bytes.
    _held: HeldBytes,
}

/// A run that stays unread, and is to be left out.
#[derive(Debug)]
pub(super) struct LostRun {
    shard: String,
    detail: String,
}

impl LostRun {
    /// What becomes of one of its samples.
    pub(super) fn sample(&self, sample: u32, position: Position) -> BadSample {
        let (shard, detail) = (self.shard.clone(), self.detail.clone());
        BadSample { shard, sample, key: None, position, reason: BadReason::UnreadableShard, detail }
    }
}

/// Fetches runs ahead of their use.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) dataset: Dataset,
    pub(super) indexes: Arc<IndexCache>,
    pub(super) budget: ByteBudget,
    pub(super) requests_in_flight: usize,
    pub(super) window_samples: u64,
    pub(super) unreadable_shards: UnreadableShards,
    pub(super) watch: Arc<Watch>,
    pub(super) meters: Arc<Meters>,
}

/// How runs reach the dispatcher. Without a capacity in runs, as the budget bounds them in bytes: were the reader to
/// wait here, nobody would drive the requests in flight.
pub(super) type RunSender = mpsc::UnboundedSender<Result<LoadedRun, LoadError>>;

impl Reader {
    /// Sends all runs of the schedule in order, until the first failure or until told to stop.
    pub(super) async fn run(self, schedule: Schedule, runs: RunSender, stop: CancellationToken) {
        let work = async {
            let mut fetched = pin!(self.fetch_all(schedule));
            while let Some(run) = fetched.next().await {
                let is_last = run.is_err();
                if runs.send(run).is_err() || is_last {
                    break;
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    fn fetch_all(&self, schedule: Schedule) -> impl futures::Stream<Item = Result<LoadedRun, LoadError>> {
        let num_lanes = schedule.num_lanes();
        let mut open = OpenBytes::default();
        stream::iter(schedule.flat_map(|step| step.runs))
            .map(move |request| async move {
                let start = Instant::now();
                let waiting = self.watch.wait(Awaited::Index { shard: request.shard });
                let index = self.indexes.get(request.shard, request.samples.clone()).await;
                drop(waiting);
                self.meters.index_wait.add(start.elapsed());
                let index = match index {
                    Ok(index) => Ok(index),
                    Err(source) => Err(self.lose(&request, source)?),
                };
                Ok((request, index))
            })
            .buffered(self.requests_in_flight)
            .map_ok(move |(request, index)| {
                let num_bytes = self.num_bytes(&request, &index);
                let needed = open.add(&request, ByteBudget::cost(num_bytes));
                (request, index, num_bytes, needed)
            })
            // One after the other, so that the budget goes to whom it is needed by first.
            .and_then(move |(request, index, num_bytes, needed)| async move {
                if needed > self.budget.bound() {
                    let (bound, window_samples) = (self.budget.bound(), self.window_samples);
                    return Err(LoadError::MemoryBound { bound, needed, num_lanes, window_samples });
                }
                let start = Instant::now();
                let waiting = self.watch.wait(Awaited::Memory { num_bytes, bound: self.budget.bound() });
                let held = self.budget.take(num_bytes).await;
                drop(waiting);
                self.meters.room_wait.add(start.elapsed());
                Ok((request, index, held))
            })
            .map(move |admitted| async move {
                let (request, index, held) = admitted?;
                let samples = match index {
                    Ok(index) => self.fetch(&request, index).await?,
                    Err(lost) => Err(lost),
                };
                let RunRequest { shard, pass, num_uses, .. } = request;
                Ok(LoadedRun { samples, shard, pass, num_uses, _held: held })
            })
            .buffered(self.requests_in_flight)
    }

    async fn fetch(
        &self,
        request: &RunRequest,
        index: RunIndex,
    ) -> Result<Result<SampleRun, LostRun>, LoadError> {
        let start = Instant::now();
        let shard = request.shard;
        let waiting = self.watch.wait(Awaited::Samples { shard, samples: index.samples() });
        let samples = self.dataset.fetch_run(shard, index).await;
        drop(waiting);
        let samples = match samples {
            Ok(samples) => samples,
            Err(source) => return self.lose(request, source).map(Err),
        };
        self.meters.fetch.add(start.elapsed());
        self.meters.add_bytes_read(samples.num_bytes() as u64);
        Ok(Ok(samples))
    }

    /// What a run takes in memory. One that is lost takes its share of the shard, though there will be none of it: or a store
    /// that refuses at once would be asked for all that there is, and all of it be lost before the caller gets there.
    fn num_bytes(&self, request: &RunRequest, index: &Result<RunIndex, LostRun>) -> u64 {
        if let Ok(index) = index {
            let bytes = index.byte_range();
            return bytes.end - bytes.start;
        }
        let shard = &self.dataset.manifest().shards[request.shard];
        let mean = shard.num_bytes / u64::from(shard.num_samples.max(1));
        (mean * request.samples.len() as u64).max(1)
    }

    /// Gives a run up, or the stream, as the policy has it.
    fn lose(&self, request: &RunRequest, source: ReadError) -> Result<LostRun, LoadError> {
        match self.unreadable_shards {
            UnreadableShards::Fail => Err(self.unreadable(request, source)),
            UnreadableShards::LeaveOut => {
                let shard = self.dataset.manifest().shards[request.shard].name.clone();
                Ok(LostRun { shard, detail: with_causes(&source) })
            }
        }
    }

    fn unreadable(&self, request: &RunRequest, source: ReadError) -> LoadError {
        let shard = self.dataset.manifest().shards[request.shard].name.clone();
        LoadError::Read { shard, samples: request.samples.clone(), source: Box::new(source) }
    }
}
