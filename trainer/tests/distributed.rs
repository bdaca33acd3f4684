//! Communicators between real processes, over Gloo on loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "workers talk to the test that started them")]

mod processes;

use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use fastclip_torch_ext::{BucketEntry, GradientBuckets, StoreOptions, TcpStore};
use fastclip_trainer::distributed::{
    Alone, CommError, Communicator, ConnectOptions, Environment, Verdict, connect,
};
use processes::{run_worker, worker_command, written};
use rustix::process::{Signal, getpid, kill_process};
use tch::{Device, Kind, Tensor};

/// Bounds what should never wait.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For the tests in which the time-out is what happens.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

#[test]
fn worker() {
    run_worker(&[
        ("conforms", conforms),
        ("meets", meets),
        ("differs", differs),
        ("dies", dies),
        ("dies_in_backward", dies_in_backward),
        ("freezes", freezes),
        ("freezes_in_backward", freezes_in_backward),
        ("stays_away", stays_away),
        ("stays_in_backward", stays_in_backward),
        ("leaves", leaves),
        ("announces", announces),
        ("panics", panics),
    ]);
}

/// Returns a port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Returns a command that starts a worker as one rank.
fn rank_command(worker: &str, rank: usize, world_size: usize, port: u16) -> Command {
    let mut command = worker_command(worker);
    command
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", world_size.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string());
    command
}

fn start_rank(worker: &str, rank: usize, world_size: usize, port: u16) -> Child {
    rank_command(worker, rank, world_size, port).spawn().unwrap()
}

/// Waits for processes and returns what each wrote.
fn outputs(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn try_join(timeout: Duration, agreement: &str) -> Result<Box<dyn Communicator>, CommError> {
    let environment = Environment::detect(|name| env::var(name).ok()).unwrap();
    let options = ConnectOptions { timeout, agreement: agreement.to_owned(), device: Device::Cpu };
    connect(&environment, &options)
}

fn join(timeout: Duration) -> Box<dyn Communicator> {
    try_join(timeout, "same").unwrap()
}

/// Prints an error with all its causes behind a mark, for the test that started this worker.
fn tell(error: &CommError) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    println!("\ntold: {text}");
}

/// Returns what a worker told.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|line| line.strip_prefix("told: "));
    told.unwrap_or_else(|| panic!("told nothing, {}", written(output))).to_owned()
}

fn run(worker: &str, world_size: usize) -> Vec<Output> {
    let port = free_port();
    outputs((0..world_size).map(|rank| start_rank(worker, rank, world_size, port)).collect())
}

fn assert_success(outputs: &[Output]) {
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "rank {rank} of {}: {}", outputs.len(), written(output));
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(&tensor.to_kind(Kind::Float).contiguous().reshape([-1])).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(&tensor.contiguous().reshape([-1]).view_dtype(Kind::Uint8)).unwrap()
}

/// Values that differ between ranks and whose sums are exact.
fn values(rank: usize, shape: &[i64]) -> Tensor {
    let len = shape.iter().product::<i64>();
    (Tensor::arange(len, (Kind::Float, Device::Cpu)) + 1.0).reshape(shape) * (rank as f64 + 1.0)
}

// --- every implementation keeps the contract -----------------------------------------------------------------------

#[test]
fn a_world_of_one_keeps_the_contract() {
    check_contract(&Alone::new());
}

#[test]
fn groups_keep_the_contract() {
    for world_size in [2, 3, 4] {
        assert_success(&run("conforms", world_size));
    }
}

fn conforms() {
    check_contract(&*join(TIMEOUT));
}

