//! `train report`: a page about a run, or one that compares several.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use fastclip_trainer::config::RunOptions;
use fastclip_trainer::report::{ReportError, write_comparison, write_report};
use fastclip_trainer::run::{SETTINGS_FILE, open_dataset};

use super::{Failure, print};

/// Writes a page about a run, or one that compares several: curves, results, and what the model says about images
///
/// The page of one run is report.html in its folder. That of several has their results side by side, the settings in which
/// they differ, and their curves over the samples seen.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Folders of the runs
    #[arg(value_name = "RUN", required = true, num_args = 1..)]
    runs: Vec<PathBuf>,
    /// The held-out dataset, if it has moved since the run; it lends the images to the page of one run
    #[arg(long, value_name = "LOCATION", alias = "val_data")]
    val_data: Option<String>,
    /// Where the page of several runs is written
    #[arg(long, value_name = "FILE", default_value = "comparison.html")]
    out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  train report logs/my-run
  train report logs/openclip logs/fastclip-v3 --out comparison.html";

impl ReportArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let failed = |error: ReportError| match error {
            ReportError::TooMany { .. } => Failure::refused(error),
            error => Failure::broken(error),
        };
        let path = match &self.runs[..] {
            [run] => {
                let dataset = open_dataset(&self.location(run)?)?;
                write_report(run, &dataset).map_err(failed)?
            }
            runs => {
                write_comparison(runs, &self.out).map_err(failed)?;
                self.out
            }
        };
        print(&format!("{}\n", path.display()))
    }

    fn location(&self, run: &Path) -> Result<String, Failure> {
        if let Some(location) = &self.val_data {
            return Ok(location.clone());
        }
        let settings = run.join(SETTINGS_FILE);
        RunOptions::read(&settings)?.val_data.ok_or_else(|| {
            Failure::refused(anyhow::anyhow!(
                "`{}` has no `val_data`: give the held-out dataset as `--val-data`",
                settings.display()
            ))
        })
    }
}
