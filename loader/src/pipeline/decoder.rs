use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use tokio_util::sync::CancellationToken;

use super::dispatcher::Job;
use super::pending::Filled;
use super::watch::{Awaited, Watch};
use crate::sample::{Fault, SamplePreparer};
use crate::stats::Meters;
use crate::{BadSample, LoadError, Tail};

/// Fills slots.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) jobs: Receiver<Job>,
    pub(super) preparer: SamplePreparer,
    pub(super) tail: Tail,
    pub(super) stop: CancellationToken,
    pub(super) meters: Arc<Meters>,
    pub(super) watch: Arc<Watch>,
}

impl Decoder {
    /// Works until no job is left and none can come. Those that are left when the stream is dropped are not done.
    pub(super) fn run(mut self) {
        let mut start = Instant::now();
        while let Ok(mut job) = self.jobs.recv() {
            if self.stop.is_cancelled() {
                continue;
            }
            self.meters.job_wait.add(start.elapsed());
            let watch = Arc::clone(&self.watch);
            let waiting = watch.wait(Awaited::Sample { shard: job.run.shard, sample: job.sample });
            let result = self.fill(&mut job);
            drop(waiting);
            let Job { slot, run, .. } = job;
            // Before the outcome: who has seen all outcomes of a stream finds all its bytes given back.
            drop(run);
            slot.close(result);
            start = Instant::now();
        }
    }

    fn fill(&mut self, job: &mut Job) -> Result<Filled, LoadError> {
        let pass = job.run.pass;
        let run = match &job.run.samples {
            Ok(run) => run,
            Err(lost) => {
                return Ok(Filled { sample: None, bad: Some(lost.sample(job.sample, job.slot.position)) });
            }
        };
        let pixels = job.slot.slot.bytes_mut();
        let fault = match self.preparer.prepare(run, job.sample, pass, pixels) {
            Ok(sample) => return Ok(Filled { sample: Some(sample), bad: None }),
            Err(fault) => fault,
        };
        let Fault { key, reason, detail } = fault;
        let shard = run.shard_name().to_owned();
        let position = job.slot.position;
        let bad = BadSample { shard: shard.clone(), sample: job.sample, key, position, reason, detail };
        if self.tail == Tail::Keep {
            // Every sample exactly once: a neighbour in its place would come twice.
            return Ok(Filled { sample: None, bad: Some(bad) });
        }
        // The batch must be full. The next good sample of the run depends on nothing but the data, and is at hand.
        let samples = run.samples();
        let substitutes = (job.sample + 1..samples.end).chain(samples.start..job.sample);
        // Cut short when the stream is dropped: nobody gets to see what becomes of the slot then.
        for substitute in substitutes.take_while(|_| !self.stop.is_cancelled()) {
            if let Ok(sample) = self.preparer.prepare(run, substitute, pass, pixels) {
                return Ok(Filled { sample: Some(sample), bad: Some(bad) });
            }
        }
        Err(LoadError::NoGoodSample { shard, samples, first: Box::new(bad) })
    }
}
