//! Steps that are recorded once and replayed.
//!
//! A step is some thousand kernels, most of them short on a fast GPU: putting them on its queue one by one can take longer
//! than running them. CUDA records what a step puts there, and replays all of it by one call. A recording holds for one
//! shape of batch and for all numbers that the host had put into it, so there is one for each length of captions and
//! each γ; learning rates are read on the device, where each step writes them.
//!
//! Recording needs a stream beside the default one, work of the same shapes that has run there before (libraries allocate
//! when they are first used), and nothing in the step that the host waits for. Where that fails, steps go on as they did
//! before, and the log says why.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastclip_torch_ext::{CudaGraph, TorchError, copy_async};
use tch::Tensor;

use crate::distributed::Communicator;
use crate::gradients::Stop;
use crate::objective::id_tensor;
use crate::schedule::Rates;
use crate::step::{Inputs, Launched, StepError, Trainer};

/// Steps that run before anything is recorded.
const WARM_UP: u64 = 3;

/// What a recording depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    images: Vec<i64>,
    tokens: Vec<i64>,
    gamma: Option<u64>,
}

/// The recorded steps of a run.
#[derive(Debug, Default)]
pub struct StepGraphs {
    recorded: HashMap<Key, Recorded>,
    /// Shapes that have run.
    seen: HashMap<Key, u64>,
    num_steps: u64,
    /// Whether recording has failed, and is not tried again.
    is_off: bool,
}

/// A step, and the memory that goes in and comes out.
#[derive(Debug)]
struct Recorded {
    graph: CudaGraph,
    inputs: [Tensor; 3],
    launched: Launched,
}

impl StepGraphs {
    /// Prepares for recording the steps of a trainer; says why it cannot be, if so.
    pub fn prepare(trainer: &mut Trainer, world_size: usize) -> Result<Self, &'static str> {
        let device = trainer.model.device();
        if !device.is_cuda() {
            return Err("only steps on a GPU can be recorded");
        }
        if world_size > 1 {
            return Err("steps with collectives are not recorded");
        }
        if !trainer.optimizer.keep_rates_on(device) {
            return Err("the optimizer is not one whose steps can be recorded (adamw, sgd)");
        }
        Ok(Self::default())
    }

    /// Returns how many recordings there are.
    pub fn len(&self) -> usize {
        self.recorded.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty()
    }

    /// Puts a step on the queue: replayed, recorded and replayed, or as it is.
    pub(crate) fn launch(
        &mut self,
        trainer: &mut Trainer,
        batch: &Inputs<'_>,
        rates: &Rates,
        stop: Option<Stop>,
        comm: &dyn Communicator,
    ) -> Result<Launched, StepError> {
        self.num_steps += 1;
        if self.is_off {
            return trainer.launch(batch, rates, stop, comm);
        }
        let key = Key {
            images: batch.images.size(),
            tokens: batch.tokens.size(),
            gamma: trainer.objective.gamma(batch.epoch).map(f64::to_bits),
        };
        // γ never returns to an earlier value.
        self.recorded.retain(|known, _| known.gamma == key.gamma);
        if !self.recorded.contains_key(&key) {
            let times = self.seen.entry(Key { gamma: None, ..key.clone() }).or_default();
            *times += 1;
            if *times < 2 || self.num_steps <= WARM_UP {
                return trainer.launch(batch, rates, stop, comm);
            }
            match self.record(trainer, batch, rates, comm) {
                Ok(recorded) => {
                    tracing::debug!("recorded a step of {:?} tokens", key.tokens);
                    self.recorded.insert(key.clone(), recorded);
                }
                Err(reason) => {
                    tracing::warn!("steps are not recorded, and go on one kernel after another: {reason}");
                    self.is_off = true;
                    self.recorded.clear();
                    return trainer.launch(batch, rates, stop, comm);
                }
            }
        }
        self.recorded[&key].replay(trainer, batch)
    }

    fn record(
        &self,
        trainer: &mut Trainer,
        batch: &Inputs<'_>,
        rates: &Rates,
        comm: &dyn Communicator,
    ) -> Result<Recorded, String> {
        let ids = batch.ids_on_device.as_ref().ok_or("the ids of the batch are not on the device")?;
        let inputs = [&batch.images, &batch.tokens, ids].map(Tensor::zeros_like);
        let [images, tokens, ids] = &inputs;
        let inside = Inputs {
            images: images.shallow_clone(),
            tokens: tokens.shallow_clone(),
            ids: batch.ids,
            ids_on_device: Some(ids.shallow_clone()),
            epoch: batch.epoch,
        };
        let pool = self.recorded.values().next().map(|recorded| &recorded.graph);
        // Operations that cannot be recorded fail as others do that libtorch refuses: by a panic.
        let record = || CudaGraph::record(pool, || trainer.launch(&inside, rates, None, comm));
        let (graph, launched) = match catch_unwind(AssertUnwindSafe(record)) {
            Ok(recorded) => recorded.map_err(|error| error.to_string())?,
            Err(panic) => return Err(words(&*panic)),
        };
        let launched = launched.map_err(|error| error.to_string())?;
        Ok(Recorded { graph, inputs, launched })
    }
}

impl Recorded {
    fn replay(&self, trainer: &Trainer, batch: &Inputs<'_>) -> Result<Launched, StepError> {
        let step = trainer.step;
        if let Some(table) = trainer.objective.estimators() {
            let refused = |source: crate::estimator::EstimatorError| StepError::Objective {
                step,
                source: source.into(),
            };
            table.check(batch.ids).map_err(refused)?;
        }
        let go = || -> Result<(), TorchError> {
            let [images, tokens, ids] = &self.inputs;
            copy_async(images, &batch.images)?;
            copy_async(tokens, &batch.tokens)?;
            match &batch.ids_on_device {
                Some(there) => copy_async(ids, there)?,
                None => copy_async(ids, &id_tensor(batch.ids))?,
            }
            self.graph.replay()
        };
        go().map_err(|source| StepError::Read { step, source })?;
        let Launched { numbers, communication } = &self.launched;
        Ok(Launched { numbers: numbers.shallow_clone(), communication: *communication })
    }
}

/// Returns what a panic said, its first line.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("an operation was refused");
    text.lines().next().unwrap_or_default().to_owned()
}
