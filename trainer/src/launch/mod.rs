//! Several ranks on this machine, from one command.
//!
//! `train launch --ranks N -- …` starts the program N times with the variables that torchrun would set, so that the ranks
//! cannot tell the difference. What it adds to a shell loop is the end: if one rank fails the others are ended too, a
//! signal reaches all of them once, and none outlives the launcher. [`supervise`] starts them again, from their last
//! checkpoint.

mod ranks;
mod supervisor;

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use self::ranks::{Place, Ranks};

pub use self::supervisor::{Attempt, SuperviseOptions, supervise};

/// Exit code of a rank that ended before its run did, because it was asked to, after a checkpoint: that of `sysexits.h`
/// for who should try again. It is no failure.
pub const STOPPED: u8 = 75;

/// How often the launcher looks who has ended. Polling, because waiting for a process and sending it a signal from
/// different threads can hit a stranger that got its number.
const POLL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// Number of processes on this machine.
    pub num_ranks: NonZeroUsize,
    /// The other machines, if there are any.
    pub machines: Option<Machines>,
    /// The program; that of this process if none is given.
    pub program: Option<PathBuf>,
    /// Its arguments, the same for all ranks.
    pub args: Vec<OsString>,
    /// Threads that each rank computes with; its share of the cores if none are given.
    pub threads: Option<NonZeroUsize>,
    /// Port on which the ranks meet; a free one if none is given.
    pub port: Option<u16>,
    /// Time between asking ranks to end and ending them.
    pub grace: Duration,
    /// How often the ranks were started before.
    pub num_restarts: u64,
    /// GPUs that the ranks may see, in the form of `CUDA_VISIBLE_DEVICES`; those of this process if none are given.
    pub visible_devices: Option<String>,
}

/// The machines of a run, each with a launcher of as many ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machines {
    /// How many.
    pub number: NonZeroUsize,
    /// Which of them this is, from 0.
    pub this: usize,
    /// Name or address of the first, where ranks meet.
    pub first: String,
    /// Port on it.
    pub port: u16,
}

/// Ranks that could not be started or followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The port was given, and something listens on it.
    #[error("could not let the ranks meet on port {port} of this machine")]
    Port {
        /// The port; 0 if any would have done.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The program could not be started; ranks that were started before have been ended.
    #[error("could not start rank {rank} of `{}`", program.display())]
    Start {
        /// The rank.
        rank: usize,
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused to tell about signals, processes or this program.
    #[error("could not follow the ranks")]
    Follow {
        /// What the system said.
        source: io::Error,
    },
}

/// How the ranks ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchOutcome {
    /// The first rank that did not end well, and how it ended.
    pub first_failure: Option<(usize, ExitStatus)>,
    /// Whether a rank stopped before its run was complete.
    pub has_stopped: bool,
    /// Whether this process was asked to end, and passed that on.
    pub was_asked_to_end: bool,
}

impl LaunchOutcome {
    /// Returns the exit code of the first failing rank, [`STOPPED`] if none failed and one stopped, else 0; a rank that a
    /// signal ended counts like in a shell, 128 and the number of the signal.
    pub fn exit_code(&self) -> u8 {
        let Some((_, status)) = self.first_failure else {
            return if self.has_stopped { STOPPED } else { 0 };
        };
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }
}

/// Starts the ranks and returns when all have ended.
///
/// The first rank of a machine writes to this process's output and error streams as they are; every line of the others goes to the error stream
/// behind `[rank N] `. How many threads to compute with is told to the ranks by `OMP_NUM_THREADS`. When a rank fails, the
/// others get a SIGTERM, and a SIGKILL after the time of grace. SIGINT, SIGTERM, SIGHUP and SIGUSR1 of this process are
/// passed on, once each time they come; ranks that are still there after the time of grace are killed.
///
/// # Threads
///
/// The thread that calls this must live as long as the ranks: they end with it.
///
/// # Errors
///
/// When the ranks cannot be started or followed; none is left then.
pub fn launch(options: &LaunchOptions) -> Result<LaunchOutcome, LaunchError> {
    launch_with(options, &mut listen()?)
}

/// Begins to take signals. Before the first rank starts: a signal that comes in between must find somebody who passes it
/// on.
fn listen() -> Result<Signals, LaunchError> {
    Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1]).map_err(|source| LaunchError::Follow { source })
}

fn launch_with(options: &LaunchOptions, signals: &mut Signals) -> Result<LaunchOutcome, LaunchError> {
    let follow = |source| LaunchError::Follow { source };
    let program = match &options.program {
        Some(program) => program.clone(),
        None => env::current_exe().map_err(follow)?,
    };
    let place = match &options.machines {
        Some(machines) => Place {
            host: machines.first.clone(),
            port: machines.port,
            first_rank: machines.this * options.num_ranks.get(),
            world_size: machines.number.get() * options.num_ranks.get(),
        },
        None => Place {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: free_port(options.port)?,
            first_rank: 0,
            world_size: options.num_ranks.get(),
        },
    };
    let mut ranks = Ranks::default();
    for local_rank in 0..options.num_ranks.get() {
        ranks.start(&program, options, &place, local_rank)?;
    }

    let mut end_by: Option<Instant> = None;
    let mut was_asked_to_end = false;
    while !ranks.is_empty() {
        for signal in signals.pending() {
            was_asked_to_end = true;
            ranks.pass_on(signal);
            end_by.get_or_insert_with(|| Instant::now() + options.grace);
        }
        ranks.collect().map_err(follow)?;
        if ranks.first_failure().is_some() && end_by.is_none() {
            ranks.pass_on(SIGTERM);
            end_by = Some(Instant::now() + options.grace);
        }
        if end_by.is_some_and(|end_by| Instant::now() >= end_by) {
            ranks.kill();
        }
        thread::sleep(POLL);
    }
    Ok(LaunchOutcome {
        first_failure: ranks.first_failure(),
        has_stopped: ranks.has_stopped(),
        was_asked_to_end,
    })
}

/// Ends this process when the launcher ends, however that happens.
///
/// # Errors
///
/// Fails if the launcher has ended already.
pub fn follow(launcher_pid: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that ended before the call above sent no signal, and another process took its place.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
    if parent.and_then(|parent| u32::try_from(parent).ok()) == Some(launcher_pid) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "it has ended"))
    }
}

/// Returns `port` if it is free, or any free port. It can be taken before rank 0 does; rank 0 then says so.
fn free_port(port: Option<u16>) -> Result<u16, LaunchError> {
    let port = port.unwrap_or(0);
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| LaunchError::Port { port, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_port_in_use_is_refused_by_number() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = free_port(Some(port)).unwrap_err();
        assert_eq!(error.to_string(), format!("could not let the ranks meet on port {port} of this machine"));
    }

    #[test]
    fn exit_codes_are_those_of_the_first_failing_rank() {
        let well = LaunchOutcome { first_failure: None, has_stopped: false, was_asked_to_end: false };
        let outcome = |status| LaunchOutcome {
            first_failure: Some((1, ExitStatus::from_raw(status))),
            has_stopped: true,
            ..well
        };
        assert_eq!(well.exit_code(), 0);
        assert_eq!(LaunchOutcome { has_stopped: true, ..well }.exit_code(), STOPPED);
        assert_eq!(outcome(2 << 8).exit_code(), 2);
        assert_eq!(outcome(9).exit_code(), 137);
    }
}
