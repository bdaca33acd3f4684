//! Starts a test binary again as the processes of a run.
//!
//! A test names a worker, a function of its own file; the processes run the one test `worker`, which finds the name in the
//! environment and calls the function. That keeps both sides of a test in one file, without binaries that only tests need.

use std::env;
use std::process::{Command, Output, Stdio};

/// Variable that holds the name of the worker.
pub(crate) const WORKER: &str = "FASTCLIP_TEST_WORKER";

/// Runs the worker that the environment names, if it names one.
pub(crate) fn run_worker(workers: &[(&str, fn())]) {
    if let Ok(name) = env::var(WORKER) {
        let (_, worker) = workers.iter().find(|(known, _)| *known == name).unwrap();
        worker();
    }
}

/// Arguments with which a test binary runs the test `worker` alone.
pub(crate) const WORKER_ARGS: [&str; 4] = ["--exact", "worker", "--nocapture", "--test-threads=1"];

/// Returns a command that starts this binary as a worker, with its output kept.
pub(crate) fn worker_command(worker: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(WORKER_ARGS)
        .env(WORKER, worker)
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Returns what a process wrote, for messages of failed tests.
pub(crate) fn written(output: &Output) -> String {
    format!(
        "ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
