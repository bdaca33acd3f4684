//! Processes of a run.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1};

use super::{LaunchError, LaunchOptions, STOPPED};
use crate::distributed::{LAUNCHER_PID_VARIABLE, RESTARTS_VARIABLE};

/// Exit code of a rank for which something broke: another one, for example.
const BROKEN: i32 = 2;

/// Returns how many threads each rank should compute with.
fn threads_per_rank(num_ranks: NonZeroUsize) -> NonZeroUsize {
    let num_cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(num_cores / num_ranks).unwrap_or(NonZeroUsize::MIN)
}

/// Where the ranks of this machine stand among all.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) first_rank: usize,
    pub(super) world_size: usize,
}

/// The processes of a run. Dropping them kills those that still run.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    running: Vec<(usize, Child)>,
    printers: Vec<JoinHandle<()>>,
    first_failure: Option<(usize, ExitStatus)>,
    has_stopped: bool,
}

impl Ranks {
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn first_failure(&self) -> Option<(usize, ExitStatus)> {
        self.first_failure
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    pub(super) fn start(
        &mut self,
        program: &Path,
        options: &LaunchOptions,
        place: &Place,
        local_rank: usize,
    ) -> Result<(), LaunchError> {
        let rank = place.first_rank + local_rank;
        let threads = options.threads.unwrap_or_else(|| threads_per_rank(options.num_ranks));
        let mut command = Command::new(program);
        command
            .args(&options.args)
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", local_rank.to_string())
            .env("WORLD_SIZE", place.world_size.to_string())
            .env("LOCAL_WORLD_SIZE", options.num_ranks.to_string())
            .env("MASTER_ADDR", &place.host)
            .env("MASTER_PORT", place.port.to_string())
            .env(LAUNCHER_PID_VARIABLE, std::process::id().to_string())
            .env(RESTARTS_VARIABLE, options.num_restarts.to_string())
            // Left over from a launcher around this one, it would describe its ranks.
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::null())
            // A group of its own, so that the terminal's interrupt reaches the launcher alone, which passes it on: a rank
            // that got it twice would take the second for impatience.
            .process_group(0);
        if let Some(devices) = &options.visible_devices {
            command.env("CUDA_VISIBLE_DEVICES", devices);
        }
        if local_rank > 0 {
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
    pub(super) fn collect(&mut self) -> io::Result<()> {
        let mut failed = Vec::new();
        let mut i = 0;
        while i < self.running.len() {
            let (rank, child) = &mut self.running[i];
            match child.try_wait()? {
                Some(status) => {
                    if status.code() == Some(STOPPED.into()) {
                        self.has_stopped = true;
                    } else if !status.success() {
                        failed.push((*rank, status));
                    }
                    self.running.remove(i);
                }
                None => i += 1,
            }
        }
        if let (None, Some((rank, status))) = (self.first_failure, culprit(failed)) {
            print(rank, format!("ended with {status}").as_bytes());
            self.first_failure = Some((rank, status));
        }
        Ok(())
    }

    pub(super) fn pass_on(&self, signal: i32) {
        let signal = match signal {
            SIGINT => Signal::INT,
            SIGHUP => Signal::HUP,
            SIGUSR1 => Signal::USR1,
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

    pub(super) fn kill(&mut self) {
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

/// Returns who began, of ranks that were found to have failed at the same time. The others of a rank that was killed, or
/// that refuses its input, end because of it, and a rank that does so says that something broke.
fn culprit(failed: Vec<(usize, ExitStatus)>) -> Option<(usize, ExitStatus)> {
    failed.into_iter().min_by_key(|(_, status)| match status.code() {
        None => 0,
        Some(code) if code != BROKEN => 1,
        Some(_) => 2,
    })
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
    print_from(&format!("rank {rank}"), line);
}

/// Says something as the launcher.
pub(super) fn announce(text: &str) {
    print_from("launch", text.as_bytes());
}

fn print_from(who: &str, line: &[u8]) {
    let mut text = format!("[{who}] ").into_bytes();
    text.extend_from_slice(line);
    text.push(b'\n');
    // Nothing is left to complain to if the error stream is closed.
    let _ = io::stderr().lock().write_all(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ranks_that_failed_at_once_a_killed_one_is_blamed() {
        use std::os::unix::process::ExitStatusExt;

        let of = |ranks: &[(usize, i32)]| {
            let failed = ranks.iter().map(|&(rank, status)| (rank, ExitStatus::from_raw(status)));
            culprit(failed.collect()).map(|(rank, _)| rank)
        };
        let (broken, refused, killed) = (2 << 8, 1 << 8, 9);
        assert_eq!(of(&[(0, broken), (1, killed), (2, broken)]), Some(1));
        assert_eq!(of(&[(0, broken), (2, refused)]), Some(2));
        assert_eq!(of(&[(1, broken), (2, broken)]), Some(1));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn cores_are_shared_out_and_nobody_gets_none() {
        let many = NonZeroUsize::new(10_000).unwrap();
        assert_eq!(threads_per_rank(many), NonZeroUsize::MIN);
        let all = thread::available_parallelism().unwrap();
        assert_eq!(threads_per_rank(NonZeroUsize::MIN), all);
    }
}
