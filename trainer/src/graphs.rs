//! Steps that are recorded once and replayed.
//!
//! A step is some thousand kernels, most of them short on a fast GPU: putting them on its queue one by one can take longer
//! than running them. CUDA records what a step puts there, and replays all of it by one call. A recording holds for one
//! shape of batch and for all numbers that the host had put into it, so there is one for each length of captions, and with
//! each epoch, on which γ depends, they are made anew; learning rates are read on the device, where each step writes them.
//!
//! Recording needs a stream beside the default one, work of the same shapes that has run there before (libraries allocate
//! when they are first used), and nothing in the step that the host waits for. Where that fails, steps go on as they did
//! before, and the log says why. Steps of several ranks are not recorded: what NCCL does inside of a recording could not be
//! watched for time-outs, nor ended by a failure of another rank.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastclip_torch_ext::{CudaGraph, TorchError, copy_async};
use tch::Tensor;

use crate::distributed::Communicator;
use crate::pending::Pending;
use crate::schedule::Rates;
use crate::step::{Enqueued, Inputs, Message, Placed, StepError, Trainer};

/// Steps that run before anything is recorded.
const WARM_UP: u64 = 3;

/// What a recording depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    shapes: Shapes,
    /// Where the objective looks at it.
    epoch: Option<u64>,
}

/// Those of images and tokens; all else follows.
type Shapes = [Vec<i64>; 2];

impl Placed {
    fn shapes(&self) -> Shapes {
        [self.images.size(), self.tokens.size()]
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let Self { images, tokens, ids, patches } = self;
        [images, tokens, ids].into_iter().chain(patches)
    }

    /// Returns tensors of the same shapes, in memory of their own.
    fn like(&self) -> Self {
        let Self { images, tokens, ids, patches } = self;
        Self {
            images: images.zeros_like(),
            tokens: tokens.zeros_like(),
            ids: ids.zeros_like(),
            patches: patches.as_ref().map(Tensor::zeros_like),
        }
    }
}

/// What steps with these inputs do: an order that does not depend on a GPU, which tests take the place of.
trait Recorder {
    /// A step that can be replayed.
    type Recording;

    /// Puts the step on the queue as it is.
    fn run(&mut self) -> Result<Enqueued, StepError>;
    /// Records the step without running it, in memory that may be shared with `other`; says why it cannot be, if so.
    fn record(&mut self, other: Option<&Self::Recording>) -> Result<Self::Recording, String>;
    /// Puts what was recorded on the queue.
    fn replay(&mut self, recording: &Self::Recording) -> Result<Enqueued, StepError>;
}

/// Which recordings there are, and when one is made.
#[derive(Debug)]
struct Recordings<R> {
    made: HashMap<Key, R>,
    /// Shapes that have run.
    seen: HashSet<Shapes>,
    num_steps: u64,
    /// Whether recording has failed, and is not tried again.
    is_off: bool,
}

impl<R> Default for Recordings<R> {
    fn default() -> Self {
        Self { made: HashMap::new(), seen: HashSet::new(), num_steps: 0, is_off: false }
    }
}

impl<R> Recordings<R> {
    /// Puts a step on the queue: replayed, recorded and replayed, or as it is.
    fn launch(
        &mut self,
        key: Key,
        recorder: &mut impl Recorder<Recording = R>,
    ) -> Result<Enqueued, StepError> {
        self.num_steps += 1;
        if self.is_off {
            return recorder.run();
        }
        // An epoch never comes back.
        self.made.retain(|known, _| known.epoch == key.epoch);
        if !self.made.contains_key(&key) {
            let is_known = !self.seen.insert(key.shapes.clone());
            if !is_known || self.num_steps <= WARM_UP {
                return recorder.run();
            }
            match recorder.record(self.made.values().next()) {
                Ok(recording) => {
                    tracing::debug!("recorded a step of shapes {:?}", key.shapes);
                    self.made.insert(key.clone(), recording);
                }
                Err(reason) => {
                    tracing::warn!("steps are not recorded, and go on one kernel after another: {reason}");
                    self.is_off = true;
                    self.made.clear();
                    return recorder.run();
                }
            }
        }
        recorder.replay(&self.made[&key])
    }
}

