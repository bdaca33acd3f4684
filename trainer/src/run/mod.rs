//! A run from its first step to its last, over any number of sessions.

mod data;
mod due;
mod error;
mod feed;
mod recorder;
mod start;
mod tolerance;

use std::num::NonZeroU64;

use fastclip_loader::Batch;
use fastclip_schemas::{Position, RunSummary};
use fastclip_shards::Dataset;
use fastclip_torch_ext::Stream;
use tch::Device;

pub use data::{open as open_dataset, training_loader};
pub use error::RunError;

use self::data::TrainingData;
use self::due::Due;
use self::recorder::{Recorder, Stopwatch};
pub(crate) use self::start::{Extent, build, set_up_libtorch};
use self::start::{Start, agree, start};
use self::tolerance::{NamedSample, Tolerance};
use crate::checkpoint::{CheckpointError, Saver};
use crate::config::{EvaluationConfig, RunConfig};
use crate::distributed::Communicator;
use crate::eval::{self, EncodeOptions, EvalOptions, EvalReport};
use crate::gradients::Stop;
use crate::graphs::StepGraphs;
use crate::metrics::Picture;
use crate::model::Clip;
use crate::pending::InFlight;
use crate::progress::Progress;
use crate::report::pictures;
use crate::step::{Inputs, Message, StepError};

/// Result of a finished run, inside its folder.
pub const SUMMARY_FILE: &str = "summary.json";

/// Resolved settings of a run, inside its folder.
pub const SETTINGS_FILE: &str = "config.toml";

/// Log of a run, inside its folder; written by the binary.
pub const LOG_FILE: &str = "out.log";

/// Images whose predictions are kept for the report.
const NUM_PREDICTIONS: usize = 24;

/// Images that TensorBoard shows beside what the model says about them.
const NUM_PICTURES: usize = 8;

/// What a run finds around itself.
pub struct Surroundings<'a> {
    /// The other ranks.
    pub comm: &'a dyn Communicator,
    /// Where this rank computes.
    pub device: Device,
    /// Where bars are drawn; hidden on all ranks but the first.
    pub progress: Progress,
    /// Asks whether this process was told to stop.
    pub stop: &'a dyn Fn() -> Option<Stop>,
    /// Whether a launcher has started this run before: then what an earlier attempt saved comes before what `resume` says.
    pub is_restart: bool,
    /// The command that started the run, as a person would type it.
    pub command: String,
    /// Program and version, with commit and libtorch.
    pub version: String,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("device", &self.device).finish_non_exhaustive()
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The run is complete.
    Finished {
        /// Its result, if it has a held-out dataset.
        summary: Option<RunSummary>,
    },
    /// The run had been complete before; nothing was done.
    AlreadyFinished,
    /// The session was to end before the run did, and all ranks stopped, after a checkpoint.
    Stopped {
        /// What asked for it; nothing if it was the number of steps.
        stop: Option<Stop>,
        /// Steps taken.
        steps: u64,
        /// Where the run continues from.
        checkpoint: String,
        /// Whether the same words, given again by a person, go back behind it.
        goes_back: bool,
    },
}

/// Trains until the run is complete or somebody asks to stop. Collective: all ranks call it with the same settings.
///
/// Sets the number of threads that libtorch uses in this process.
///
/// # Errors
/// When anything fails; a rank whose own failure it is tells the others, whose errors then name it.
pub fn run(config: &RunConfig, around: &Surroundings<'_>) -> Result<Outcome, RunError> {
    // A stream of its own: work on the default one waits for that of all others, copies of batches among it,
    // and cannot be recorded.
    let stream = Stream::beside(around.device)?;
    stream.within(|| train(config, around))?.inspect_err(|error| error.announce_to(around.comm))
}

