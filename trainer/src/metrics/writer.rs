//! One call per record, three places that it goes to.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::journal::Journal;
use super::tensorboard::EventWriter;
use super::{
    EvalRecord, Histogram, MetricsError, Picture, RUN_INFO_FILE, Record, RunInfo, TENSORBOARD_FOLDER,
    TrainRecord, console, prometheus,
};
use crate::distributed::{CommCounters, Traffic};
use crate::eval::ImagePrediction;
use crate::files;
use crate::progress::{Bar, Progress};

/// What a [`MetricsWriter`] needs to know.
#[derive(Debug)]
pub struct MetricsOptions {
    /// The run's folder; it must exist.
    pub run_dir: PathBuf,
    /// What stays the same over the run.
    pub info: RunInfo,
    /// Step of the checkpoint that the run continues from, or nothing if it starts.
    pub resumed_at: Option<u64>,
    /// Where the bar of the run is drawn.
    pub progress: Progress,
}

/// Writes what happens in a run: `metrics.jsonl`, TensorBoard event files, console lines and the progress bar.
///
/// Rank 0 has one, the others have none. Records must come in the order of their steps; an evaluation follows the
/// training record of its step. When a call returns, the operating system has the line, so that a killed process loses
/// nothing; a checkpoint that must not outlive its lines waits for [`journal`](Self::journal) first. Console lines go through
/// `tracing`, at level info. Dropping it takes the bar away.
#[derive(Debug)]
pub struct MetricsWriter {
    info: RunInfo,
    journal: Journal,
    events: EventWriter,
    bar: Bar,
    epoch_loss: EpochMean,
}

impl MetricsWriter {
    /// Opens the files of a run, cuts off what a checkpoint does not cover and writes `run.json`.
    ///
    /// # Errors
    /// When a file cannot be opened or written, or holds lines that are not records.
    pub fn open(options: MetricsOptions) -> Result<Self, MetricsError> {
        let MetricsOptions { run_dir, info, resumed_at, progress } = options;
        let mut text = serde_json::to_vec_pretty(&info).expect("the facts of a run are plain values");
        text.push(b'\n');
        let path = run_dir.join(RUN_INFO_FILE);
        files::replace(&path, &text).map_err(|source| MetricsError::Io { action: "write", path, source })?;

        let journal = Journal::open(&run_dir, resumed_at)?;
        let folder = run_dir.join(TENSORBOARD_FOLDER);
        let first_step = resumed_at.map_or(0, |step| step + 1);
        let events = EventWriter::create(&folder, first_step, SystemTime::now())
            .map_err(|source| MetricsError::Io { action: "create an event file in", path: folder, source })?;
        let bar = progress.bar("training", "steps", resumed_at.unwrap_or(0), info.total_steps);
        Ok(Self { info, journal, events, bar, epoch_loss: EpochMean::default() })
    }

    /// Moves the progress bar after a step. Cheap enough for every step.
    pub fn advance(&self, step: u64) {
        self.bar.set(step);
        prometheus::step(step);
    }

