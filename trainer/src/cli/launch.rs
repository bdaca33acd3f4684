//! `train launch`: several ranks on this machine.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use fastclip_trainer::checkpoint::{Checkpoints, Keep};
use fastclip_trainer::config::{RunConfig, RunOptions, Settings, TimeSpan};
use fastclip_trainer::launch::{Attempt, LaunchOptions, Machines, SuperviseOptions, supervise};

use super::run::{SharedArgs, machine};
use super::{Failure, print};

/// Trains as several processes on this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct LaunchArgs {
    /// Number of processes on this machine
    #[arg(long, value_name = "N", help_heading = "Launch")]
    ranks: NonZeroUsize,
    /// Port on which they meet; a free one unless set, with --nodes 29400
    #[arg(long, value_name = "PORT", help_heading = "Launch")]
    port: Option<u16>,
    /// Seconds that the ranks may take to end after a signal or a failure, before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 120, help_heading = "Launch")]
    grace: u64,
    /// Starts all ranks again from the last checkpoint when one fails, so often at most; gives up earlier if no checkpoint
    /// was written between two failures
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Launch", alias = "max_restarts")]
    max_restarts: u64,
    /// Goes on without a rank that fails twice in a row, as long as so many are left; the global batch stays the same
    /// [default: --ranks]
    #[arg(long, value_name = "N", help_heading = "Launch")]
    min_ranks: Option<NonZeroUsize>,
    /// Seconds between a failure and the next start, doubled with each failure without a new checkpoint
    #[arg(long, value_name = "SECONDS", default_value_t = 5, help_heading = "Launch")]
    restart_delay: u64,
    /// Number of machines; each starts the same command, with its own --node-rank
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Launch", alias = "nnodes")]
    nodes: NonZeroUsize,
    /// Which of the machines this is, from 0
    #[arg(long, value_name = "N", help_heading = "Launch", alias = "node_rank")]
    node_rank: Option<usize>,
    /// Name or address of machine 0, where ranks meet
    #[arg(long, value_name = "HOST", help_heading = "Launch", alias = "master_addr")]
    master_addr: Option<String>,
    #[command(flatten)]
    run: SharedArgs,
    /// Settings of the run may also stand behind `--`, as with other launchers
    #[arg(last = true, value_name = "RUN FLAGS")]
    more: Vec<OsString>,
}

/// Where the ranks of several machines meet, unless the command line says otherwise; torchrun's, too.
const DEFAULT_PORT: u16 = 29_400;

const EXAMPLES: &str = "\
Examples:
  train launch --ranks 2 --config configs/demo.toml
  train launch --ranks 4 --train-data data/train --model ViT-B-32 --batch-size 64
  train launch --ranks 8 --nodes 2 --node-rank 0 --master-addr gpu01 --config configs/demo.toml
  train launch --ranks 8 --max-restarts 10 --config configs/cc3m/fastclip-v3.toml --train-data data/cc3m

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
        let more = match MoreArgs::try_parse_from(&self.more) {
            Ok(more) => more.run,
            Err(refused) => return Ok(super::report_arguments(&refused)),
        };
        let print_config = self.run.print_config || more.print_config;
        let options = more.layered()?.over(self.run.clone().layered()?);
        // Resolved here once, so that wrong settings are reported by one process and not by all of them.
        let machines = self.machines()?;
        let config = RunConfig::resolve(options, machine(self.ranks.get()))?;
        if print_config {
            return print(&config.to_toml());
        }
        let min_ranks = self.min_ranks.unwrap_or(self.ranks);
        if min_ranks > self.ranks {
            let (least, ranks) = (min_ranks, self.ranks);
            return Err(Failure::refused(anyhow::anyhow!("`min-ranks` is {least}, but `ranks` is {ranks}")));
        }
        let started = Instant::now();
        let devices = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let describe = |attempt: Attempt<'_>| {
            let mut settings = config.settings.on_ranks(self.ranks, attempt.num_ranks)?;
            if let Some(TimeSpan(limit)) = settings.time_limit
                && attempt.num_restarts > 0
            {
                // The limit of all attempts together. Nothing is left of it only if the time between two took the rest.
                let left = limit.saturating_sub(started.elapsed());
                settings.time_limit = Some(TimeSpan(left.max(Duration::from_secs(1))));
            }
            Some(self.launch_options(attempt, &settings, machines.clone(), devices.as_deref()))
        };
        let keep = Keep { last: NonZeroUsize::MIN, every_steps: None };
        let checkpoints = Checkpoints::open(&config.checkpoints.location, keep);
        let progress = || checkpoints.as_ref().ok()?.newest().ok()?;
        let options = SuperviseOptions {
            num_ranks: self.ranks,
            max_restarts: self.max_restarts,
            min_ranks,
            delay: Duration::from_secs(self.restart_delay),
        };
        let outcome = supervise(&options, &describe, &progress).map_err(Failure::broken)?;
        Ok(ExitCode::from(outcome.exit_code()))
    }

    /// Reads where this machine stands among others.
    fn machines(&self) -> Result<Option<Machines>, Failure> {
        let refused = |text: String| Err(Failure::refused(anyhow::anyhow!(text)));
        let number = self.nodes;
        match (number.get(), self.node_rank, &self.master_addr) {
            (1, None | Some(0), None) => Ok(None),
            (_, Some(this), _) if this >= number.get() => {
                refused(format!("`node-rank` is {this}, but `nodes` is {number}: it counts from 0"))
            }
            (_, Some(this), Some(first)) => {
                if self.max_restarts > 0 {
                    let rule = "launchers of several machines do not know of each other; let the cluster start them again";
                    return refused(format!(
                        "`max-restarts` is {}, but `nodes` is {number}: {rule}",
                        self.max_restarts
                    ));
                }
                let port = self.port.unwrap_or(DEFAULT_PORT);
                Ok(Some(Machines { number, this, first: first.clone(), port }))
            }
            _ => refused("`nodes`, `node-rank` and `master-addr` must be given together".to_owned()),
        }
    }

    fn launch_options(
        &self,
        attempt: Attempt<'_>,
        settings: &Settings,
        machines: Option<Machines>,
        devices: Option<&str>,
    ) -> LaunchOptions {
        let flags = std::iter::once("run".to_owned()).chain(RunOptions::flags(settings));
        LaunchOptions {
            num_ranks: attempt.num_ranks,
            machines,
            program: None,
            args: flags.map(OsString::from).collect(),
            threads: settings.threads,
            port: self.port,
            grace: Duration::from_secs(self.grace),
            num_restarts: attempt.num_restarts,
            visible_devices: devices_of(attempt.places, self.ranks.get(), devices),
        }
    }
}

/// Returns the GPUs of the places that ranks may still have, if that are not all. `visible` is what this process may see.
fn devices_of(places: &[usize], num_places: usize, visible: Option<&str>) -> Option<String> {
    if places.len() == num_places {
        return None;
    }
    let visible: Option<Vec<&str>> = visible.map(|list| list.split(',').collect());
    let device = |&place: &usize| match &visible {
        Some(list) => list.get(place).map(|device| (*device).to_owned()),
        None => Some(place.to_string()),
    };
    Some(places.iter().filter_map(device).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_is_left_out_takes_its_gpu_with_it() {
        assert_eq!(devices_of(&[0, 1], 2, None), None);
        assert_eq!(devices_of(&[0, 2], 3, None).as_deref(), Some("0,2"));
        assert_eq!(devices_of(&[0, 2], 3, Some("4,5,6,7")).as_deref(), Some("4,6"));
    }
}
