//! `train run`: this process is one rank, or the only one.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use fastclip_torch_ext::CudaDevice;
use fastclip_trainer::config::{ConfigError, DeviceChoice, Machine, RunConfig, RunOptions};
use fastclip_trainer::distributed::{Agreement, ConnectOptions, Environment, connect};
use fastclip_trainer::gradients::Stop;
use fastclip_trainer::launch::STOPPED;
use fastclip_trainer::metrics::serve_prometheus;
use fastclip_trainer::progress::Progress;
use fastclip_trainer::run::{self, LOG_FILE, Outcome, Surroundings};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use tch::{Cuda, Device};
use tracing::Level;

use super::{Failure, log, print, version};

/// Trains as one process: alone, or as one rank of a launcher (torchrun, Slurm, MPI, Kubernetes)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) options: SharedArgs,
}

/// What `run` and `launch` have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct SharedArgs {
    /// TOML file with settings; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Prints the resolved settings as TOML and ends
    #[arg(long)]
    pub(super) print_config: bool,
    #[command(flatten)]
    pub(super) options: RunOptions,
}

const EXAMPLES: &str = "\
Examples:
  train run --config configs/demo.toml
  train run --train-data data/train --val-data data/held-out --model toy --batch-size 128 --epochs 10
  train run --config configs/demo.toml --lr 1e-3 --print-config
  torchrun --no-python --nproc-per-node 2 -- train run --config configs/demo.toml

Every setting can also stand in the file of --config: `batch_size = 128` for `--batch-size 128`.";

impl SharedArgs {
    /// Reads the file and lays the flags over it.
    pub(super) fn layered(self) -> Result<RunOptions, ConfigError> {
        let file = self.config.as_deref().map(RunOptions::read).transpose()?;
        Ok(self.options.over(file.unwrap_or_default()))
    }
}

/// Returns the processors that each of `num_ranks` on this machine may use.
pub(super) fn machine(num_ranks: usize) -> Machine {
    let own = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    share(num_ranks, own, None)
}

/// Shares processors out: those of this process, or where the launcher may have given it its own already, `of_all` ranks.
fn share(num_ranks: usize, own: usize, of_all: Option<usize>) -> Machine {
    let share = NonZeroUsize::new(own.min(of_all.unwrap_or(own) / num_ranks.max(1)));
    Machine { processors_per_rank: share.unwrap_or(NonZeroUsize::MIN) }
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Finds where this rank computes: on the GPU with the number of the rank on its machine, or on the only one that it sees.
pub(super) fn device(choice: DeviceChoice, local_rank: usize) -> Result<Device, Failure> {
    match choice {
        DeviceChoice::Cpu => return Ok(Device::Cpu),
        DeviceChoice::Auto if !Cuda::is_available() => return Ok(Device::Cpu),
        _ => {}
    }
    // Schedulers may show each rank its own GPU only.
    let index = if Cuda::device_count() == 1 { 0 } else { local_rank };
    match CudaDevice::describe(index) {
        Ok(found) => {
            tracing::info!("computing on GPU {index}: {found}");
            Ok(Device::Cuda(index))
        }
        Err(error) => Err(Failure::refused(
            anyhow::Error::new(error).context("`device` is cuda, but this process cannot use a GPU"),
        )),
    }
}

/// What can end a session: SIGINT, SIGTERM, SIGUSR1 and the time limit. The second SIGINT or SIGTERM ends the process at
/// once, for those who cannot wait for the step.
struct Ends {
    received: Arc<AtomicUsize>,
    started: Instant,
    time_limit: Option<Duration>,
}

impl Ends {
    /// Begins to listen; the time limit counts from `started`.
    fn watch(started: Instant, time_limit: Option<Duration>) -> std::io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            let has_come = Arc::new(AtomicBool::new(false));
            // In this order: the first signal finds the flag down and raises it, the second finds it up.
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&has_come))?;
            signal_hook::flag::register(signal, has_come)?;
            signal_hook::flag::register_usize(signal, Arc::clone(&received), signal as usize)?;
        }
        // A scheduler may repeat its warning.
        signal_hook::flag::register_usize(SIGUSR1, Arc::clone(&received), SIGUSR1 as usize)?;
        Ok(Self { received, started, time_limit })
    }

    fn stop(&self) -> Option<Stop> {
        match i32::try_from(self.received.load(Ordering::Relaxed)) {
            Ok(SIGINT) => Some(Stop::Interrupt),
            Ok(SIGTERM) => Some(Stop::Terminate),
            Ok(SIGUSR1) => Some(Stop::Warning),
            _ => self.time_limit.filter(|&limit| self.started.elapsed() >= limit).map(|_| Stop::TimeLimit),
        }
    }
}

