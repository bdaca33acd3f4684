//! Commands that several ranks can share.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use fastclip_torch_ext::set_num_threads;
use fastclip_trainer::config::DeviceChoice;
use fastclip_trainer::distributed::{Agreement, Communicator, ConnectOptions, Environment, connect};
use fastclip_trainer::launch::{LaunchOptions, launch};
use fastclip_trainer::progress::Progress;
use fastclip_trainer::run::RunError;
use tch::Device;
use tracing::Level;

use super::run::{device, variable};
use super::{Failure, log, version};

/// How long ranks wait for each other: a batch, not a run.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How many processes do the work.
#[derive(Debug, Args)]
pub(super) struct TogetherArgs {
    /// Processes of this machine that share the work; launchers (torchrun, Slurm, MPI) are understood, too [default: 1]
    #[arg(long, value_name = "N")]
    ranks: Option<NonZeroUsize>,
    /// Threads that each rank computes with on the CPU; results can differ in the last bit between numbers of threads [default: the rank's share of the machine]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// This process among those that share the work.
pub(super) struct Member {
    pub(super) comm: Box<dyn Communicator>,
    pub(super) device: Device,
    pub(super) progress: Progress,
}

impl TogetherArgs {
    /// Starts the ranks that were asked for and waits for them. Nothing if this process is one of them, or the only one.
    pub(super) fn launch(&self) -> Result<Option<ExitCode>, Failure> {
        let Some(num_ranks) = self.ranks.filter(|ranks| ranks.get() > 1) else { return Ok(None) };
        if variable("RANK").is_some() {
            return Ok(None);
        }
        let options = LaunchOptions {
            num_ranks,
            machines: None,
            program: None,
            args: std::env::args_os().skip(1).collect::<Vec<OsString>>(),
            threads: self.threads,
            port: None,
            grace: Duration::from_secs(10),
            num_restarts: 0,
            visible_devices: None,
        };
        let outcome = launch(&options).map_err(Failure::broken)?;
        Ok(Some(ExitCode::from(outcome.exit_code())))
    }

    /// Joins the other ranks; all must have been started with what `described` says.
    pub(super) fn join(&self, described: String) -> Result<Member, Failure> {
        let environment = Environment::detect(variable).map_err(Failure::refused)?;
        let progress = if environment.rank == 0 { Progress::on_terminal() } else { Progress::hidden() };
        log::start(&progress, Level::WARN, None).map_err(Failure::broken)?;
        if let Some(threads) = self.threads {
            set_num_threads(threads).map_err(Failure::broken)?;
        }
        let device = device(DeviceChoice::Auto, environment.local_rank)?;
        let agreement = Agreement { program: version::program(), configuration: described };
        let options = ConnectOptions { timeout: TIMEOUT, agreement, device };
        Ok(Member { comm: connect(&environment, &options)?, device, progress })
    }
}

impl Member {
    /// Does this rank's part; if it fails by itself, the others are told.
    pub(super) fn work<T>(
        &self,
        part: impl FnOnce(&dyn Communicator) -> Result<T, RunError>,
    ) -> Result<T, Failure> {
        let result = part(&*self.comm).inspect_err(|error| error.announce_to(&*self.comm));
        Ok(result?)
    }
}
