use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Finished;
use crate::process::shown;

/// How often a process is asked whether it has ended: the standard library can wait for one, but not until a
/// deadline.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Ports that Linux, as it comes, gives to nobody who does not ask for them by number: below those of clients and of
/// listeners without a wish, and below those that ranks of Slurm get by default.
const PORTS: Range<u16> = 10_000..15_000;

/// Ports that one test may want before it wants those of the next process.
const PORTS_PER_PROCESS: u32 = 64;

/// A port of this machine that nobody listens on, nor, most likely, will in the seconds until it is used: a test that runs
/// meanwhile is given others, unless very many processes lie between the two.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    static NUM_GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    let mut ports = PORTS.map(|_| {
        let number = first.wrapping_add(NUM_GIVEN.fetch_add(1, Ordering::Relaxed));
        PORTS.start + (number % PORTS.len() as u32) as u16
    });
    ports.find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()).expect("a port is free")
}

/// Describes processes that find one another: one program, started once for each rank.
#[derive(Debug)]
pub struct Ranks {
    world_size: usize,
    port: u16,
    deadline: Duration,
    left_out: Vec<usize>,
}

impl Ranks {
    /// So many ranks on a free port, with ten minutes for everything: on a busy machine a process may take one to start.
    pub fn new(world_size: usize) -> Self {
        Self { world_size, port: free_port(), deadline: Duration::from_secs(600), left_out: Vec::new() }
    }

    /// Lets rank 0 listen on this port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Longest time from the start to the end of the last rank. Whoever waits beyond it panics.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Does not start this rank, though the others are told that it exists.
    #[must_use]
    pub fn without(mut self, rank: usize) -> Self {
        self.left_out.push(rank);
        self
    }

    /// Starts the processes; `command` makes the command of a rank.
    ///
    /// Each gets `RANK`, `LOCAL_RANK`, `WORLD_SIZE`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, as
    /// torchrun would set them.
    ///
    /// # Panics
    /// If one cannot be started.
    pub fn start(self, command: impl Fn(usize) -> Command) -> RunningRanks {
        let started = Instant::now();
        let ranks = (0..self.world_size).filter(|rank| !self.left_out.contains(rank));
        let processes = ranks.map(|rank| {
            let mut command = command(rank);
            command
                .env("RANK", rank.to_string())
                .env("LOCAL_RANK", rank.to_string())
                .env("WORLD_SIZE", self.world_size.to_string())
                .env("LOCAL_WORLD_SIZE", self.world_size.to_string())
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", self.port.to_string());
            Process::start(rank, command)
        });
        RunningRanks { processes: processes.collect(), ends: started + self.deadline }
    }
}

/// Processes that run together. Dropping this kills those that still run.
#[derive(Debug)]
pub struct RunningRanks {
    processes: Vec<Process>,
    ends: Instant,
}

impl RunningRanks {
    /// Kills a rank at once, as `kill -9` does.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn kill(&mut self, rank: usize) {
        let process = self.processes.iter_mut().find(|process| process.rank == rank);
        process.expect("the rank was started").kill();
    }

    /// Sends a rank a signal by its name, as in `TERM`.
    ///
    /// # Panics
    /// If there is no such rank, or the signal cannot be sent.
    pub fn signal(&self, rank: usize, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id(rank).to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "could not send {name} to rank {rank}");
    }

    /// The process of a rank.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn id(&self, rank: usize) -> u32 {
        let process = self.processes.iter().find(|process| process.rank == rank);
        process.expect("the rank was started").child.id()
    }

    /// Kills all ranks at once.
    pub fn kill_all(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }

    /// Waits until `is_there` says yes, asking again and again while the processes run.
    ///
    /// # Panics
    /// If the deadline passes or all processes end first, with what they printed.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut is_there: impl FnMut() -> bool) {
        while !is_there() {
            let is_running = self.processes.iter_mut().any(|process| !process.has_ended());
            if is_running && Instant::now() < self.ends {
                thread::sleep(POLL_INTERVAL);
                continue;
            }
            // It may have come between the two questions.
            if is_there() {
                return;
            }
            let reason = if is_running { "the deadline passed" } else { "all ranks ended" };
            panic!("{reason} before {what}\n{}", self.report());
        }
    }

    /// Waits until a rank has printed a line to either of its outputs that `is_it` accepts, and returns the
    /// line.
    ///
    /// # Panics
    /// As [`wait_until`](Self::wait_until), and if there is no such rank.
    #[track_caller]
    pub fn wait_for_line(&mut self, rank: usize, is_it: impl Fn(&str) -> bool) -> String {
        let process = self.processes.iter().find(|process| process.rank == rank);
        let output = Arc::clone(&process.expect("the rank was started").output);
        let mut found = None;
        self.wait_until(&format!("rank {rank} printed the line"), || {
            let text = output.lines();
            found =
                text.stdout.lines().chain(text.stderr.lines()).find(|line| is_it(line)).map(str::to_owned);
            found.is_some()
        });
        found.expect("the wait ends with a line")
    }

    /// Waits for all ranks to end, and returns how they did, in the order of ranks.
    ///
    /// # Panics
    /// If one still runs at the deadline, with what all printed.
    #[track_caller]
    pub fn wait(mut self) -> Vec<Finished> {
        for i in 0..self.processes.len() {
            while !self.processes[i].has_ended() {
                if Instant::now() >= self.ends {
                    let rank = self.processes[i].rank;
                    panic!("rank {rank} still runs at the deadline\n{}", self.report());
                }
                thread::sleep(POLL_INTERVAL);
            }
        }
        self.processes.iter_mut().map(Process::finish).collect()
    }

    fn report(&mut self) -> String {
        self.kill_all();
        let mut text = String::new();
        for process in &mut self.processes {
            let finished = process.finish();
            writeln!(text, "=== rank {}: {finished}", process.rank).expect("text in memory takes every line");
        }
        text
    }
}

