//! A run from its first step to its last, over any number of sessions.

mod data;
mod due;
mod error;
mod feed;
mod recorder;
mod start;

use std::path::PathBuf;

use fastclip_schemas::{Position, RunSummary};
use fastclip_torch_ext::Stream;
use tch::Device;

pub use data::{open as open_dataset, training_loader};
pub use error::RunError;

use self::data::TrainingData;
use self::due::Due;
use self::recorder::{Recorder, Stopwatch};
pub(crate) use self::start::{Extent, build};
use self::start::{Start, start};
use crate::config::{EvaluationConfig, RunConfig};
use crate::distributed::Communicator;
use crate::eval::{self, EvalOptions, EvalReport};
use crate::gradients::Stop;
use crate::model::Clip;
use crate::progress::Progress;
use crate::step::{InFlight, Inputs};

/// Result of a finished run, inside its folder.
pub const SUMMARY_FILE: &str = "summary.json";

/// Resolved settings of a run, inside its folder.
pub const SETTINGS_FILE: &str = "config.toml";

/// Log of a run, inside its folder; written by the binary.
pub const LOG_FILE: &str = "out.log";

/// Images whose predictions are kept for the report.
const NUM_PREDICTIONS: usize = 24;

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
    /// A rank was asked to stop, and all did, after a checkpoint.
    Stopped {
        /// What asked.
        stop: Stop,
        /// Steps taken.
        steps: u64,
        /// Where the run continues from.
        checkpoint: PathBuf,
    },
}

/// Trains until the run is complete or somebody asks to stop. Collective: all ranks call it with the same settings.
///
/// Sets the number of threads that libtorch uses in this process.
///
/// # Errors
/// When anything fails; a rank whose own failure it is tells the others, whose errors then name it.
pub fn run(config: &RunConfig, around: &Surroundings<'_>) -> Result<Outcome, RunError> {
    // A stream of its own: work on the default one waits for that of all others, and cannot be recorded.
    let stream = Stream::beside(around.device)?;
    stream.within(|| train(config, around))?.inspect_err(|error| {
        if !error.came_from_others() {
            around.comm.announce_failure(&error.with_causes());
        }
    })
}

fn train(config: &RunConfig, around: &Surroundings<'_>) -> Result<Outcome, RunError> {
    let comm = around.comm;
    let data = TrainingData::open(&config.data, comm, around.device)?;
    let Start { mut trainer, mut state, checkpoints, is_finished } = start(config, &data, around)?;
    if is_finished {
        return Ok(Outcome::AlreadyFinished);
    }
    let end = Position::start_of(config.rates.epochs);
    let due = Due::new(config, data.loader.steps_per_epoch(), end);
    let mut recorder = Recorder::open(config, &data, &state, around)?;
    let mut watch = Stopwatch::start(&state);
    let mut evaluated = None;

    let (mut feed, mut in_flight) = (data.feed()?, InFlight::default());
    // Where the device is a GPU, a step that nobody wants to know about goes on while the next one is prepared.
    let knows_at_once = !around.device.is_cuda();
    let mut batches = data.loader.stream(state.position, end)?;
    while let Some(batch) = watch.data(|| batches.next()) {
        let batch = batch?;
        let position = batch.position();
        let step = |inputs: &Inputs<'_>| trainer.step(inputs, (around.stop)(), comm);
        let pending = watch.step(|| feed.step(batch, step))??;
        state.steps += 1;
        state.samples_seen += data.global_batch;
        state.position = data.after(position);
        let evaluation = due.evaluation(&state);
        let is_wanted = knows_at_once || due.log(&state) || due.checkpoint(&state) || evaluation.is_some();
        let arrived = watch.wait(|| in_flight.push(pending, is_wanted))?;
        state.seconds = watch.seconds();

        recorder.step(&state, arrived.report.as_ref().filter(|_| due.log(&state)), &mut watch)?;
        let saves = due.checkpoint(&state) || arrived.stop.is_some();
        if evaluation.is_some() || saves {
            trainer.average_statistics(comm).map_err(RunError::Statistics)?;
        }
        if let Some(evaluation) = evaluation {
            let found = evaluate(&trainer.model, evaluation, config, around)?;
            recorder.evaluation(&state, &found)?;
            evaluated = Some(found);
        }
        if saves {
            recorder.sync()?;
            let checkpoint = checkpoints.save(&trainer, &state, comm)?;
            tracing::info!("checkpoint of step {} is in {}", state.steps, checkpoint.display());
            if let (Some(stop), true) = (arrived.stop, state.position < end) {
                return Ok(Outcome::Stopped { stop, steps: state.steps, checkpoint });
            }
        }
        watch.resume();
    }
    let stats = data.loader.stats();
    if stats.num_bad() > 0 {
        tracing::warn!("{} samples of this rank could not be used: {stats}", stats.num_bad());
    }
    // A session that died between the last checkpoint and the summary left the evaluation to this one.
    let found = match (evaluated, &config.evaluation) {
        (None, Some(evaluation)) => Some(evaluate(&trainer.model, evaluation, config, around)?.report),
        (found, _) => found.map(|found| found.report),
    };
    Ok(Outcome::Finished { summary: recorder.finish(&state, found)? })
}

/// An evaluation and how long it took.
#[derive(Debug)]
struct Evaluated {
    report: EvalReport,
    seconds: f64,
}

fn evaluate(
    model: &Clip,
    evaluation: &EvaluationConfig,
    config: &RunConfig,
    around: &Surroundings<'_>,
) -> Result<Evaluated, RunError> {
    let started = std::time::Instant::now();
    let dataset = data::open(&evaluation.location)?;
    let options = EvalOptions {
        image_size: config.data.image_size,
        context_length: config.data.context_length,
        batch_size: config.data.batch_size,
        retrieval_pool: evaluation.retrieval_pool,
        num_predictions: NUM_PREDICTIONS,
        threads: config.data.threads,
        progress: around.progress.clone(),
    };
    let report = eval::evaluate(model, &dataset, around.comm, &options)?;
    Ok(Evaluated { report, seconds: started.elapsed().as_secs_f64() })
}