    /// Shows how the values of something are distributed, in TensorBoard.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn histogram(&mut self, step: u64, tag: &str, histogram: &Histogram) -> Result<(), MetricsError> {
        let written = self.events.histogram(step, SystemTime::now(), tag, histogram);
        self.to_events(written)
    }

    /// Shows what the model says about some images, in TensorBoard: each image under its key, and the captions that it
    /// prefers as a table.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn predictions(
        &mut self,
        step: u64,
        predictions: &[ImagePrediction],
        pictures: &[Picture],
    ) -> Result<(), MetricsError> {
        for (prediction, picture) in predictions.iter().zip(pictures) {
            let tag = format!("retrieval/{}", prediction.key);
            let written = self.events.image(step, SystemTime::now(), &tag, picture);
            self.to_events(written)?;
            let written = self.events.text(step, SystemTime::now(), &tag, &table(prediction));
            self.to_events(written)?;
        }
        Ok(())
    }

    /// Writes a training step.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn train(&mut self, record: TrainRecord) -> Result<(), MetricsError> {
        let mean_loss = self.epoch_loss.add(record.epoch, record.loss);
        self.bar.set(record.step);
        self.bar.set_message(format!("loss {:.3}", record.loss));
        let time_left = self.time_left(&record);
        tracing::info!("{}", console::train_line(&record, &self.info, mean_loss, time_left));

        let timing = record.timing;
        let mut scalars = vec![
            ("train/loss", record.loss),
            ("train/lr", record.lr),
            ("train/logit_scale", 1.0 / record.tau),
            ("train/tau", record.tau),
            ("train/data_time", timing.data_seconds),
            ("train/batch_time", timing.step_seconds),
            ("train/samples_per_second", timing.images_per_second),
            (
                "train/samples_per_second_per_gpu",
                timing.images_per_second / self.info.num_ranks.max(1) as f64,
            ),
        ];
        let optional = [
            ("train/contrastive_loss", record.contrastive_loss),
            ("train/log_mean", record.log_mean),
            ("train/lr_tau", record.lr_tau),
            ("train/gamma", record.gamma),
            ("train/grad_norm", record.grad_norm),
            ("train/gpu_allocated_bytes", timing.gpu_memory.map(|memory| memory.allocated_bytes as f64)),
            ("train/gpu_reserved_bytes", timing.gpu_memory.map(|memory| memory.reserved_bytes as f64)),
        ];
        if let Some(checkpoints) = &timing.checkpoints {
            scalars.extend([
                ("checkpoint/failed", checkpoints.num_failed as f64),
                ("checkpoint/copy_seconds", checkpoints.copy_seconds),
                ("checkpoint/wait_seconds", checkpoints.wait_seconds),
                ("checkpoint/write_seconds", checkpoints.write_seconds),
            ]);
        }
        scalars.extend(optional.into_iter().filter_map(|(tag, value)| Some((tag, value?))));
        let received = |of: fn(CommCounters) -> Traffic| of(record.collectives).num_bytes as f64;
        scalars.extend([
            ("train/received_bytes/all_gather", received(|collectives| collectives.all_gather)),
            ("train/received_bytes/all_reduce", received(|collectives| collectives.all_reduce)),
        ]);
        prometheus::train(&record);
        self.write(Record::Train(record), &scalars)
    }

    /// Writes an evaluation.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn eval(&mut self, record: EvalRecord) -> Result<(), MetricsError> {
        tracing::info!("{}", console::eval_line(&record));
        prometheus::eval(&record);
        let mut scalars = Vec::new();
        if let Some(zero_shot) = &record.zero_shot {
            scalars.extend([
                ("val/zeroshot-top1", zero_shot.top1),
                ("val/zeroshot-top5", zero_shot.top5),
                ("val/zeroshot-mean-per-class-recall", zero_shot.mean_per_class_recall),
            ]);
        }
        if let Some(retrieval) = &record.retrieval {
            let (images, texts) = (retrieval.image_to_text, retrieval.text_to_image);
            scalars.extend([
                ("val/image_to_text_R@1", images.r1),
                ("val/image_to_text_R@5", images.r5),
                ("val/image_to_text_R@10", images.r10),
                ("val/image_to_text_mean_rank", images.mean_rank),
                ("val/image_to_text_median_rank", images.median_rank),
                ("val/text_to_image_R@1", texts.r1),
                ("val/text_to_image_R@5", texts.r5),
                ("val/text_to_image_R@10", texts.r10),
                ("val/text_to_image_mean_rank", texts.mean_rank),
                ("val/text_to_image_median_rank", texts.median_rank),
            ]);
        }
        scalars.push(("val/epoch", record.epoch as f64));
        self.write(Record::Eval(record), &scalars)
    }

    /// Returns another handle on `metrics.jsonl`, for waiting until its lines are on the disk.
    ///
    /// That is done before a checkpoint is made visible, so that no power cut leaves a checkpoint without its metrics, and
    /// on the thread that writes the checkpoint, so that no step waits for the disk.
    ///
    /// # Errors
    /// When the system has no more handles.
    pub fn journal(&self) -> Result<File, MetricsError> {
        self.journal.handle()
    }

    fn write(&mut self, record: Record, scalars: &[(&'static str, f64)]) -> Result<(), MetricsError> {
        self.journal.append(&record)?;
        let written = self.events.scalars(record.step(), SystemTime::now(), scalars);
        self.to_events(written)
    }

    fn to_events(&self, written: std::io::Result<()>) -> Result<(), MetricsError> {
        written.map_err(|source| MetricsError::Io {
            action: "write to",
            path: self.events.path().to_owned(),
            source,
        })
    }

    fn time_left(&self, record: &TrainRecord) -> Option<Duration> {
        let steps = self.info.total_steps.saturating_sub(record.step) as f64;
        // Not the bar's own estimate: a hidden bar makes none.
        Duration::try_from_secs_f64(steps * record.timing.step_seconds).ok()
    }
}

/// Words what a model says about an image, in Markdown.
fn table(prediction: &ImagePrediction) -> String {
    let cell = |text: &str| text.replace(['\n', '\r'], " ").replace('|', "\\|");
    let ImagePrediction { caption, caption_rank, captions, .. } = prediction;
    let mut table = format!(
        "Its own caption, at place {caption_rank}: {}\n\n| similarity | caption |\n|---|---|\n",
        cell(caption)
    );
    for ranked in captions {
        table += &format!("| {:.3} | {} |\n", ranked.score, cell(&ranked.caption));
    }
    table
}

/// Mean of the logged losses of one epoch; it starts anew when the epoch changes or the run is resumed.
#[derive(Debug, Default)]
struct EpochMean {
    epoch: u64,
    sum: f64,
    count: u64,
}

impl EpochMean {
    fn add(&mut self, epoch: u64, loss: f64) -> f64 {
        if epoch != self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.sum += loss;
        self.count += 1;
        self.sum / self.count as f64
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::distributed::CommCounters;
    use crate::metrics::tensorboard::tests::{Event, decode};
    use crate::metrics::{EvalTiming, TrainTiming, read_metrics};

    fn info() -> RunInfo {
        RunInfo {
            name: "test".to_owned(),
            objective: "fastclip-v3".to_owned(),
            command: "train".to_owned(),
            version: "0".to_owned(),
            num_ranks: 2,
            global_batch: 64,
            samples_per_epoch: 640,
            total_steps: 10,
        }
    }

    fn session(run_dir: &Path, resumed_at: Option<u64>, steps: std::ops::RangeInclusive<u64>) {
        let progress = Progress::hidden();
        let options = MetricsOptions { run_dir: run_dir.to_owned(), info: info(), resumed_at, progress };
        let mut writer = MetricsWriter::open(options).unwrap();
        for step in steps {
            writer.advance(step);
            writer
                .train(TrainRecord {
                    step,
                    epoch: 0,
                    samples_seen: step * 64,
                    loss: 4.0 / step as f64,
                    contrastive_loss: None,
                    log_mean: None,
                    lr: 1e-3,
                    lr_tau: None,
                    tau: 0.05,
                    gamma: Some(0.9),
                    grad_norm: Some(1.0),
                    communication_bytes: 10,
                    collectives: CommCounters::default(),
                    timing: TrainTiming {
                        seconds: 0.1,
                        step_seconds: 0.1,
                        data_seconds: 0.0,
                        images_per_second: 640.0,
                        gpu_memory: None,
                        checkpoints: None,
                    },
                })
                .unwrap();
        }
        writer.journal().unwrap().sync_data().unwrap();
        writer
            .eval(EvalRecord {
                step: 10,
                epoch: 0,
                samples_seen: 640,
                zero_shot: None,
                retrieval: None,
                timing: EvalTiming { seconds: 1.0 },
            })
            .unwrap();
    }

    #[test]
    fn a_resumed_run_leaves_the_same_metrics_and_tells_tensorboard_what_to_forget() {
        let (whole, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        session(whole.path(), None, 1..=10);
        session(resumed.path(), None, 1..=7);
        session(resumed.path(), Some(4), 5..=10);
        assert_eq!(read_metrics(whole.path()).unwrap(), read_metrics(resumed.path()).unwrap());

        let folder = resumed.path().join(TENSORBOARD_FOLDER);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 2, "one file a session");
        let events = decode(&std::fs::read(&files[1]).unwrap());
        assert_eq!(events[1], Event::SessionStart { step: 5 });
        for tag in ["train/loss", "train/lr", "train/logit_scale", "train/tau", "train/gamma"] {
            let steps: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Scalar { step, tag: found, .. } if found == tag => Some(*step),
                    _ => None,
                })
                .collect();
            assert_eq!(steps, [5, 6, 7, 8, 9, 10], "{tag}");
        }
    }

    #[test]
    fn the_facts_of_a_run_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        session(folder.path(), None, 1..=1);
        assert_eq!(RunInfo::read(folder.path()).unwrap(), info());
    }

    #[test]
    fn the_mean_loss_starts_anew_with_each_epoch() {
        let mut mean = EpochMean::default();
        let means: Vec<_> =
            [(0, 4.0), (0, 2.0), (1, 1.0), (1, 2.0)].map(|(epoch, loss)| mean.add(epoch, loss)).to_vec();
        assert_eq!(means, [4.0, 3.0, 1.0, 1.5]);
    }
}