/// The contract of [`Communicator`], sentence by sentence.
fn check_contract(comm: &dyn Communicator) {
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let ranks_sum = (1..=world_size).sum::<usize>() as f64;
    assert!(rank < world_size);

    // A sum replaces the tensor, whatever its layout and kind, and whether or not it is a parameter.
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Uint8] {
        let tensor = values(rank, &[2, 3]).to_kind(kind);
        comm.all_reduce_sum(&tensor).unwrap();
        assert_eq!(floats(&tensor), floats(&(values(0, &[2, 3]) * ranks_sum)), "{kind:?}");
    }
    let transposed = values(rank, &[2, 3]).transpose(0, 1);
    comm.all_reduce_sum(&transposed).unwrap();
    assert_eq!(floats(&transposed), floats(&(values(0, &[2, 3]).transpose(0, 1) * ranks_sum)));
    let param = values(rank, &[4]).set_requires_grad(true);
    comm.all_reduce_sum(&param).unwrap();
    assert!(param.requires_grad() && param.is_leaf());
    assert_eq!(floats(&param.detach()), floats(&(values(0, &[4]) * ranks_sum)));

    // Buckets hold the sum of all ranks after backward, and each is a collective of its own.
    let mut filled = Filled::new();
    let before = comm.counters();
    filled.reduce(comm, |_| {}).unwrap();
    for (leaf, gradient) in filled.buckets.gradients().iter().enumerate() {
        assert_eq!(floats(gradient), vec![leaf as f32 * ranks_sum as f32; NUM_VALUES as usize]);
    }
    let buckets = comm.counters().since(&before);
    assert_eq!(buckets.total().num_calls, NUM_LEAVES as u64);
    assert_eq!(buckets.all_reduce.num_calls, NUM_LEAVES as u64);

    // All ranks get the same bits, also of sums that are not exact.
    tch::manual_seed(rank as i64);
    let inexact = Tensor::randn([10_001], (Kind::Float, Device::Cpu));
    comm.all_reduce_sum(&inexact).unwrap();
    let all = comm.all_gather(&inexact).unwrap().reshape([world_size as i64, -1]);
    for other in 0..world_size as i64 {
        assert_eq!(bytes(&all.get(other)), bytes(&inexact), "rank {other}");
    }

    // Rows are gathered in the order of ranks, without gradient and in memory of their own.
    let local = values(rank, &[2, 3]).set_requires_grad(true);
    let all = comm.all_gather(&local).unwrap();
    assert_eq!(all.size(), [2 * world_size as i64, 3]);
    assert!(!all.requires_grad());
    for other in 0..world_size {
        let part = all.narrow(0, 2 * other as i64, 2);
        assert_eq!(floats(&part), floats(&values(other, &[2, 3])));
    }
    let _ = all.shallow_clone().zero_();
    assert_eq!(floats(&local.detach()), floats(&values(rank, &[2, 3])));
    let scalars = comm.all_gather(&Tensor::from(rank as i64)).unwrap();
    assert_eq!(Vec::<i64>::try_from(&scalars).unwrap(), (0..world_size as i64).collect::<Vec<_>>());
    let columns = comm.all_gather(&values(rank, &[3, 2]).transpose(0, 1)).unwrap();
    assert_eq!(floats(&columns.narrow(0, 0, 2)), floats(&values(0, &[3, 2]).transpose(0, 1)));

    // A broadcast replaces the tensor by the root's.
    for root in 0..world_size {
        let tensor = values(rank, &[5]);
        comm.broadcast(&tensor, root).unwrap();
        assert_eq!(floats(&tensor), floats(&values(root, &[5])));
    }

    // Tensors without elements pass through.
    let nothing = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu));
    comm.all_reduce_sum(&nothing).unwrap();
    assert_eq!(comm.all_gather(&nothing).unwrap().size(), [0, 3]);

    // What cannot work is refused before anybody waits.
    let error = comm.broadcast(&nothing, world_size).unwrap_err();
    assert!(matches!(error, CommError::Argument { collective: "broadcast", .. }), "{error:?}");

    // Calls are counted, refused ones are not.
    comm.barrier().unwrap();
    let counters = comm.counters();
    assert_eq!(counters.all_reduce.num_calls, 10 + NUM_LEAVES as u64);
    assert_eq!(counters.broadcast.num_calls, world_size as u64);
    assert_eq!(
        counters.broadcast.num_bytes,
        (world_size - 1) as u64 * 5 * 4,
        "nothing from this rank itself"
    );
    assert_eq!(counters.barrier.num_calls, 1);
    let others = counters.all_gather.num_calls + world_size as u64 + 1;
    assert_eq!(counters.total().num_calls, counters.all_reduce.num_calls + others);
}

const NUM_LEAVES: usize = 8;
const NUM_VALUES: i64 = 100_000;

/// Leaves with a bucket for each.
struct Filled {
    leaves: Vec<Tensor>,
    buckets: GradientBuckets,
}

