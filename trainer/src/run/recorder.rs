//! What a run writes about itself, and its clock.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use fastclip_schemas::RunSummary;
use fastclip_torch_ext::memory_peak;
use tch::Device;

use super::data::TrainingData;
use super::{Evaluated, RunError, SUMMARY_FILE, Surroundings};
use crate::checkpoint::RunState;
use crate::config::RunConfig;
use crate::distributed::Communicator;
use crate::estimator::EstimatorTable;
use crate::eval::EvalReport;
use crate::files;
use crate::metrics::{
    CheckpointTiming, EvalRecord, EvalTiming, GpuMemory, Histogram, MetricsOptions, MetricsWriter, Record,
    RunInfo, TrainRecord, TrainTiming, read_metrics,
};
use crate::step::StepReport;

/// Measures steps and the waiting for data; evaluation and checkpoints are not counted.
#[derive(Debug)]
pub(super) struct Stopwatch {
    seconds: f64,
    since_log: Interval,
    lap: Instant,
}

/// What happened since the last line of the log.
#[derive(Debug, Clone, Copy, Default)]
struct Interval {
    steps: u64,
    seconds: f64,
    data_seconds: f64,
}

impl Stopwatch {
    pub(super) fn start(state: &RunState) -> Self {
        Self { seconds: state.seconds, since_log: Interval::default(), lap: Instant::now() }
    }

    /// Lets nothing that happened since the last step count.
    pub(super) fn resume(&mut self) {
        self.lap = Instant::now();
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.lap).as_secs_f64();
        self.lap = now;
        self.seconds += seconds;
        self.since_log.seconds += seconds;
        seconds
    }

    /// Waits for data.
    pub(super) fn data<T>(&mut self, next: impl FnOnce() -> T) -> T {
        let value = next();
        self.since_log.data_seconds += self.lap();
        value
    }

    /// Takes a step.
    pub(super) fn step<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let value = step();
        self.lap();
        self.since_log.steps += 1;
        value
    }

    /// Waits for what a step found.
    pub(super) fn wait<T>(&mut self, read: impl FnOnce() -> T) -> T {
        let value = read();
        self.lap();
        value
    }

    /// Seconds of all sessions.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Times of the steps since the last call; memory and checkpoints come from elsewhere.
    fn take_timing(&mut self, global_batch: u64) -> TrainTiming {
        let Interval { steps, seconds, data_seconds } = std::mem::take(&mut self.since_log);
        let steps = steps.max(1) as f64;
        TrainTiming {
            seconds: self.seconds,
            step_seconds: seconds / steps,
            data_seconds: data_seconds / steps,
            images_per_second: steps * global_batch as f64 / seconds.max(f64::MIN_POSITIVE),
            gpu_memory: None,
            checkpoints: None,
        }
    }
}

/// Writes metrics and the result. All ranks have one; only that of rank 0 writes.
#[derive(Debug)]
pub(super) struct Recorder {
    num_ranks: usize,
    writer: Option<MetricsWriter>,
    objective: &'static str,
    global_batch: u64,
    run_dir: PathBuf,
    device: Device,
    /// Whether the last record could not be written.
    is_failing: bool,
}

impl Recorder {
    pub(super) fn open(
        config: &RunConfig,
        data: &TrainingData,
        state: &RunState,
        around: &Surroundings<'_>,
    ) -> Result<Self, RunError> {
        let comm = around.comm;
        let steps_per_epoch = data.loader.steps_per_epoch();
        let objective = config.settings.objective.name();
        let options = MetricsOptions {
            run_dir: config.run_dir.clone(),
            info: RunInfo {
                name: config.settings.name.clone().unwrap_or_default(),
                objective: objective.to_owned(),
                command: around.command.clone(),
                version: around.version.clone(),
                num_ranks: comm.world_size(),
                global_batch: data.global_batch,
                samples_per_epoch: steps_per_epoch * data.global_batch,
                total_steps: steps_per_epoch * config.rates.epochs,
            },
            resumed_at: (state.steps > 0).then_some(state.steps),
            progress: around.progress.clone(),
        };
        Ok(Self {
            num_ranks: comm.world_size(),
            writer: (comm.rank() == 0).then(|| MetricsWriter::open(options)).transpose()?,
            objective,
            global_batch: data.global_batch,
            run_dir: config.run_dir.clone(),
            device: around.device,
            is_failing: false,
        })
    }

    /// Notes a step, with a line of the log if there is a report for it.
    pub(super) fn step(
        &mut self,
        state: &RunState,
        report: Option<&StepReport>,
        watch: &mut Stopwatch,
        checkpoints: Option<CheckpointTiming>,
    ) {
        let Some(writer) = &mut self.writer else { return };
        let Some(report) = report else {
            writer.advance(state.steps);
            return;
        };
        // A step has been taken, so that the device counts.
        let gpu_memory = memory_peak(self.device)
            .ok()
            .flatten()
            .map(|peak| GpuMemory { allocated_bytes: peak.allocated, reserved_bytes: peak.reserved });
        let written = writer.train(TrainRecord {
            step: state.steps,
            epoch: report.epoch,
            samples_seen: state.samples_seen,
            loss: report.values.loss,
            contrastive_loss: Some(report.values.contrastive_loss),
            log_mean: Some(report.values.log_mean),
            lr: report.rates.model,
            lr_tau: Some(report.rates.temperature_at(report.tau)),
            tau: report.tau,
            gamma: report.gamma,
            grad_norm: Some(report.grad_norm),
            communication_bytes: report.communication.total().num_bytes,
            collectives: report.communication,
            timing: TrainTiming { gpu_memory, checkpoints, ..watch.take_timing(self.global_batch) },
        });
        self.note(written.map_err(RunError::from));
    }

