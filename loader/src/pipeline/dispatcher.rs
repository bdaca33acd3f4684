use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pending::{OpenSlot, PendingBatch};
use super::reader::LoadedRun;
use super::schedule::{Schedule, Use};
use super::watch::{Awaited, Watch};
use crate::LoadError;
use crate::buffer::Pool;
use crate::stats::Meters;

/// A sample to be decoded into a slot.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) slot: OpenSlot,
    pub(super) run: Arc<LoadedRun>,
    pub(super) sample: u32,
}

/// Hands out samples in the order of the schedule.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) pool: Arc<Pool>,
    pub(super) runs: mpsc::UnboundedReceiver<Result<LoadedRun, LoadError>>,
    pub(super) jobs: Sender<Job>,
    pub(super) batches: Sender<Result<PendingBatch, LoadError>>,
    pub(super) stop: CancellationToken,
    pub(super) meters: Arc<Meters>,
    pub(super) watch: Arc<Watch>,
}

/// The stream is over, and nobody is left to be told why.
struct Stopped;

/// A run that is still needed.
struct Held {
    run: Arc<LoadedRun>,
    uses_left: u32,
}

/// Runs that are still needed, by their number.
#[derive(Default)]
struct HeldRuns {
    runs: HashMap<u64, Held>,
    next: u64,
}

impl Dispatcher {
    /// Works until the end of the schedule, the first failure of the reader, or until the stream is dropped.
    pub(super) fn run(mut self, schedule: Schedule) {
        let mut held = HeldRuns::default();
        for step in schedule {
            let (pending, slots) = match PendingBatch::open(&self.pool, step.position, step.uses.len()) {
                Ok(opened) => opened,
                Err(error) => {
                    let _ = self.batches.send(Err(error));
                    return;
                }
            };
            // Delivered before it is filled: the capacity of this channel is what bounds the batches under way.
            if self.batches.send(Ok(pending)).is_err() {
                return;
            }
            for (slot, used) in slots.into_iter().zip(step.uses) {
                if self.dispatch(&mut held, slot, used).is_err() {
                    return;
                }
            }
        }
    }

    fn dispatch(&mut self, held: &mut HeldRuns, slot: OpenSlot, used: Use) -> Result<(), Stopped> {
        if self.stop.is_cancelled() {
            return Err(Stopped);
        }
        while held.next <= used.run {
            let start = Instant::now();
            let waiting = self.watch.wait(Awaited::Run { number: held.next });
            let run = self.runs.blocking_recv().ok_or(Stopped)?;
            drop(waiting);
            let run = match run {
                Ok(run) => run,
                Err(error) => {
                    let _ = self.batches.send(Err(error));
                    return Err(Stopped);
                }
            };
            self.meters.run_wait.add(start.elapsed());
            held.receive(run);
        }
        let run = held.take(used.run);
        self.meters.decoder_wait.time(|| self.send(Job { slot, run, sample: used.sample }))
    }
}

impl Dispatcher {
    fn send(&self, job: Job) -> Result<(), Stopped> {
        match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job)) => {
                let _waiting = self.watch.wait(Awaited::Decoder);
                self.jobs.send(job).map_err(|_| Stopped)
            }
            Err(TrySendError::Disconnected(_)) => Err(Stopped),
        }
    }
}

impl HeldRuns {
    fn receive(&mut self, run: LoadedRun) {
        let uses_left = run.num_uses;
        self.runs.insert(self.next, Held { run: Arc::new(run), uses_left });
        self.next += 1;
    }

    /// The run for one of its uses; with the last one it is let go.
    fn take(&mut self, number: u64) -> Arc<LoadedRun> {
        let held = self.runs.get_mut(&number).expect("a run is held until its last use");
        held.uses_left -= 1;
        if held.uses_left > 0 {
            return Arc::clone(&held.run);
        }
        self.runs.remove(&number).expect("it was there just now").run
    }
}