impl Filled {
    fn new() -> Self {
        let leaf = |_| Tensor::zeros([NUM_VALUES], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let leaves: Vec<Tensor> = (0..NUM_LEAVES).map(leaf).collect();
        let entries: Vec<_> =
            leaves.iter().map(|parameter| BucketEntry { parameter, is_given: false }).collect();
        let buckets = GradientBuckets::new(&entries, NonZeroUsize::new(4).unwrap()).unwrap();
        Self { leaves, buckets }
    }

    /// Gives each leaf its number times that of the rank as gradient, the last leaf first; `before` is called with the
    /// number of buckets that have left.
    fn reduce(&mut self, comm: &dyn Communicator, before: impl Fn(usize)) -> Result<(), CommError> {
        let scale = (comm.rank() + 1) as f64;
        let Self { leaves, buckets } = self;
        comm.all_reduce_during(buckets, &mut || {
            for (num_left, (leaf, tensor)) in leaves.iter().enumerate().rev().enumerate() {
                before(num_left);
                (tensor.sum(Kind::Float) * (leaf as f64 * scale)).backward();
            }
        })
    }
}

#[test]
fn ranks_meet_in_a_store_of_the_launcher_and_again_after_a_restart() {
    let store = TcpStore::connect(&StoreOptions {
        host: "127.0.0.1".to_owned(),
        port: 0,
        is_server: true,
        timeout: TIMEOUT,
    })
    .unwrap();
    for attempt in ["0", "1"] {
        let children = (0..2).map(|rank| {
            rank_command("conforms", rank, 2, store.port())
                .env("TORCHELASTIC_USE_AGENT_STORE", "True")
                .env("TORCHELASTIC_RESTART_COUNT", attempt)
                .spawn()
                .unwrap()
        });
        assert_success(&outputs(children.collect()));
    }
}

#[test]
fn ranks_talk_over_the_interface_that_is_named() {
    let port = free_port();
    let children = (0..2)
        .map(|rank| rank_command("conforms", rank, 2, port).env("GLOO_SOCKET_IFNAME", "lo").spawn().unwrap());
    assert_success(&outputs(children.collect()));
}

// --- coming together -----------------------------------------------------------------------------------------------

fn meets() {
    let start = Instant::now();
    if let Err(error) = try_join(SHORT_TIMEOUT, "same") {
        println!("\nseconds: {}", start.elapsed().as_secs_f32());
        tell(&error);
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_by_all_others() {
    let port = free_port();
    let children = [0, 2, 3].map(|rank| start_rank("meets", rank, 5, port));
    for output in outputs(children.into()) {
        let told = told(&output);
        let expected = format!("ranks 1, 4 did not come to 127.0.0.1:{port} within 5 s; the world size is 5");
        assert_eq!(told, expected, "{}", written(&output));
    }
}

#[test]
fn rank_zero_is_named_when_it_does_not_come() {
    let port = free_port();
    let outputs = outputs(vec![start_rank("meets", 1, 2, port)]);
    let told = told(&outputs[0]);
    assert!(told.starts_with(&format!("rank 0 did not come to 127.0.0.1:{port} within 5 s")), "{told}");
}

#[test]
fn a_port_in_use_is_told_at_once_with_its_address() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let output = &outputs(vec![start_rank("meets", 0, 2, port)])[0];
    let expected =
        format!("could not serve the meeting of ranks at 127.0.0.1:{port}, because the port is in use");
    assert_eq!(told(output), expected);
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text.lines().find_map(|line| line.strip_prefix("seconds: ")).unwrap();
    assert!(seconds.parse::<f32>().unwrap() < SHORT_TIMEOUT.as_secs_f32(), "{seconds}");
}

#[test]
fn libtorch_does_not_bury_our_message_under_its_own() {
    let outputs = outputs(vec![start_rank("meets", 1, 2, free_port())]);
    let stderr = String::from_utf8_lossy(&outputs[0].stderr);
    assert!(!stderr.contains("frame #"), "{stderr}");
}

fn differs() {
    let rank = env::var("RANK").unwrap();
    let agreement = if rank == "1" { "config 77" } else { "config 42" };
    tell(&try_join(TIMEOUT, agreement).map(drop).unwrap_err());
}

#[test]
fn a_rank_started_with_other_settings_is_named_with_both_values() {
    let port = free_port();
    let children: Vec<_> = (0..3).map(|rank| start_rank("differs", rank, 3, port)).collect();
    let pid = children[1].id();
    for output in outputs(children) {
        let told = told(&output);
        assert!(told.starts_with(&format!("rank 1 (process {pid} on ")), "{told}");
        assert!(told.ends_with("has the configuration `config 77`, rank 0 has `config 42`"), "{told}");
    }
}

#[test]
fn ranks_that_disagree_about_their_number_say_so() {
    let port = free_port();
    let outputs = outputs(vec![start_rank("meets", 0, 2, port), start_rank("meets", 2, 3, port)]);
    for output in outputs {
        let told = told(&output);
        assert!(told.starts_with("rank 2 (process "), "{told}");
        assert!(told.ends_with("has the world size `3`, rank 0 has `2`"), "{told}");
    }
}

#[test]
fn two_processes_cannot_be_the_same_rank() {
    let port = free_port();
    let children = vec![
        start_rank("meets", 0, 3, port),
        start_rank("meets", 1, 3, port),
        start_rank("meets", 1, 3, port),
    ];
    let pids = [children[1].id(), children[2].id()];
    let told: Vec<String> = outputs(children).iter().map(told).collect();
    let taken = |pid: u32| {
        move |text: &&String| {
            text.starts_with(&format!("rank 1 (process {pid} on ")) && text.contains("has come to 127.0.0.1:")
        }
    };
    let num_taken = pids.iter().filter_map(|pid| told[1..].iter().find(taken(*pid))).count();
    assert_eq!(num_taken, 1, "{told:#?}");
}

// --- falling apart -------------------------------------------------------------------------------------------------

/// Runs collectives until one fails, and checks that it blames the rank that it should.
fn reduce_until_failure(comm: &dyn Communicator, culprit: usize) {
    let start = Instant::now();
    let tensor = Tensor::ones([1000], (Kind::Float, Device::Cpu));
    let error = loop {
        if let Err(error) = comm.all_reduce_sum(&tensor) {
            break error;
        }
        assert!(start.elapsed() < TIMEOUT, "the culprit does nothing");
    };
    assert!(start.elapsed() < TIMEOUT, "{error}");
    tell(&error);
    assert_eq!(error.ranks(), [culprit], "{error:?}");
}

/// Asserts that all ranks but `culprit` ended well and told the same, and returns what.
fn told_by_others(outputs: &[Output], culprit: usize) -> String {
    let others: Vec<&Output> =
        outputs.iter().enumerate().filter(|(rank, _)| *rank != culprit).map(|(_, output)| output).collect();
    for output in &others {
        assert!(output.status.success(), "{}", written(output));
        assert!(told(output).contains("all_reduce"), "{}", told(output));
        assert!(told(output).contains("(collective "), "{}", told(output));
    }
    told(others[0])
}

fn dies() {
    let comm = join(TIMEOUT);
    let culprit: usize = env::var("CULPRIT").unwrap().parse().unwrap();
    comm.barrier().unwrap();
    if comm.rank() == culprit {
        kill_itself();
    }
    reduce_until_failure(&*comm, culprit);
}

fn run_with_culprit(worker: &str, world_size: usize, culprit: usize) -> (Vec<Output>, u32) {
    let port = free_port();
    let children: Vec<_> = (0..world_size)
        .map(|rank| {
            rank_command(worker, rank, world_size, port).env("CULPRIT", culprit.to_string()).spawn().unwrap()
        })
        .collect();
    let pid = children[culprit].id();
    (outputs(children), pid)
}

#[test]
fn a_killed_rank_ends_all_others_and_is_named() {
    let (outputs, pid) = run_with_culprit("dies", 4, 2);
    let told = told_by_others(&outputs, 2);
    assert!(told.starts_with(&format!("rank 2 (process {pid} on ")), "{told}");
    assert!(told.contains("gave no more signs of life: all_reduce (collective 2) on rank 0 of 4"), "{told}");
}

#[test]
fn a_killed_rank_zero_is_named_although_the_store_went_with_it() {
    let (outputs, pid) = run_with_culprit("dies", 3, 0);
    let told = told_by_others(&outputs, 0);
    assert!(told.starts_with(&format!("rank 0 (process {pid} on ")), "{told}");
    assert!(told.contains("is gone, and with it the store at 127.0.0.1:"), "{told}");
}

/// Reduces buckets, in which the culprit does something after half of them have left, and checks that the others blame it.
fn fail_in_backward(comm: Box<dyn Communicator>, timeout: Duration, culprit: usize, act: fn()) {
    let mut filled = Filled::new();
    comm.barrier().unwrap();
    let start = Instant::now();
    let is_culprit = comm.rank() == culprit;
    let result = filled.reduce(&*comm, |num_left| {
        if is_culprit && num_left == NUM_LEAVES / 2 {
            act();
        }
    });
    let error = result.unwrap_err();
    tell(&error);
    assert_eq!(error.ranks(), [culprit], "{error:?}");
    drop(comm);
    // The time-out, the quarter more that a verdict takes, and what a busy machine adds: the buckets behind the one that
    // failed must not add a time-out each.
    assert!(start.elapsed() < timeout * 2, "{error}");
}

fn kill_itself() {
    kill_process(getpid(), Signal::KILL).unwrap();
    thread::sleep(TIMEOUT);
}

fn dies_in_backward() {
    let culprit: usize = env::var("CULPRIT").unwrap().parse().unwrap();
    // Nobody waits for a time-out here, so that half of one bounds it well.
    fail_in_backward(join(TIMEOUT), TIMEOUT / 4, culprit, kill_itself);
}

#[test]
fn a_rank_killed_in_backward_ends_all_others_and_is_named() {
    let (outputs, pid) = run_with_culprit("dies_in_backward", 4, 2);
    let told = told_by_others(&outputs, 2);
    assert!(told.starts_with(&format!("rank 2 (process {pid} on ")), "{told}");
    assert!(told.contains("gave no more signs of life: all_reduce of gradient bucket "), "{told}");
    assert!(told.contains(" of 8 (collective "), "{told}");
}

#[test]
fn a_rank_zero_killed_in_backward_is_named_although_the_store_went_with_it() {
    let (outputs, pid) = run_with_culprit("dies_in_backward", 3, 0);
    let told = told_by_others(&outputs, 0);
    assert!(told.starts_with(&format!("rank 0 (process {pid} on ")), "{told}");
}

/// Tells its process and stands still, watch and all, until the test kills it.
fn freezes() {
    let comm = join(SHORT_TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        stop_itself();
    } else {
        reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn a_frozen_rank_is_named_after_the_time_out() {
    let told = told_of_rank_one("freezes");
    assert!(told.contains("gave no more signs of life"), "{told}");
}

fn stop_itself() {
    kill_process(getpid(), Signal::STOP).unwrap();
    // The signal may stop another thread first: this one must not go on in the meantime.
    thread::sleep(TIMEOUT);
}

fn freezes_in_backward() {
    fail_in_backward(join(SHORT_TIMEOUT), SHORT_TIMEOUT, 1, stop_itself);
}

fn stays_in_backward() {
    fail_in_backward(join(SHORT_TIMEOUT), SHORT_TIMEOUT, 1, || thread::sleep(TIMEOUT));
}

/// Starts three ranks and ends rank 1 when the others have; returns what those told.
fn told_of_rank_one(worker: &str) -> String {
    let port = free_port();
    let mut children: Vec<_> = (0..3).map(|rank| start_rank(worker, rank, 3, port)).collect();
    let mut culprit = children.remove(1);
    let others = outputs(children);
    culprit.kill().unwrap();
    let culprit = outputs(vec![culprit]).remove(0);
    told_by_others(&[&others[..1], &[culprit], &others[1..]].concat(), 1)
}

#[test]
fn a_rank_frozen_in_backward_is_named_after_the_time_out() {
    let told = told_of_rank_one("freezes_in_backward");
    // Which bucket depends on how far those that had left came before all threads stood still.
    assert!(told.contains("gave no more signs of life: all_reduce of gradient bucket "), "{told}");
}

#[test]
fn a_rank_that_does_not_come_out_of_backward_is_named_with_the_bucket() {
    let told = told_of_rank_one("stays_in_backward");
    assert!(told.contains("did not come to all_reduce of gradient bucket 5 of 8 (collective 6)"), "{told}");
}

/// Lives, but does not come to the collective; leaves when the others are done.
fn stays_away() {
    let comm = join(SHORT_TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        // Longer than the others take to agree; ended by the test as soon as they have.
        thread::sleep(TIMEOUT);
    } else {
        reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn a_rank_that_lives_but_stays_away_is_named_with_the_collective() {
    let told = told_of_rank_one("stays_away");
    assert!(told.contains("did not come to all_reduce (collective 2)"), "{told}");
}

fn leaves() {
    let comm = join(TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() != 1 {
        reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn a_rank_that_leaves_early_is_told_from_a_dead_one() {
    let told = told_by_others(&run("leaves", 3), 1);
    assert!(told.contains("had already left the run"), "{told}");
}

fn announces() {
    let comm = join(TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        comm.announce_failure("shard `00003.tar` ends in the middle of a sample");
    } else {
        reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn the_cause_that_a_rank_announces_reaches_all_others() {
    let told = told_by_others(&run("announces", 3), 1);
    assert!(told.contains("failed: shard `00003.tar` ends in the middle of a sample: all_reduce"), "{told}");
}

fn panics() {
    let comm = join(TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        panic!("for the test");
    }
    reduce_until_failure(&*comm, 1);
}

#[test]
fn a_rank_that_panics_is_named() {
    let told = told_by_others(&run("panics", 2), 1);
    assert!(told.contains("failed: it panicked"), "{told}");
}

#[test]
fn a_verdict_names_its_ranks() {
    assert_eq!(Verdict::Missing { ranks: vec![1, 4] }.ranks(), [1, 4]);
    assert!(Verdict::Unknown.ranks().is_empty());
}