impl RunArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let started = Instant::now();
        let environment = Environment::detect(variable).map_err(Failure::refused)?;
        let Environment { num_local_ranks, num_local_processors, .. } = environment;
        let own = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let print_config = self.options.print_config;
        let config =
            RunConfig::resolve(self.options.layered()?, share(num_local_ranks, own, num_local_processors))?;
        if print_config {
            return print(&config.to_toml());
        }
        let is_first = environment.rank == 0;
        let progress = if is_first { Progress::on_terminal() } else { Progress::hidden() };
        start_log(&config, &progress, is_first)?;
        let device = device(config.settings.device, environment.local_rank)?;
        if let Some(address) = config.settings.prometheus {
            serve_figures(address, &environment)?;
        }
        let time_limit = config.settings.time_limit.map(|limit| limit.0);
        let ends = Ends::watch(started, time_limit).map_err(Failure::broken)?;

        let options = ConnectOptions { timeout: config.timeout(), agreement: agreement(&config), device };
        let comm = connect(&environment, &options)?;
        let around = Surroundings {
            comm: &*comm,
            device,
            progress,
            stop: &|| ends.stop(),
            is_restart: environment.num_restarts > 0,
            command: command(),
            version: version::program(),
        };
        let outcome = run::run(&config, &around)?;
        Ok(report(&config, &outcome, is_first))
    }
}

/// Further ranks of a machine take the ports after the first.
fn serve_figures(mut address: SocketAddr, environment: &Environment) -> Result<(), Failure> {
    if address.port() != 0 {
        let port =
            u16::try_from(environment.local_rank).ok().and_then(|rank| address.port().checked_add(rank));
        let none_left =
            || anyhow::anyhow!("there are not enough ports after `prometheus` = {address} for all ranks");
        let port = port.ok_or_else(|| Failure::refused(none_left()))?;
        address.set_port(port);
    }
    let address = serve_prometheus(address, environment.rank).map_err(|error| {
        let context = format!("could not serve figures for Prometheus at {address}");
        Failure::refused(anyhow::Error::new(error).context(context))
    })?;
    tracing::info!("figures for Prometheus are at http://{address}/metrics");
    Ok(())
}

fn start_log(config: &RunConfig, progress: &Progress, is_first: bool) -> Result<(), Failure> {
    let file = config.run_dir.join(LOG_FILE);
    let failed = |error| {
        let context = format!("could not write the log `{}`", file.display());
        Failure::broken(anyhow::Error::new(error).context(context))
    };
    if is_first {
        std::fs::create_dir_all(&config.run_dir).map_err(failed)?;
    }
    let level = if is_first { Level::INFO } else { Level::WARN };
    log::start(progress, level, is_first.then_some(&*file)).map_err(failed)
}

fn agreement(config: &RunConfig) -> Agreement {
    Agreement { program: version::program(), configuration: config.in_common() }
}

fn command() -> String {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ")
}

fn report(config: &RunConfig, outcome: &Outcome, is_first: bool) -> ExitCode {
    let folder = config.run_dir.display();
    match outcome {
        Outcome::Finished { summary } => {
            tracing::info!("the run is complete, its results are in {folder}");
            if let Some(summary) = summary {
                let text = serde_json::to_string(summary).unwrap_or_default();
                tracing::info!("{text}");
            }
            ExitCode::SUCCESS
        }
        Outcome::AlreadyFinished => {
            tracing::info!("the run in {folder} was complete already, nothing was done");
            ExitCode::SUCCESS
        }
        Outcome::Stopped { stop, steps, checkpoint, goes_back } => {
            if is_first {
                let reason = match stop {
                    Some(Stop::Interrupt) => "SIGINT",
                    Some(Stop::Terminate) => "SIGTERM",
                    Some(Stop::Warning) => "SIGUSR1",
                    Some(Stop::TimeLimit) => "--time-limit",
                    None => "--stop-after",
                };
                let command = match goes_back {
                    true => "the same command without `--resume`",
                    false => "the same command",
                };
                tracing::warn!(
                    "stopped after step {steps}, as {reason} asked; {command} continues from {checkpoint}"
                );
            }
            ExitCode::from(STOPPED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement_of(options: RunOptions) -> Agreement {
        let options = RunOptions { train_data: Some("data/train".to_owned()), ..options };
        agreement(&RunConfig::resolve(options, machine(1)).unwrap())
    }

    #[test]
    fn ranks_with_other_settings_do_not_agree() {
        let expected = agreement_of(RunOptions::default());
        // Settings that may change between sessions of a run, but not between its ranks.
        let two = NonZeroUsize::new(2);
        for other in [
            RunOptions { bucket_mib: two, ..RunOptions::default() },
            RunOptions { accum_freq: two, ..RunOptions::default() },
            RunOptions { lr: Some(0.25), ..RunOptions::default() },
        ] {
            assert_ne!(agreement_of(other), expected);
        }
        assert_eq!(agreement_of(RunOptions::default()), expected);
        // Machines may differ.
        assert_eq!(agreement_of(RunOptions { threads: two, ..RunOptions::default() }), expected);
    }

    #[test]
    fn ranks_share_the_processors_that_the_launcher_has_not_shared_out() {
        let threads = |num_ranks, own, of_all| share(num_ranks, own, of_all).processors_per_rank.get();
        assert_eq!(threads(4, 16, None), 4);
        assert_eq!(threads(32, 16, None), 1);
        assert_eq!(threads(8, 8, Some(64)), 8, "bound to its own");
        assert_eq!(threads(8, 64, Some(64)), 8, "not bound");
    }
}
