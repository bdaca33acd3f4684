//! `train launch`: several ranks on this machine.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use fastclip_trainer::config::{RunConfig, RunOptions};
use fastclip_trainer::launch::{LaunchOptions, launch};

use super::run::{SharedArgs, machine};
use super::{Failure, print};

/// Trains as several processes on this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct LaunchArgs {
    /// Number of processes
    #[arg(long, value_name = "N", help_heading = "Launch")]
    ranks: NonZeroUsize,
    /// Port on which they meet; a free one unless set
    #[arg(long, value_name = "PORT", help_heading = "Launch")]
    port: Option<u16>,
    /// Seconds that the ranks may take to end after a signal or a failure, before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 120, help_heading = "Launch")]
    grace: u64,
    #[command(flatten)]
    run: SharedArgs,
    /// Settings of the run may also stand behind `--`, as with other launchers
    #[arg(last = true, value_name = "RUN FLAGS")]
    more: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  train launch --ranks 2 --config configs/demo.toml
  train launch --ranks 4 --train-data data/train --model ViT-B-32 --batch-size 64

All settings of `train run` are settings of `train launch`. If a rank fails, the others are ended and the exit code is
that of the first to fail.";

#[derive(Debug, Parser)]
#[command(name = "train launch", no_binary_name = true, args_override_self = true)]
struct MoreArgs {
    #[command(flatten)]
    run: SharedArgs,
}

impl LaunchArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let more = match MoreArgs::try_parse_from(self.more) {
            Ok(more) => more.run,
            Err(refused) => return Ok(super::report_arguments(&refused)),
        };
        let print_config = self.run.print_config || more.print_config;
        let options = more.layered()?.over(self.run.layered()?);
        // Resolved here once, so that wrong settings are reported by one process and not by all of them.
        let config = RunConfig::resolve(options, machine(self.ranks.get()))?;
        if print_config {
            return print(&config.to_toml());
        }
        let options = LaunchOptions {
            num_ranks: self.ranks,
            program: None,
            args: std::iter::once("run".to_owned())
                .chain(RunOptions::flags(&config.settings))
                .map(OsString::from)
                .collect(),
            threads: config.settings.threads,
            port: self.port,
            grace: Duration::from_secs(self.grace),
        };
        let outcome = launch(&options).map_err(Failure::broken)?;
        Ok(ExitCode::from(outcome.exit_code()))
    }
}
