//! Several ranks on this machine, from one command.
//!
//! `train launch --ranks N -- …` starts the program N times with the variables that torchrun would set, so that the ranks
//! cannot tell the difference. What it adds to a shell loop is the end: if one rank fails the others are ended too, a
//! signal reaches all of them once, and none outlives the launcher.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::distributed::LAUNCHER_PID_VARIABLE;

/// How often the launcher looks who has ended. Polling, because waiting for a process and sending it a signal from
/// different threads can hit a stranger that got its number.
const POLL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// Number of processes.
    pub num_ranks: NonZeroUsize,
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
}

impl LaunchOutcome {
    /// Returns the exit code of the first failing rank, 0 if there is none; a rank that a signal ended counts like in a
    /// shell, 128 and the number of the signal.
    pub fn exit_code(&self) -> u8 {
        let Some((_, status)) = self.first_failure else { return 0 };
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }
}

/// Starts the ranks and returns when all have ended.
///
/// Rank 0 writes to this process's output and error streams as they are; every line of the others goes to the error stream
/// behind `[rank N] `. How many threads to compute with is told to the ranks by `OMP_NUM_THREADS`. When a rank fails, the others get a SIGTERM, and a SIGKILL after the time of grace. An interrupt or a SIGTERM of this process is
/// passed on, once each time it comes; ranks that are still there after the time of grace are killed.
///
/// # Threads
///
/// The thread that calls this must live as long as the ranks: they end with it.
pub fn launch(options: &LaunchOptions) -> Result<LaunchOutcome, LaunchError> {
    let follow = |source| LaunchError::Follow { source };
    let program = match &options.program {
        Some(program) => program.clone(),
        None => env::current_exe().map_err(follow)?,
    };
    let port = free_port(options.port)?;
    // Before the first rank starts: a signal that comes in between must find somebody who passes it on.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(follow)?;
    let mut ranks = Ranks { running: Vec::new(), printers: Vec::new(), first_failure: None };
    for rank in 0..options.num_ranks.get() {
        ranks.start(&program, options, rank, port)?;
    }

    let mut end_by: Option<Instant> = None;
    while !ranks.running.is_empty() {
        for signal in signals.pending() {
            ranks.pass_on(signal);
            end_by.get_or_insert_with(|| Instant::now() + options.grace);
        }
        ranks.collect().map_err(follow)?;
        if ranks.first_failure.is_some() && end_by.is_none() {
            ranks.pass_on(SIGTERM);
            end_by = Some(Instant::now() + options.grace);
        }
        if end_by.is_some_and(|end_by| Instant::now() >= end_by) {
            ranks.kill();
        }
        thread::sleep(POLL);
    }
    Ok(LaunchOutcome { first_failure: ranks.first_failure })
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

/// Returns how many threads each rank should compute with.
fn threads_per_rank(num_ranks: NonZeroUsize) -> NonZeroUsize {
    let num_cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(num_cores / num_ranks).unwrap_or(NonZeroUsize::MIN)
}

/// The processes of a run. Dropping them kills those that still run.
struct Ranks {
    running: Vec<(usize, Child)>,
    printers: Vec<JoinHandle<()>>,
    first_failure: Option<(usize, ExitStatus)>,
}

impl Ranks {
    fn start(
        &mut self,
        program: &Path,
        options: &LaunchOptions,
        rank: usize,
        port: u16,
    ) -> Result<(), LaunchError> {
        let threads = options.threads.unwrap_or_else(|| threads_per_rank(options.num_ranks));
        let mut command = Command::new(program);
        command
            .args(&options.args)
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", options.num_ranks.to_string())
            .env("LOCAL_WORLD_SIZE", options.num_ranks.to_string())
            .env("MASTER_ADDR", Ipv4Addr::LOCALHOST.to_string())
            .env("MASTER_PORT", port.to_string())
            .env(LAUNCHER_PID_VARIABLE, std::process::id().to_string())
            // Left over from a launcher around this one, they would describe its ranks.
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .env_remove("TORCHELASTIC_RESTART_COUNT")
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::null())
            // A group of its own, so that the terminal's interrupt reaches the launcher alone, which passes it on: a rank
            // that got it twice would take the second for impatience.
            .process_group(0);
        if rank > 0 {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|source| LaunchError::Start {
            rank,
            program: program.to_owned(),
            source,
        })?;
        if let Some(stdout) = child.stdout.take() {
            self.printers.push(thread::spawn(move || print_lines(rank, stdout)));
        }
        if let Some(stderr) = child.stderr.take() {
            self.printers.push(thread::spawn(move || print_lines(rank, stderr)));
        }
        self.running.push((rank, child));
        Ok(())
    }

    /// Notes who has ended.
    fn collect(&mut self) -> io::Result<()> {
        let mut i = 0;
        while i < self.running.len() {
            let (rank, child) = &mut self.running[i];
            match child.try_wait()? {
                Some(status) => {
                    if !status.success() && self.first_failure.is_none() {
                        print(*rank, format!("ended with {status}").as_bytes());
                        self.first_failure = Some((*rank, status));
                    }
                    self.running.remove(i);
                }
                None => i += 1,
            }
        }
        Ok(())
    }

    fn pass_on(&self, signal: i32) {
        let signal = match signal {
            SIGINT => Signal::INT,
            SIGHUP => Signal::HUP,
            _ => Signal::TERM,
        };
        for (_, child) in &self.running {
            // Not collected yet, so that its number still is its own. If it has just ended, nothing happens.
            if let Ok(pid) = i32::try_from(child.id())
                && let Some(pid) = Pid::from_raw(pid)
            {
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn kill(&mut self) {
        for (_, child) in &mut self.running {
            // Fails only for a process that has ended.
            let _ = child.kill();
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.kill();
        for (_, child) in &mut self.running {
            let _ = child.wait();
        }
        for printer in self.printers.drain(..) {
            let _ = printer.join();
        }
    }
}

/// Copies lines to the error stream, each behind the rank it came from.
fn print_lines(rank: usize, stream: impl Read) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        print(rank, line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
}

/// Writes one line at once, so that lines of different ranks do not mix.
fn print(rank: usize, line: &[u8]) {
    let mut text = format!("[rank {rank}] ").into_bytes();
    text.extend_from_slice(line);
    text.push(b'\n');
    // Nothing is left to complain to if the error stream is closed.
    let _ = io::stderr().lock().write_all(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_out_and_nobody_gets_none() {
        let many = NonZeroUsize::new(10_000).unwrap();
        assert_eq!(threads_per_rank(many), NonZeroUsize::MIN);
        let all = thread::available_parallelism().unwrap();
        assert_eq!(threads_per_rank(NonZeroUsize::MIN), all);
    }

    #[test]
    fn a_given_port_in_use_is_refused_by_number() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = free_port(Some(port)).unwrap_err();
        assert_eq!(error.to_string(), format!("could not let the ranks meet on port {port} of this machine"));
    }

    #[test]
    fn exit_codes_are_those_of_the_first_failing_rank() {
        let outcome = |status| LaunchOutcome { first_failure: Some((1, ExitStatus::from_raw(status))) };
        assert_eq!(LaunchOutcome { first_failure: None }.exit_code(), 0);
        assert_eq!(outcome(2 << 8).exit_code(), 2);
        assert_eq!(outcome(9).exit_code(), 137);
    }
}
