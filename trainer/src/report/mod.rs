//! One page that shows what a run came to, and one that compares several.
//!
//! [`write_report`] reads a run's folder and the held-out dataset and writes `report.html`: figures, curves, and what
//! the model says about images that it has never seen. The page stands alone: curves are drawn as SVG by us, images are
//! embedded, there is no script and no address that a browser would ask for anything, so it can be mailed, archived and
//! opened years later. A page that loads a chart library would be interactive, and empty on a machine without network.
//!
//! Equal inputs give equal bytes. All text from outside, captions and settings above all, is escaped.

mod chart;
mod comparison;
mod figures;
mod gallery;
mod page;
mod thumbnail;

use std::path::{Path, PathBuf};

use fastclip_shards::{Dataset, ReadError};

use crate::eval::{EvalError, ImagePrediction, Predictions};
use crate::files;
use crate::metrics::{MetricsError, Picture, RunInfo, read_metrics};

pub use comparison::write_comparison;

/// The page, inside a run's folder.
pub const REPORT_FILE: &str = "report.html";

/// The settings of a run as resolved, inside its folder. The report shows them if they are there.
const CONFIG_FILE: &str = "config.toml";

/// A report that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The run's metrics could not be read.
    #[error("could not read the metrics of the run")]
    Metrics(#[from] MetricsError),
    /// The run's predictions could not be read.
    #[error("could not read the predictions of the run")]
    Predictions(#[from] EvalError),
    /// An image could not be read from the dataset.
    #[error("could not read the image of sample `{key}` in `{location}`")]
    Image {
        /// Key of the sample.
        key: String,
        /// The dataset.
        location: String,
        /// Why it failed.
        #[source]
        source: Box<ReadError>,
    },
    /// The predictions speak of other samples than the dataset holds.
    #[error(
        "the predictions name sample `{expected}` at position {position} of shard {shard}, `{location}` has {found} there"
    )]
    OtherDataset {
        /// Key in the predictions.
        expected: String,
        /// What the dataset has there, for people.
        found: String,
        /// Number of the shard.
        shard: usize,
        /// Position in the shard.
        position: u32,
        /// The dataset.
        location: String,
    },
    /// The settings of a run are not what its program writes.
    #[error("could not understand the settings `{}`", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// More runs than a page can tell apart.
    #[error("{num_runs} runs cannot be told apart on a page: it has {most} colours")]
    TooMany {
        /// Runs that were asked for.
        num_runs: usize,
        /// Runs that there is room for.
        most: usize,
    },
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Writes `report.html` into a run's folder and returns where.
///
/// `val_dataset` is the one that the run was evaluated on; it lends the images. A run that is still going on, or was
/// never evaluated, gets a shorter page. Must not be called from inside an asynchronous runtime.
///
/// # Errors
/// When `run.json` or `metrics.jsonl` is missing, a file of the run cannot be read, or the dataset is another one than
/// that of the predictions.
pub fn write_report(run_dir: &Path, val_dataset: &Dataset) -> Result<PathBuf, ReportError> {
    let info = RunInfo::read(run_dir)?;
    let records = read_metrics(run_dir)?;
    let predictions = Predictions::read(run_dir)?;
    let config = read_if_there(&run_dir.join(CONFIG_FILE))?;
    let images = match &predictions {
        Some(predictions) => gallery::read_images(val_dataset, &predictions.images, thumbnail::data_url)?,
        None => Vec::new(),
    };
    let page = page::Page {
        info: &info,
        records: &records,
        predictions: predictions.as_ref(),
        images: &images,
        config: config.as_deref(),
        dataset: val_dataset.location(),
    };
    let path = run_dir.join(REPORT_FILE);
    match files::replace(&path, page.to_html().as_bytes()) {
        Ok(()) => Ok(path),
        Err(source) => Err(ReportError::File { action: "write", path, source }),
    }
}

/// Reads the images of predictions, shrunk; those that cannot be read are left out with a warning, and what follows them,
/// because pictures to look at are not worth a run.
pub(crate) fn pictures(dataset: &Dataset, predictions: &[ImagePrediction]) -> Vec<Picture> {
    let found = gallery::read_images(dataset, predictions, |_, bytes| thumbnail::shrink(bytes));
    match found {
        Ok(pictures) => pictures.into_iter().map_while(|picture| picture).collect(),
        Err(error) => {
            tracing::warn!("there are no pictures in TensorBoard: {error}");
            Vec::new()
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, ReportError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::File { action: "read", path: path.to_owned(), source }),
    }
}