#[derive(Debug)]
struct Process {
    rank: usize,
    command: String,
    child: Child,
    output: Arc<Collected>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(rank: usize, mut command: Command) -> Self {
        let shown = shown(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("could not start `{shown}`: {error}"),
        };
        let output = Arc::new(Collected::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let readers = vec![
            collect(&output, stdout.expect("it was piped"), |text| &mut text.stdout),
            collect(&output, stderr.expect("it was piped"), |text| &mut text.stderr),
        ];
        Self { rank, command: shown, child, output, readers }
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for the end of the process and of its outputs.
    fn finish(&mut self) -> Finished {
        let status = self.child.wait().expect("a child can be waited for");
        for reader in self.readers.drain(..) {
            reader.join().expect("readers do not panic");
        }
        let text = self.output.lines();
        Finished {
            command: self.command.clone(),
            status,
            stdout: text.stdout.clone(),
            stderr: text.stderr.clone(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // Without this it would stay a zombie until the test ends.
        let _ = self.child.wait();
    }
}

/// What a process has printed so far.
#[derive(Debug, Default)]
struct Collected(Mutex<Text>);

#[derive(Debug, Default)]
struct Text {
    stdout: String,
    stderr: String,
}

impl Collected {
    fn lines(&self) -> MutexGuard<'_, Text> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

fn collect(
    output: &Arc<Collected>,
    pipe: impl Read + Send + 'static,
    which: fn(&mut Text) -> &mut String,
) -> JoinHandle<()> {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // A pipe that breaks ends as one that was closed: the exit status tells the rest.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|num_bytes| num_bytes > 0) {
            which(&mut output.lines()).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn ranks_know_who_they_are_and_where_to_meet() {
        let script = "echo $RANK of $WORLD_SIZE at $MASTER_ADDR; exit $RANK";
        let finished = Ranks::new(3).start(|_| shell(script)).wait();
        for (rank, one) in finished.into_iter().enumerate() {
            assert_eq!(one.stdout, format!("{rank} of 3 at 127.0.0.1\n"));
            assert_eq!(one.status.code(), Some(rank as i32));
        }
    }

    #[test]
    fn a_killed_rank_has_no_exit_code_and_the_others_go_on() {
        let mut ranks = Ranks::new(2).start(|rank| match rank {
            0 => shell("echo ready; exec sleep 600"),
            _ => shell("echo done"),
        });
        ranks.wait_for_line(0, |line| line == "ready");
        ranks.kill(0);
        let finished = ranks.wait();
        assert_eq!(finished[0].status.code(), None);
        assert_eq!((finished[1].status.code(), finished[1].stdout.as_str()), (Some(0), "done\n"));
    }

    #[test]
    #[should_panic(expected = "all ranks ended before rank 0 printed the line")]
    fn waiting_for_a_line_that_never_comes_ends_with_the_ranks() {
        Ranks::new(1).start(|_| shell("echo other")).wait_for_line(0, |line| line == "ready");
    }

    #[test]
    fn a_rank_can_be_left_out() {
        let finished = Ranks::new(2).without(0).start(|_| shell("echo $RANK")).wait();
        assert_eq!(finished.len(), 1);
        assert_eq!(finished[0].stdout, "1\n");
    }
}