/// The recorded steps of a run.
#[derive(Debug, Default)]
pub struct StepGraphs(Recordings<Recorded>);

/// A step, and the memory that goes in and comes out.
#[derive(Debug)]
struct Recorded {
    graph: CudaGraph,
    inputs: Placed,
    enqueued: Enqueued,
}

impl StepGraphs {
    /// Returns what records steps if that `is_wanted` and can be; warns if it cannot.
    pub fn if_wanted(is_wanted: bool, trainer: &mut Trainer, num_ranks: usize) -> Option<Self> {
        let prepared = is_wanted.then(|| Self::prepare(trainer, num_ranks))?;
        prepared.inspect_err(|reason| tracing::warn!("`cuda_graphs` has no effect: {reason}")).ok()
    }

    /// Prepares for recording the steps of a trainer; says why it cannot be, if so.
    pub fn prepare(trainer: &mut Trainer, num_ranks: usize) -> Result<Self, &'static str> {
        let device = trainer.model.device();
        if !device.is_cuda() {
            return Err("only steps on a GPU can be recorded");
        }
        if num_ranks > 1 {
            return Err("steps of several ranks are not recorded");
        }
        if !trainer.optimizer.keep_rates_on(device) {
            return Err("the optimizer is not one whose steps can be recorded (adamw, sgd)");
        }
        Ok(Self::default())
    }

    /// Returns how many recordings there are.
    pub fn num_recorded(&self) -> usize {
        self.0.made.len()
    }

    /// Does what [`Trainer::launch`] does.
    ///
    /// # Errors
    /// Like that.
    pub fn launch(
        &mut self,
        trainer: &mut Trainer,
        batch: &Inputs<'_>,
        message: Message,
        comm: &dyn Communicator,
    ) -> Result<Pending, StepError> {
        trainer.launch_by(batch, message, comm, |trainer, placed, rates| {
            let epoch = trainer.objective.gamma(batch.epoch).map(|_| batch.epoch);
            let key = Key { shapes: placed.shapes(), epoch };
            self.0.launch(key, &mut Steps { trainer, batch, placed, rates, comm })
        })
    }
}

/// A step over one batch.
struct Steps<'a> {
    trainer: &'a mut Trainer,
    batch: &'a Inputs<'a>,
    placed: &'a Placed,
    rates: &'a Rates,
    comm: &'a dyn Communicator,
}

impl Steps<'_> {
    fn enqueue(&mut self, placed: &Placed) -> Result<Enqueued, StepError> {
        let Inputs { ids, epoch, .. } = *self.batch;
        // What the only rank has to say, nobody else need hear.
        self.trainer.enqueue(placed, ids, epoch, self.rates, Message::default(), self.comm)
    }
}

impl Recorder for Steps<'_> {
    type Recording = Recorded;

    fn run(&mut self) -> Result<Enqueued, StepError> {
        self.enqueue(self.placed)
    }

    fn record(&mut self, other: Option<&Recorded>) -> Result<Recorded, String> {
        let inputs = self.placed.like();
        // Operations that cannot be recorded fail as others do that libtorch refuses: by a panic.
        let record = || CudaGraph::record(other.map(|other| &other.graph), || self.enqueue(&inputs));
        let (graph, enqueued) = match catch_unwind(AssertUnwindSafe(record)) {
            Ok(recorded) => recorded.map_err(|error| error.to_string())?,
            Err(panic) => return Err(words(&*panic)),
        };
        let enqueued = enqueued.map_err(|error| error.to_string())?;
        Ok(Recorded { graph, inputs, enqueued })
    }

    fn replay(&mut self, recorded: &Recorded) -> Result<Enqueued, StepError> {
        let step = self.trainer.step;
        if let Some(table) = self.trainer.objective.estimators() {
            let refused = |source| StepError::Objective { step, source };
            table.check(self.batch.ids).map_err(|error| refused(error.into()))?;
        }
        let replay = || -> Result<(), TorchError> {
            for (to, from) in recorded.inputs.tensors().zip(self.placed.tensors()) {
                copy_async(to, from)?;
            }
            recorded.graph.replay()
        };
        replay().map_err(|source| StepError::Device { step, action: "replay", source })?;
        let Enqueued { numbers, communication } = &recorded.enqueued;
        Ok(Enqueued { numbers: numbers.shallow_clone(), communication: *communication })
    }
}

