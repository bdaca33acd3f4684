use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use fastclip_schemas::{Position, SampleId};
use fastclip_shards::Dataset;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

use super::IndexCache;
use super::budget::ByteBudget;
use super::decoder::Decoder;
use super::dispatcher::Dispatcher;
use super::pending::{Filled, PendingBatch};
use super::reader::Reader;
use super::schedule::Schedule;
use super::threads::Threads;
use crate::batch::{Batch, Lent};
use crate::buffer::Pool;
use crate::plan::Plan;
use crate::sample::{Prepared, SamplePreparer, SampleSettings};
use crate::stats::Meters;
use crate::{BadReason, BadSample, BadSampleBudget, LoadError, Stage};

/// Jobs that may wait for each decoder: 15 ms of work, enough that none runs dry while a busy machine keeps the dispatcher
/// from its turn. A job is a few pointers.
const JOBS_PER_THREAD: usize = 32;

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
    pub(crate) threads: NonZeroUsize,
    pub(crate) prefetch_batches: NonZeroUsize,
    pub(crate) requests_in_flight: NonZeroUsize,
    pub(crate) max_bytes_in_flight: u64,
    pub(crate) budget: BadSampleBudget,
}

/// The batches of a stream, in order.
///
/// Iterating blocks until the next batch is complete. After an error there are no further batches.
///
/// # Cancellation
/// Dropping it ends all work under way, waits for its threads, and returns its memory. Requests that a store is just
/// answering are given up; reads of local files are waited for.
#[derive(Debug)]
pub struct Batches {
    settings: StreamSettings,
    /// Nothing once the stream has ended.
    running: Option<Running>,
    until: Position,
    next: Position,
    ledger: Ledger,
    /// When the caller got the last batch.
    handed_over: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    // Dropped in this order: the reader stops, the channel of batches closes, and then all threads can be joined.
    _stop: oneshot::Sender<()>,
    batches: Receiver<Result<PendingBatch, LoadError>>,
    threads: Threads,
}

impl Running {
    /// Stops all threads and returns the panic of one of them, if any.
    fn shut_down(self) -> Option<LoadError> {
        let Self { _stop: stop, batches, mut threads } = self;
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
    /// Reasons and shards that were logged: a broken shard would fill the log otherwise.
    logged: HashSet<(BadReason, String)>,
}

impl Batches {
    /// Starts the threads of a stream. Both positions lie within their epochs.
    pub(crate) fn start(
        settings: StreamSettings,
        from: Position,
        until: Position,
    ) -> Result<Self, LoadError> {
        let running = if from < until { Some(settings.start(from, until)?) } else { None };
        Ok(Self { settings, running, until, next: from, ledger: Ledger::default(), handed_over: None })
    }

    fn receive(&mut self) -> Option<Result<Batch, LoadError>> {
        let running = self.running.as_ref()?;
        let result = match running.batches.recv() {
            Ok(Ok(pending)) => self.complete(pending),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
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
        for outcome in outcomes {
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
        match running.batches.recv() {
            Ok(Err(error)) => Ok(error),
            Ok(Ok(_)) | Err(_) => Err(None),
        }
    }

    /// Counts bad samples in the order of slots, and judges the budget.
    fn settle(&mut self, filled: Vec<Option<Filled>>) -> Result<Vec<Option<Prepared>>, LoadError> {
        let meters = &self.settings.meters;
        let budget = self.settings.budget;
        let layout = self.settings.plan.layout();
        let epoch_samples = layout.num_steps() * (self.settings.slots.end - self.settings.slots.start);
        let mut samples = Vec::with_capacity(filled.len());
        for content in filled.into_iter().flatten() {
            self.ledger.num_samples += 1;
            if let Some(bad) = content.bad {
                meters.count_bad(bad.reason);
                self.ledger.record(&bad);
                let Ledger { num_samples, num_bad, .. } = self.ledger;
                if budget.is_exceeded(num_bad, num_samples, epoch_samples) {
                    let (max_fraction, last) = (budget.max_fraction, Box::new(bad));
                    return Err(LoadError::BadSamples { num_bad, num_samples, max_fraction, last });
                }
            }
            samples.push(content.sample);
        }
        Ok(samples)
    }

    fn assemble(&self, position: Position, frames: Lent, samples: Vec<Option<Prepared>>) -> Batch {
        let SampleSettings { transform, context_length, output, .. } = self.settings.sample;
        let image_bytes = transform.image_bytes() * output.values.num_bytes();
        let num_samples = samples.len();
        let mut batch = Batch {
            position,
            image_bytes,
            context_length,
            tokens: Vec::with_capacity(num_samples * context_length),
            lengths: Vec::with_capacity(num_samples),
            sample_ids: Vec::<SampleId>::with_capacity(num_samples),
            classes: Vec::with_capacity(num_samples),
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
            batch.classes.push(sample.class);
        }
        let meters = &self.settings.meters;
        meters.num_batches.fetch_add(1, Ordering::Relaxed);
        meters.num_samples.fetch_add(batch.len() as u64, Ordering::Relaxed);
        batch
    }
}

impl Ledger {
    fn record(&mut self, bad: &BadSample) {
        self.num_bad += 1;
        if self.logged.insert((bad.reason, bad.shard.clone())) {
            tracing::warn!("bad {bad}; further ones of this kind in this shard are counted only");
        }
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
        Some(result)
    }
}

impl StreamSettings {
    fn start(&self, from: Position, until: Position) -> Result<Running, LoadError> {
        // Before the channels, and thus dropped after them: when a later thread cannot be started, the earlier ones
        // find their channels closed before they are joined.
        let mut threads = Threads::default();
        let (stop, stopped) = oneshot::channel();
        let (run_sender, runs) = mpsc::unbounded_channel();
        let (job_sender, jobs) = bounded(self.threads.get() * JOBS_PER_THREAD);
        let (batch_sender, batches) = bounded(self.prefetch_batches.get());

        for _ in 0..self.threads.get() {
            let decoder = Decoder {
                jobs: jobs.clone(),
                preparer: SamplePreparer::new(self.sample.clone(), Arc::clone(&self.meters))?,
                tail: self.plan.layout().tail(),
                meters: Arc::clone(&self.meters),
            };
            threads.spawn(Stage::Decode, move || decoder.run())?;
        }

        let schedule = || Schedule::new(Arc::clone(&self.plan), self.slots.clone(), from, until);
        let dispatcher = Dispatcher {
            pool: Arc::clone(&self.pool),
            runs,
            jobs: job_sender,
            batches: batch_sender,
            meters: Arc::clone(&self.meters),
        };
        let dispatching = schedule();
        threads.spawn(Stage::Dispatch, move || dispatcher.run(dispatching))?;

        // One thread drives all requests, which is plenty for waiting; file systems bring threads of their own.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| LoadError::Start { stage: Stage::Read, source })?;
        let reader = Reader {
            dataset: self.dataset.clone(),
            indexes: Arc::clone(&self.indexes),
            budget: ByteBudget::new(self.max_bytes_in_flight, Arc::clone(&self.meters)),
            requests_in_flight: self.requests_in_flight.get(),
            window_samples: self.plan.layout().window_samples(),
            meters: Arc::clone(&self.meters),
        };
        let reading = schedule();
        threads.spawn(Stage::Read, move || runtime.block_on(reader.run(reading, run_sender, stopped)))?;
        Ok(Running { _stop: stop, batches, threads })
    }
}