    /// Whether there is no record of an evaluation of the model as it is; never on ranks that do not write.
    pub(super) fn lacks_evaluation(&self, state: &RunState) -> Result<bool, RunError> {
        if self.writer.is_none() {
            return Ok(false);
        }
        let records = read_metrics(&self.run_dir)?;
        let is_it = |record: &Record| matches!(record, Record::Eval(found) if found.step == state.steps);
        Ok(!records.iter().any(is_it))
    }

    pub(super) fn evaluation(&mut self, state: &RunState, found: &Evaluated) {
        let Some(writer) = &mut self.writer else { return };
        let Evaluated { report, pictures, seconds } = found;
        let saved = match &report.predictions {
            Some(predictions) => predictions
                .save(&self.run_dir)
                .map_err(RunError::from)
                .and_then(|_| Ok(writer.predictions(state.steps, &predictions.images, pictures)?)),
            None => Ok(()),
        };
        let written = writer.eval(EvalRecord {
            step: state.steps,
            epoch: state.position.epoch,
            samples_seen: state.samples_seen,
            zero_shot: report.zero_shot,
            retrieval: Some(report.retrieval),
            timing: EvalTiming { seconds: *seconds },
        });
        self.note(saved.and(written.map_err(RunError::from)));
    }

    /// Shows how the estimates of all samples are distributed. Collective.
    pub(super) fn estimates(
        &mut self,
        state: &RunState,
        estimators: &EstimatorTable,
        comm: &dyn Communicator,
    ) -> Result<(), RunError> {
        let log_u = estimators.log_u();
        for (column, tag) in [(0, "estimators/log_u_image"), (1, "estimators/log_u_text")] {
            // On all ranks, as all of them count.
            let histogram = Histogram::of(&log_u.select(1, column), comm)?;
            if let (Some(writer), Some(histogram)) = (&mut self.writer, histogram) {
                let written = writer.histogram(state.steps, tag, &histogram);
                self.note(written.map_err(RunError::from));
            }
        }
        Ok(())
    }

    /// Goes on without what could not be recorded: a full disk must not end a run that can still train. Says so, once
    /// until it works again.
    fn note(&mut self, written: Result<(), RunError>) {
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) if self.is_failing => tracing::debug!("{}", error.with_causes()),
            Err(error) => {
                tracing::warn!("the run goes on, although it can not be recorded: {}", error.with_causes());
                self.is_failing = true;
            }
        }
    }

    /// The file of metrics, for whoever must wait until the disk has its lines.
    pub(super) fn journal(&self) -> Option<File> {
        self.writer.as_ref()?.journal().ok()
    }

    /// Writes the result of a complete run, and returns it on all ranks.
    pub(super) fn finish(
        &mut self,
        state: &RunState,
        report: Option<EvalReport>,
    ) -> Result<Option<RunSummary>, RunError> {
        let Some(report) = report else { return Ok(None) };
        let summary = self.summary(state, &report);
        if self.writer.is_some() {
            if let Some(predictions) = &report.predictions {
                predictions.save(&self.run_dir)?;
            }
            let mut text = serde_json::to_vec_pretty(&summary).expect("a summary is made of plain values");
            text.push(b'\n');
            let path = self.run_dir.join(SUMMARY_FILE);
            files::replace(&path, &text).map_err(RunError::file("write", &path))?;
        }
        Ok(Some(summary))
    }

    fn summary(&self, state: &RunState, report: &EvalReport) -> RunSummary {
        let (images, texts) = (report.retrieval.image_to_text, report.retrieval.text_to_image);
        RunSummary {
            objective: self.objective.to_owned(),
            ranks: self.num_ranks,
            samples_seen: state.samples_seen,
            seconds: state.seconds,
            images_per_second: state.samples_seen as f64 / state.seconds.max(f64::MIN_POSITIVE),
            zero_shot_top1: report.zero_shot.map(|found| found.top1),
            zero_shot_top5: report.zero_shot.map(|found| found.top5),
            zero_shot_chance: report.zero_shot.map(|found| found.chance),
            retrieval_image_to_text_r1: images.r1,
            retrieval_image_to_text_r5: images.r5,
            retrieval_image_to_text_r10: images.r10,
            retrieval_text_to_image_r1: texts.r1,
            retrieval_text_to_image_r5: texts.r5,
            retrieval_text_to_image_r10: texts.r10,
            retrieval_pool: report.retrieval.pool,
        }
    }
}
