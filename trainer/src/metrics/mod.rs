//! What a run reports about itself while it runs.
//!
//! [`MetricsWriter`] belongs to rank 0 and puts each record where four kinds of reader look: `metrics.jsonl` for
//! programs, TensorBoard event files for browsers, the console for people, and the process's recorder of metrics, which
//! [`serve_prometheus`] makes one that servers fetch from.
//!
//! The hard part is a run that is killed and resumed. Its `metrics.jsonl` must end up equal to that of a run that was
//! never killed, so that a test can compare the two. Therefore everything that depends on the clock lies under one key,
//! `timing`, that a comparison can drop; figures are those of the step that they stand beside, not of the interval since
//! the last line, which a resumed run would cut differently; and resuming cuts the file after the checkpoint's step.
//! The event files are not cut but told to forget, as TensorBoard does it: a reader drops what an earlier session wrote
//! at or after the step where a later one started.

mod console;
mod histogram;
mod journal;
mod prometheus;
mod record;
mod tensorboard;
mod writer;

use std::path::PathBuf;

pub use histogram::Histogram;
pub use journal::read_metrics;
pub use prometheus::serve_prometheus;
pub use record::{
    CheckpointTiming, EvalRecord, EvalTiming, GpuMemory, Record, RunInfo, TrainRecord, TrainTiming,
};
pub use writer::{MetricsOptions, MetricsWriter};

/// File with one [`Record`] a line, inside a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Folder of TensorBoard event files, inside a run's folder.
pub const TENSORBOARD_FOLDER: &str = "tensorboard";

/// File with the run's [`RunInfo`], inside its folder.
pub const RUN_INFO_FILE: &str = "run.json";

/// A square image.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its file.
    pub jpeg: Vec<u8>,
    /// Pixels a side.
    pub side: u32,
}

/// Metrics that could not be written or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was being done to it.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A line that is complete and yet no record: somebody else wrote into the file, or the disk lost a part of it.
    #[error("`{}` holds no record on line {line}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file that is not what its name says.
    #[error("`{}` holds something else than it should", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}
