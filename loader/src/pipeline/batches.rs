use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use fastclip_schemas::{Digest, Position, SampleId};
use fastclip_shards::Dataset;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::IndexCache;
use super::bad_sample_log::BadSampleLog;
use super::budget::ByteBudget;
use super::decoder::Decoder;
use super::dispatcher::Dispatcher;
use super::pending::{Filled, PendingBatch};
use super::reader::Reader;
use super::schedule::Schedule;
use super::threads::Threads;
use super::watch::{Watch, seconds};
use crate::batch::{Batch, Lent};
use crate::buffer::Pool;
use crate::plan::Plan;
use crate::sample::{Prepared, SamplePreparer, SampleSettings};
use crate::stats::Meters;
use crate::{BadSampleBudget, LoadError, Stage, StreamState, UnreadableShards};

/// Jobs that may wait for each decoder: 15 ms of work, enough that none runs dry while a busy machine keeps the dispatcher
/// from its turn. A job is a few pointers.
const JOBS_PER_THREAD: usize = 32;

/// How long a stream may stand still before it says so, and how often it repeats that.
const WARN_AFTER: Duration = Duration::from_secs(30);

/// What streams of a loader share.
#[derive(Debug, Clone)]
pub(crate) struct StreamSettings {
    pub(crate) dataset: Dataset,
    pub(crate) indexes: Arc<IndexCache>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) slots: Range<u64>,
    pub(crate) sample: SampleSettings,
    pub(crate) pool: Arc<Pool>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) bad_sample_log: Arc<BadSampleLog>,
    pub(crate) threads: NonZeroUsize,
    pub(crate) prefetch_batches: NonZeroUsize,
    pub(crate) requests_in_flight: NonZeroUsize,
    pub(crate) max_bytes_in_flight: u64,
    pub(crate) budget: BadSampleBudget,
    pub(crate) unreadable_shards: UnreadableShards,
    pub(crate) stall_timeout: Duration,
    pub(crate) report_every: Option<Duration>,
}

/// The batches of a stream, in order.
///
/// Iterating blocks until the next batch is complete. After an error there are no further batches.
///
/// # Cancellation
/// Dropping it ends all work under way but the images that are being decoded, waits for its threads, and returns its memory.
/// Requests that a store is just answering are given up; reads of local files are waited for. After [`LoadError::Stalled`]
/// nothing is waited for: what hangs is left behind, with its thread and memory.
#[derive(Debug)]
pub struct Batches {
    settings: StreamSettings,
    /// Nothing once the stream has ended.
    running: Option<Running>,
    order: Digest,
    until: Position,
    next: Position,
    ledger: Ledger,
    /// When the caller got the last batch.
    handed_over: Option<Instant>,
    /// When statistics were last logged.
    reported: Instant,
}

#[derive(Debug)]
struct Running {
    // Dropped in this order: all threads are told to stop, the channel of batches closes, and then they can be joined.
    stop: DropGuard,
    batches: Receiver<Result<PendingBatch, LoadError>>,
    threads: Threads,
    watch: Arc<Watch>,
}

