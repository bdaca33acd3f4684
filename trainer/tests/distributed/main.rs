//! Communicators between real processes, over Gloo on loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "workers talk to the test that started them")]

mod contract;
mod failures;
mod in_backward;
mod meeting;
#[path = "../processes/mod.rs"]
mod processes;

use std::env;
use std::error::Error;
use std::process::{Child, Command, Output};
use std::time::Duration;

use fastclip_testkit::free_port;
use fastclip_trainer::distributed::{
    Agreement, CommError, Communicator, ConnectOptions, Environment, connect,
};
use processes::{run_worker, worker_command, written};
use tch::{Device, Kind, Tensor};

/// Bounds what should never wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// For the tests in which the time-out is what happens. Ranks start further apart than one would think, and a twentieth of
/// it is how often they give signs of life.
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn worker() {
    run_worker(&[
        ("conforms", contract::conforms),
        ("meets", meeting::meets),
        ("differs", meeting::differs),
        ("dies", failures::dies),
        ("dies_in_backward", in_backward::dies_in_backward),
        ("freezes", failures::freezes),
        ("freezes_in_backward", in_backward::freezes_in_backward),
        ("stays_away", failures::stays_away),
        ("stays_in_backward", in_backward::stays_in_backward),
        ("leaves", failures::leaves),
        ("announces", failures::announces),
        ("panics", failures::panics),
    ]);
}

/// Returns a command that starts a worker as one rank.
pub(crate) fn rank_command(worker: &str, rank: usize, world_size: usize, port: u16) -> Command {
    let mut command = worker_command(worker);
    command
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", world_size.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string());
    command
}

pub(crate) fn start_rank(worker: &str, rank: usize, world_size: usize, port: u16) -> Child {
    rank_command(worker, rank, world_size, port).spawn().unwrap()
}

/// Waits for processes and returns what each wrote.
pub(crate) fn outputs(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

pub(crate) fn try_join(timeout: Duration, configuration: &str) -> Result<Box<dyn Communicator>, CommError> {
    let agreement = Agreement { configuration: configuration.to_owned(), ..Agreement::default() };
    let environment = Environment::detect(|name| env::var(name).ok()).unwrap();
    let options = ConnectOptions { timeout, agreement, device: Device::Cpu };
    connect(&environment, &options)
}

pub(crate) fn join(timeout: Duration) -> Box<dyn Communicator> {
    try_join(timeout, "same").unwrap()
}

/// Prints an error with all its causes behind a mark, for the test that started this worker.
pub(crate) fn tell(error: &CommError) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    println!("\ntold: {text}");
}

/// Returns what a worker told.
pub(crate) fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|line| line.strip_prefix("told: "));
    told.unwrap_or_else(|| panic!("told nothing, {}", written(output))).to_owned()
}

pub(crate) fn run(worker: &str, world_size: usize) -> Vec<Output> {
    let port = free_port();
    outputs((0..world_size).map(|rank| start_rank(worker, rank, world_size, port)).collect())
}

pub(crate) fn assert_success(outputs: &[Output]) {
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "rank {rank} of {}: {}", outputs.len(), written(output));
    }
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(&tensor.to_kind(Kind::Float).contiguous().reshape([-1])).unwrap()
}

pub(crate) fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(&tensor.contiguous().reshape([-1]).view_dtype(Kind::Uint8)).unwrap()
}

/// Values that differ between ranks and whose sums are exact.
pub(crate) fn values(rank: usize, shape: &[i64]) -> Tensor {
    let len = shape.iter().product::<i64>();
    (Tensor::arange(len, (Kind::Float, Device::Cpu)) + 1.0).reshape(shape) * (rank as f64 + 1.0)
}
