//! The launcher of local ranks, as a process of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "workers talk to the test that started them")]

mod processes;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::process::{Child, Output};
use std::thread;
use std::time::{Duration, Instant};

use fastclip_trainer::distributed::{Agreement, Communicator, ConnectOptions, Environment, connect};
use fastclip_trainer::launch::{LaunchOptions, launch};
use processes::{WORKER, WORKER_ARGS, run_worker, worker_command, written};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tch::{Device, Kind, Tensor};

/// Bounds waiting for what should come at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bounds the start of a rank, which a busy machine makes slow.
const START_PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn worker() {
    run_worker(&[
        ("launcher", launcher),
        ("sums", sums),
        ("shows_variables", shows_variables),
        ("fails", fails),
        ("waits", waits),
        ("ignores", ignores),
    ]);
}

/// Launches the worker that `RANK_WORKER` names and ends as the launcher says.
fn launcher() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    // The ranks are workers too: they must not find the name of this one.
    let args: Vec<OsString> = WORKER_ARGS.iter().map(OsString::from).collect();
    let program = env::current_exe().unwrap();
    let mut wrapped = vec![OsString::from(format!("{WORKER}={}", env::var("RANK_WORKER").unwrap()))];
    wrapped.push(program.into());
    wrapped.extend(args);
    let outcome = launch(&LaunchOptions {
        num_ranks: NonZeroUsize::new(number("NUM_RANKS").unwrap()).unwrap(),
        // `env` sets the variable and becomes the program, in the same process.
        program: Some("/usr/bin/env".into()),
        args: wrapped,
        threads: number("THREADS").and_then(NonZeroUsize::new),
        port: None,
        grace: Duration::from_secs(number("GRACE").unwrap_or(60) as u64),
        machines: None,
        num_restarts: 0,
        visible_devices: None,
    })
    .unwrap();
    std::process::exit(outcome.exit_code().into());
}

fn start(rank_worker: &str, num_ranks: usize, variables: &[(&str, &str)]) -> Child {
    worker_command("launcher")
        .env_remove("OMP_NUM_THREADS")
        .env("RANK_WORKER", rank_worker)
        .env("NUM_RANKS", num_ranks.to_string())
        .envs(variables.iter().copied())
        .spawn()
        .unwrap()
}

fn run(rank_worker: &str, num_ranks: usize, variables: &[(&str, &str)]) -> Output {
    start(rank_worker, num_ranks, variables).wait_with_output().unwrap()
}

/// Returns what the workers said, without what the test harness around them writes.
fn said(output: &Output) -> (Vec<String>, Vec<String>) {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().filter(|line| line.contains("says")).map(str::to_owned).collect()
    };
    (lines(&output.stdout), lines(&output.stderr))
}

fn sums() {
    let environment = Environment::detect(|name| env::var(name).ok()).unwrap();
    let options = ConnectOptions { timeout: PATIENCE, agreement: Agreement::default(), device: Device::Cpu };
    let comm: Box<dyn Communicator> = connect(&environment, &options).unwrap();
    let tensor = Tensor::ones([1], (Kind::Float, Device::Cpu));
    comm.all_reduce_sum(&tensor).unwrap();
    println!("\nrank {} says {}", comm.rank(), tensor.double_value(&[0]));
}

#[test]
fn launched_ranks_work_together_and_lines_tell_who_wrote_them() {
    let output = run("sums", 3, &[]);
    assert!(output.status.success(), "{}", written(&output));
    let (stdout, mut stderr) = said(&output);
    stderr.sort();
    assert_eq!(stdout, ["rank 0 says 3"]);
    assert_eq!(stderr, ["[rank 1] rank 1 says 3", "[rank 2] rank 2 says 3"]);
}

#[test]
fn one_launched_rank_is_a_world_of_one() {
    let output = run("sums", 1, &[]);
    assert!(output.status.success(), "{}", written(&output));
    assert_eq!(said(&output).0, ["rank 0 says 1"]);
}

fn shows_variables() {
    let get = |name: &str| env::var(name).unwrap_or_default();
    println!("\nsays {}/{} {}", get("RANK"), get("WORLD_SIZE"), get("OMP_NUM_THREADS"));
}

#[test]
fn threads_are_those_that_were_asked_for() {
    let output = run("shows_variables", 2, &[("THREADS", "3")]);
    let (stdout, stderr) = said(&output);
    assert_eq!(stdout, ["says 0/2 3"], "{}", written(&output));
    assert_eq!(stderr, ["[rank 1] says 1/2 3"], "{}", written(&output));
}

fn fails() {
    if env::var("RANK").unwrap() == "1" {
        std::process::exit(7);
    }
    thread::sleep(2 * PATIENCE);
}

#[test]
fn a_failing_rank_ends_the_others_and_gives_its_exit_code() {
    let start = Instant::now();
    let output = run("fails", 3, &[]);
    assert_eq!(output.status.code(), Some(7), "{}", written(&output));
    assert!(start.elapsed() < PATIENCE, "the others were waited for");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("[rank 1] ended with exit status: 7"), "{stderr}");
}

/// Says its process on a line and waits to be ended.
fn waits() {
    let environment = Environment::detect(|name| env::var(name).ok()).unwrap();
    let options = ConnectOptions { timeout: PATIENCE, agreement: Agreement::default(), device: Device::Cpu };
    let _comm = connect(&environment, &options).unwrap();
    println!("\nsays {}", std::process::id());
    thread::sleep(2 * PATIENCE);
}

/// Reads the process numbers that `num` workers say, from both streams of their launcher.
fn pids(launcher: &mut Child, num: usize) -> Vec<Pid> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let streams: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(launcher.stdout.take().unwrap()), Box::new(launcher.stderr.take().unwrap())];
    for stream in streams {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let Some((_, pid)) = line.split_once("says ") {
                    let _ = sender.send(pid.trim().parse::<i32>().unwrap());
                }
            }
        });
    }
    (0..num).map(|_| Pid::from_raw(receiver.recv_timeout(START_PATIENCE).unwrap()).unwrap()).collect()
}

/// Whether a process runs; one that has ended but was not collected does not.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().chars().next());
    test_kill_process(pid).is_ok() && !matches!(state.flatten(), Some('Z' | 'X') | None)
}

fn wait_until_gone(pids: &[Pid]) {
    let start = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(start.elapsed() < PATIENCE, "still there: {pids:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn no_rank_outlives_a_killed_launcher() {
    let mut launcher = start("waits", 3, &[]);
    let pids = pids(&mut launcher, 3);
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    wait_until_gone(&pids);
}

#[test]
fn a_signal_is_passed_on_to_all_ranks() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut launcher = start("waits", 2, &[]);
        let pids = pids(&mut launcher, 2);
        kill_process(Pid::from_child(&launcher), signal).unwrap();
        let status = launcher.wait().unwrap();
        assert_eq!(status.code(), Some(128 + signal.as_raw()), "{status}");
        wait_until_gone(&pids);
    }
}

/// Like `waits`, but does not end when it is asked to.
fn ignores() {
    let _ignored = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).unwrap();
    waits();
}

#[test]
fn a_rank_that_does_not_end_when_asked_is_killed_after_the_time_of_grace() {
    let mut launcher = start("ignores", 2, &[("GRACE", "1")]);
    let pids = pids(&mut launcher, 2);
    kill_process(Pid::from_child(&launcher), Signal::TERM).unwrap();
    assert_eq!(launcher.wait().unwrap().code(), Some(128 + 9));
    wait_until_gone(&pids);
}