impl Running {
    /// Waits for what a channel gives, as long as anything moves. Nothing once the channel is closed.
    fn receive<T>(&self, channel: &Receiver<T>, settings: &StreamSettings) -> Result<Option<T>, LoadError> {
        let bound = settings.stall_timeout;
        let mut progress = self.watch.progress();
        let mut still_since = Instant::now();
        loop {
            match channel.recv_timeout(WARN_AFTER.min(bound)) {
                Ok(item) => return Ok(Some(item)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let still_for = still_since.elapsed();
            if self.watch.progress() != progress {
                (progress, still_since) = (self.watch.progress(), Instant::now());
                continue;
            }
            let waits = self.watch.describe(settings.dataset.manifest());
            if still_for >= bound {
                return Err(LoadError::Stalled { still_for, waits });
            }
            tracing::warn!("no batch for {}, and nothing moves: {waits}", seconds(still_for));
        }
    }

    /// Tells all threads to stop and does not wait for them: one of them does not listen.
    fn abandon(self) {
        let Self { stop, batches, threads, .. } = self;
        drop(stop);
        drop(batches);
        threads.abandon();
    }

    /// Stops all threads and returns the panic of one of them, if any.
    fn shut_down(self) -> Option<LoadError> {
        let Self { stop, batches, mut threads, .. } = self;
        drop(stop);
        drop(batches);
        threads.join()
    }
}

/// What a stream has lost.
#[derive(Debug, Default)]
struct Ledger {
    num_samples: u64,
    num_bad: u64,
}

impl Batches {
    /// Starts the threads of a stream. Both positions lie within their epochs.
    pub(crate) fn start(
        settings: StreamSettings,
        order: Digest,
        from: Position,
        until: Position,
    ) -> Result<Self, LoadError> {
        let running = if from < until { Some(settings.start(from, until)?) } else { None };
        Ok(Self {
            settings,
            running,
            order,
            until,
            next: from,
            ledger: Ledger::default(),
            handed_over: None,
            reported: Instant::now(),
        })
    }

    /// Where it stands: what [`Loader::resume`](crate::Loader::resume) begins with gives the next batch, and all after it.
    pub fn state(&self) -> StreamState {
        StreamState { next: self.next, order: self.order }
    }

    fn receive(&mut self) -> Option<Result<Batch, LoadError>> {
        let running = self.running.as_ref()?;
        let result = match running.receive(&running.batches, &self.settings) {
            Ok(Some(Ok(pending))) => self.complete(pending),
            Ok(Some(Err(error))) | Err(error) => Err(Some(error)),
            Ok(None) => Err(None),
        };
        match result {
            Ok(batch) => {
                let num_steps = self.settings.plan.layout().num_steps();
                self.next = Position { step: self.next.step + 1, ..self.next };
                if self.next.step == num_steps {
                    self.next = Position::start_of(self.next.epoch + 1);
                }
                Some(Ok(batch))
            }
            Err(Some(stalled @ LoadError::Stalled { .. })) => {
                if let Some(running) = self.running.take() {
                    running.abandon();
                }
                Some(Err(stalled))
            }
            Err(error) => {
                let is_early = self.next < self.until;
                let panic = self.running.take().and_then(Running::shut_down);
                match error.or(panic) {
                    Some(error) => Some(Err(error)),
                    None => {
                        assert!(!is_early, "threads only end early by failure or panic");
                        None
                    }
                }
            }
        }
    }

    /// Waits until all slots are filled. Without a cause, the cause is still to come.
    fn complete(&mut self, pending: PendingBatch) -> Result<Batch, Option<LoadError>> {
        let PendingBatch { position, num_slots, frames, outcomes } = pending;
        let mut filled: Vec<Option<Filled>> = (0..num_slots).map(|_| None).collect();
        let mut failure: Option<(usize, LoadError)> = None;
        let mut num_open = num_slots;
        // Ends when the last slot is gone.
        let running = self.running.as_ref().ok_or(None)?;
        while let Some(outcome) = running.receive(&outcomes, &self.settings).map_err(Some)? {
            num_open -= 1;
            match outcome.result {
                Ok(content) => filled[outcome.slot] = Some(content),
                // The first by slot, not by time.
                Err(error) if failure.as_ref().is_none_or(|(slot, _)| outcome.slot < *slot) => {
                    failure = Some((outcome.slot, error));
                }
                Err(_) => {}
            }
        }
        if let Some((_, error)) = failure {
            return Err(Some(error));
        }
        if num_open > 0 {
            return Err(Some(self.cause_of_missing_slots()?));
        }
        let frames = Lent::new(Arc::clone(&self.settings.pool), frames.join());
        let samples = self.settle(filled).map_err(Some)?;
        Ok(self.assemble(position, frames, samples))
    }

    /// Slots vanish when the dispatcher stops in the middle of a batch, which it explains next, or by a panic.
    fn cause_of_missing_slots(&self) -> Result<LoadError, Option<LoadError>> {
        let running = self.running.as_ref().ok_or(None)?;
        match running.receive(&running.batches, &self.settings).map_err(Some)? {
            Some(Err(error)) => Ok(error),
            Some(Ok(_)) | None => Err(None),
        }
    }

    /// Counts bad samples in the order of slots, and judges the budget.
    fn settle(&mut self, filled: Vec<Option<Filled>>) -> Result<Vec<Option<Prepared>>, LoadError> {
        let meters = &self.settings.meters;
        let budget = self.settings.budget;
        let epoch_samples = self.settings.plan.layout().delivered_in(&self.settings.slots);
        let mut samples = Vec::with_capacity(filled.len());
        for content in filled.into_iter().flatten() {
            self.ledger.num_samples += 1;
            if let Some(bad) = content.bad {
                meters.count_bad(bad.reason);
                self.settings.bad_sample_log.record(&bad);
                self.ledger.num_bad += 1;
                let Ledger { num_samples, num_bad } = self.ledger;
                if budget.is_exceeded(num_bad, num_samples, epoch_samples) {
                    let (max_fraction, last) = (budget.max_fraction, Box::new(bad));
                    return Err(LoadError::BadSamples { num_bad, num_samples, max_fraction, last });
                }
            }
            samples.push(content.sample);
        }
        Ok(samples)
    }

    /// Logs what all streams have done, when it is time for that.
    fn report(&mut self, now: Instant) {
        let Some(interval) = self.settings.report_every else { return };
        if now - self.reported >= interval {
            self.reported = now;
            let stats = self.settings.meters.read(self.settings.pool.num_lent());
            tracing::info!(samples = stats.num_samples, bottleneck = %stats.bottleneck(), "{stats}");
        }
    }

    fn assemble(&self, position: Position, frames: Lent, samples: Vec<Option<Prepared>>) -> Batch {
        let image_bytes = self.settings.sample.num_bytes();
        let context_length = self.settings.sample.context_length;
        let num_samples = samples.len();
        let mut batch = Batch {
            position,
            image_bytes,
            context_length,
            tokens: Vec::with_capacity(num_samples * context_length),
            lengths: Vec::with_capacity(num_samples),
            sample_ids: Vec::<SampleId>::with_capacity(num_samples),
            keys: Vec::with_capacity(num_samples),
            classes: Vec::with_capacity(num_samples),
            members: Vec::new(),
            images: frames,
        };
        for (slot, sample) in samples.into_iter().enumerate() {
            let Some(sample) = sample else { continue };
            let place = batch.sample_ids.len();
            if place < slot {
                // Close the gap that a bad sample has left.
                let start = slot * image_bytes;
                let images = batch.images.frames_mut().bytes_mut();
                images.copy_within(start..start + image_bytes, place * image_bytes);
            }
            batch.tokens.extend(sample.tokens);
            batch.lengths.push(sample.length);
            batch.sample_ids.push(sample.id);
            batch.keys.push(sample.key);
            batch.classes.push(sample.class);
            batch.members.extend(sample.members);
        }
        let meters = &self.settings.meters;
        meters.deliver(batch.len() as u64);
        batch
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        if let Some(handed_over) = self.handed_over.take() {
            self.settings.meters.caller.add(start - handed_over);
        }
        let result = self.receive()?;
        let end = Instant::now();
        self.settings.meters.batch_wait.add(end - start);
        self.handed_over = Some(end);
        self.report(end);
        Some(result)
    }
}

impl StreamSettings {
    fn start(&self, from: Position, until: Position) -> Result<Running, LoadError> {
        // Before the channels, and thus dropped after them: when a later thread cannot be started, the earlier ones
        // find their channels closed before they are joined.
        let mut threads = Threads::default();
        let watch = Arc::new(Watch::default());
        let stop = CancellationToken::new();
        let (run_sender, runs) = mpsc::unbounded_channel();
        let (job_sender, jobs) = bounded(self.threads.get() * JOBS_PER_THREAD);
        let (batch_sender, batches) = bounded(self.prefetch_batches.get());

        for _ in 0..self.threads.get() {
            let decoder = Decoder {
                jobs: jobs.clone(),
                preparer: SamplePreparer::new(self.sample.clone(), Arc::clone(&self.meters))?,
                tail: self.plan.layout().tail(),
                stop: stop.clone(),
                meters: Arc::clone(&self.meters),
                watch: Arc::clone(&watch),
            };
            threads.spawn(Stage::Decode, move || decoder.run())?;
        }

        let schedule = || Schedule::new(Arc::clone(&self.plan), self.slots.clone(), from, until);
        let dispatcher = Dispatcher {
            pool: Arc::clone(&self.pool),
            runs,
            jobs: job_sender,
            batches: batch_sender,
            stop: stop.clone(),
            meters: Arc::clone(&self.meters),
            watch: Arc::clone(&watch),
        };
        let dispatching = schedule();
        threads.spawn(Stage::Dispatch, move || dispatcher.run(dispatching))?;

        // One thread drives all requests, which is plenty for waiting; file systems bring threads of their own.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("fastclip-files")
            .build()
            .map_err(|source| LoadError::Start { stage: Stage::Read, source })?;
        let reader = Reader {
            dataset: self.dataset.clone(),
            indexes: Arc::clone(&self.indexes),
            budget: ByteBudget::new(self.max_bytes_in_flight, Arc::clone(&self.meters)),
            requests_in_flight: self.requests_in_flight.get(),
            window_samples: self.plan.layout().window_samples(),
            unreadable_shards: self.unreadable_shards,
            watch: Arc::clone(&watch),
            meters: Arc::clone(&self.meters),
        };
        let (reading, stopped) = (schedule(), stop.clone());
        threads.spawn(Stage::Read, move || runtime.block_on(reader.run(reading, run_sender, stopped)))?;
        Ok(Running { stop: stop.drop_guard(), batches, threads, watch })
    }
}
