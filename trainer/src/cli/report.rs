//! `train report`: a page about a run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastclip_trainer::config::RunOptions;
use fastclip_trainer::report::write_report;
use fastclip_trainer::run::{SETTINGS_FILE, open_dataset};

use super::{Failure, print};

/// Writes report.html into a run's folder: curves, results, and what the model says about held-out images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Folder of the run
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
    /// The held-out dataset, if it has moved since the run
    #[arg(long, value_name = "LOCATION", alias = "val_data")]
    val_data: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  train report --run logs/my-run";

impl ReportArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let location = match self.val_data {
            Some(location) => location,
            None => {
                let settings = self.run.join(SETTINGS_FILE);
                RunOptions::read(&settings)?.val_data.ok_or_else(|| {
                    Failure::refused(anyhow::anyhow!(
                        "`{}` has no `val_data`: give the held-out dataset as `--val-data`",
                        settings.display()
                    ))
                })?
            }
        };
        let dataset = open_dataset(&location)?;
        let path = write_report(&self.run, &dataset).map_err(Failure::broken)?;
        print(&format!("{}\n", path.display()))
    }
}