/// Returns what a panic said, its first line.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("an operation was refused");
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::CommCounters;

    /// What is asked of a recorder.
    #[derive(Debug, PartialEq)]
    enum Asked {
        Run,
        /// Whether memory could be shared.
        Record(bool),
        Replay(u32),
    }

    use Asked::{Record, Replay, Run};

    #[derive(Default)]
    struct Log {
        asked: Vec<Asked>,
        num_recorded: u32,
        fails: bool,
    }

    fn enqueued() -> Enqueued {
        Enqueued { numbers: Tensor::from(0f64), communication: CommCounters::default() }
    }

    impl Recorder for Log {
        type Recording = u32;

        fn run(&mut self) -> Result<Enqueued, StepError> {
            self.asked.push(Run);
            Ok(enqueued())
        }

        fn record(&mut self, other: Option<&u32>) -> Result<u32, String> {
            self.asked.push(Record(other.is_some()));
            self.num_recorded += 1;
            if self.fails { Err("no".to_owned()) } else { Ok(self.num_recorded) }
        }

        fn replay(&mut self, recording: &u32) -> Result<Enqueued, StepError> {
            self.asked.push(Replay(*recording));
            Ok(enqueued())
        }
    }

    /// What is asked of a recorder in steps of so many tokens.
    fn steps(recordings: &mut Recordings<u32>, log: &mut Log, epoch: u64, tokens: &[i64]) -> Vec<Asked> {
        for &tokens in tokens {
            let key = Key { shapes: [vec![8, 3, 32, 32], vec![8, tokens]], epoch: Some(epoch) };
            recordings.launch(key, log).unwrap();
        }
        std::mem::take(&mut log.asked)
    }

    #[test]
    fn a_step_is_recorded_when_its_shapes_have_run_and_made_anew_with_each_epoch() {
        let (mut recordings, mut log) = (Recordings::default(), Log::default());
        let asked = steps(&mut recordings, &mut log, 0, &[16, 16, 16, 16, 16, 32, 32, 16]);
        // Three to warm up; then 16 at once; then 32, which has not run.
        let expected =
            [Run, Run, Run, Record(false), Replay(1), Replay(1), Run, Record(true), Replay(2), Replay(1)];
        assert_eq!(asked, expected);
        let asked = steps(&mut recordings, &mut log, 1, &[32, 16, 32]);
        assert_eq!(asked, [Record(false), Replay(3), Record(true), Replay(4), Replay(3)]);
    }

    #[test]
    fn what_cannot_be_recorded_runs_as_it_is_and_is_not_tried_again() {
        let (mut recordings, mut log) = (Recordings::default(), Log { fails: true, ..Log::default() });
        let asked = steps(&mut recordings, &mut log, 0, &[16, 16, 16, 16, 16]);
        assert_eq!(asked, [Run, Run, Run, Record(false), Run, Run]);
    }

    #[test]
    fn a_panic_is_told_in_one_line() {
        let caught =
            |message: &'static str| catch_unwind(move || std::panic::panic_any(message)).unwrap_err();
        assert_eq!(words(&*caught("operation not permitted\nwhen capturing")), "operation not permitted");
        let other = catch_unwind(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(words(&*other), "an operation was refused");
    }
}