fn train(config: &RunConfig, around: &Surroundings<'_>) -> Result<Outcome, RunError> {
    let comm = around.comm;
    let data = TrainingData::open(&config.data, comm, around.device)?;
    let held_out = config.evaluation.as_ref().map(HeldOut::open).transpose()?;
    let Start { mut trainer, mut state, saver, goes_back } = start(config, &data, around)?;
    let Some(mut saver) = saver else { return Ok(Outcome::AlreadyFinished) };
    let end = Position::start_of(config.rates.epochs);
    let due = Due::new(config, data.loader.steps_per_epoch(), end);
    let mut recorder = Recorder::open(config, &data, &state, around)?;
    let mut watch = Stopwatch::start(&state);
    let mut evaluated = None;
    let first = state.steps;
    if let Some(held_out) = held_out.as_ref().filter(|_| due.evaluation(&state))
        && saver.last_complete() == Some(first)
        && agree(i64::from(recorder.lacks_evaluation(&state)?), around)? != 0
    {
        // The session that wrote the checkpoint died before it had evaluated.
        let found = evaluate(&trainer.model, held_out, config, around)?;
        recorder.evaluation(&state, &found);
        evaluated = Some(found);
    }
    let mut graphs = StepGraphs::if_wanted(config.settings.cuda_graphs, &mut trainer, comm.world_size());
    let mut tolerance = Tolerance::new(config.settings.on_non_finite);
    let (mut feed, mut in_flight) = (data.feed().map_err(RunError::Feed)?, InFlight::default());
    // A GPU goes on with a step that nobody wants to know about yet while the next one is prepared.
    let knows_at_once = !around.device.is_cuda();

    let mut batches = data.loader.stream(state.position, end)?;
    while let Some(batch) = watch.data(|| batches.next()) {
        let batch = batch?;
        let message = Message { stop: (around.stop)(), part: saver.part() };
        let samples = named_samples(&batch);
        let position = batch.position();
        let launch = |inputs: &Inputs<'_>| match &mut graphs {
            Some(graphs) => graphs.launch(&mut trainer, inputs, message, comm),
            None => trainer.launch(inputs, message, comm),
        };
        let pending = watch.step(|| feed.step(batch, launch)).map_err(RunError::Feed)??;
        state.steps += 1;
        state.samples_seen += data.global_batch;
        state.position = data.after(position);
        let is_wanted = knows_at_once || due.report(&state);
        let arrived = watch.wait(|| in_flight.push(pending, samples, is_wanted));
        state.seconds = watch.seconds();

        let (mut report, mut stop) = (None, None);
        for (found, samples) in arrived {
            let judged = match tolerance.judge(found, &samples) {
                Err(error @ StepError::NotFinite { .. }) => {
                    // All ranks end here. What is being written may be what a person will go back to.
                    saver.finish(comm)?;
                    return Err(error.into());
                }
                judged => judged?,
            };
            saver.settle(&judged.parts, comm)?;
            stop = stop.or(judged.stop);
            report = judged.report;
        }
        let logged = report.filter(|_| due.log(&state));
        recorder.step(&state, logged.as_ref(), &mut watch, saver.figures());
        if let (Some(_), Some(estimators)) = (logged, trainer.objective.estimators()) {
            recorder.estimates(&state, estimators, comm)?;
        }
        let evaluation = held_out.as_ref().filter(|_| due.evaluation(&state));
        let stops = (stop.is_some() || due.stop(&state)) && state.position < end;
        let saves = due.checkpoint(&state) || stops;
        if saves {
            saver.save(&trainer, &state, recorder.journal(), comm)?;
        }
        if let Some(held_out) = evaluation {
            // An evaluation that fails ends the session, and what was trained must not be lost with it.
            saver.finish(comm)?;
            let found = evaluate(&trainer.model, held_out, config, around)?;
            recorder.evaluation(&state, &found);
            evaluated = Some(found);
        }
        if stops {
            let checkpoint = last_checkpoint(&mut saver, state.steps, comm)?;
            return Ok(Outcome::Stopped { stop, steps: state.steps, checkpoint, goes_back });
        }
        watch.resume();
    }
    let stats = data.loader.stats();
    if stats.num_bad() > 0 {
        tracing::warn!("{} samples of this rank could not be used: {stats}", stats.num_bad());
    }
    if state.steps == first && saver.last_complete() != Some(first) {
        // Another run's last checkpoint: this one must have its own.
        saver.save(&trainer, &state, recorder.journal(), comm)?;
    }
    last_checkpoint(&mut saver, state.steps, comm)?;
    // A session that died between the last evaluation and the summary left the result to this one.
    let found = match (evaluated, &held_out) {
        (None, Some(held_out)) => Some(evaluate(&trainer.model, held_out, config, around)?.report),
        (found, _) => found.map(|found| found.report),
    };
    Ok(Outcome::Finished { summary: recorder.finish(&state, found)? })
}

/// Waits for the checkpoint of the last step and returns where it is. Without it a session has not done its work.
fn last_checkpoint(saver: &mut Saver, steps: u64, comm: &dyn Communicator) -> Result<String, RunError> {
    let last = saver.finish(comm)?;
    if last != Some(steps) {
        return Err(CheckpointError::Last { steps, last }.into());
    }
    Ok(saver.location_of(steps))
}

/// Ids and keys of a batch's samples.
fn named_samples(batch: &Batch) -> Vec<NamedSample> {
    batch.sample_ids().iter().copied().zip(batch.keys().iter().cloned()).collect()
}

/// An evaluation and how long it took.
#[derive(Debug)]
struct Evaluated {
    report: EvalReport,
    /// The first images of its predictions.
    pictures: Vec<Picture>,
    seconds: f64,
}

/// The dataset that a run is evaluated on. Opened when the run starts, not when the first evaluation is due.
#[derive(Debug)]
struct HeldOut {
    dataset: Dataset,
    retrieval_pool: Option<NonZeroU64>,
}

impl HeldOut {
    fn open(config: &EvaluationConfig) -> Result<Self, RunError> {
        let dataset = data::open(&config.location)?;
        eval::check(&dataset)?;
        Ok(Self { dataset, retrieval_pool: config.retrieval_pool })
    }
}

fn evaluate(
    model: &Clip,
    held_out: &HeldOut,
    config: &RunConfig,
    around: &Surroundings<'_>,
) -> Result<Evaluated, RunError> {
    let started = std::time::Instant::now();
    let HeldOut { dataset, retrieval_pool } = held_out;
    let data = &config.data;
    let options = EvalOptions {
        encode: EncodeOptions::of(
            &config.model,
            data.captions.clone(),
            data.batch_size,
            data.threads,
            around.progress.clone(),
        ),
        retrieval_pool: *retrieval_pool,
        num_predictions: NUM_PREDICTIONS,
    };
    let report = eval::evaluate(model, dataset, around.comm, &options)?;
    let pictures = match &report.predictions {
        Some(predictions) => {
            pictures(dataset, &predictions.images[..predictions.images.len().min(NUM_PICTURES)])
        }
        None => Vec::new(),
    };
    Ok(Evaluated { report, pictures, seconds: started.elapsed().as_secs_f64() })
}
