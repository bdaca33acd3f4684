//! Process groups between real processes, over Gloo on loopback.
//!
//! Each test starts this binary again, once per rank, with the name of a worker function in the environment: the only
//! test that such a process runs is `worker`, which calls that function.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::env;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fastclip_testkit::free_port;
use fastclip_torch_ext::{
    Backend, BucketEntry, Collective, FailureKind, GradientBuckets, GroupOptions, Listen, ProcessGroup,
    ReduceOp, StoreError, StoreOptions, TcpStore, silence_log,
};
use tch::{Device, Kind, Tensor};

/// Bounds every wait in a worker. Long, because nothing but a failure waits that long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// For the tests in which somebody does not come.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

type Worker = fn(&Rank);

const WORKERS: [(&str, Worker); 9] = [
    ("reduce", reduce),
    ("gather", gather),
    ("scatter", scatter),
    ("broadcast", broadcast),
    ("overlap", overlap),
    ("buckets", buckets),
    ("absent_from_buckets", absent_from_buckets),
    ("absent", absent),
    ("leave", leave),
];

/// One process of a test.
struct Rank {
    rank: usize,
    world_size: usize,
    store: TcpStore,
}

impl Rank {
    fn group(&self, timeout: Duration) -> ProcessGroup {
        // Processes may start further apart than a short time-out allows.
        self.come_to("group");
        self.wait_for_all("group");
        let options = GroupOptions {
            backend: Backend::Gloo(Listen::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            prefix: "test".to_owned(),
            rank: self.rank,
            world_size: self.world_size,
            timeout,
        };
        ProcessGroup::new(&self.store, &options).unwrap()
    }

    /// Says that this rank has come so far.
    fn come_to(&self, place: &str) {
        self.store.set(&format!("{place}/{}", self.rank), b"").unwrap();
    }

    /// Waits until all ranks have.
    fn wait_for_all(&self, place: &str) {
        let keys: Vec<String> = (0..self.world_size).map(|rank| format!("{place}/{rank}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.store.wait(&keys, TIMEOUT).unwrap();
    }

    /// The server leaves last: with it goes the store.
    fn finish(&self) {
        self.come_to("done");
        if self.rank == 0 {
            self.wait_for_all("done");
        }
    }
}

#[test]
fn worker() {
    let Ok(name) = env::var("FASTCLIP_TEST_WORKER") else { return };
    let number = |name: &str| env::var(name).unwrap().parse::<u16>().unwrap();
    let rank = usize::from(number("FASTCLIP_TEST_RANK"));
    let store = TcpStore::connect(&StoreOptions {
        host: "127.0.0.1".to_owned(),
        port: number("FASTCLIP_TEST_PORT"),
        is_server: rank == 0,
        timeout: TIMEOUT,
    })
    .unwrap();
    let rank = Rank { rank, world_size: usize::from(number("FASTCLIP_TEST_WORLD_SIZE")), store };
    let (_, body) = WORKERS.iter().find(|(known, _)| *known == name).unwrap();
    body(&rank);
}

fn start(worker: &str, rank: usize, world_size: usize, port: u16) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
        .env("FASTCLIP_TEST_WORKER", worker)
        .env("FASTCLIP_TEST_RANK", rank.to_string())
        .env("FASTCLIP_TEST_WORLD_SIZE", world_size.to_string())
        .env("FASTCLIP_TEST_PORT", port.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs one process per rank and shows what they wrote if one fails.
fn run(worker: &str, world_size: usize) {
    let port = free_port();
    let children: Vec<Child> = (0..world_size).map(|rank| start(worker, rank, world_size, port)).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for (rank, output) in outputs.iter().enumerate() {
        assert!(
            output.status.success(),
            "rank {rank} of {world_size} ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Floats that no two ranks share.
fn values(rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 + 1.0) * (rank as f32 + 1.0)).collect()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(&tensor.reshape([-1])).unwrap()
}

#[test]
fn a_reduction_is_that_of_all_ranks() {
    run("reduce", 2);
    run("reduce", 4);
}

fn reduce(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    let all: Vec<Vec<f32>> = (0..rank.world_size).map(|rank| values(rank, 1000)).collect();
    type Reduction = fn(f32, f32) -> f32;
    let reductions: [(ReduceOp, Reduction); 3] =
        [(ReduceOp::Sum, |a, b| a + b), (ReduceOp::Max, f32::max), (ReduceOp::Min, f32::min)];
    for (op, reduction) in reductions {
        let tensor = Tensor::from_slice(&all[rank.rank]);
        group.all_reduce(&tensor, op).unwrap().wait().unwrap();
        let expected: Vec<f32> =
            (0..1000).map(|i| all.iter().map(|values| values[i]).reduce(reduction).unwrap()).collect();
        assert_eq!(floats(&tensor), expected, "{op:?}");
    }
    for kind in [Kind::Int64, Kind::Int, Kind::Double, Kind::Uint8, Kind::BFloat16] {
        let tensor = Tensor::ones([3], (kind, Device::Cpu));
        group.all_reduce(&tensor, ReduceOp::Sum).unwrap().wait().unwrap();
        assert_eq!(floats(&tensor.to_kind(Kind::Float)), [rank.world_size as f32; 3], "{kind:?}");
    }
    group.barrier().unwrap().wait().unwrap();
    assert_eq!(group.sequence().last(), 9);
    rank.finish();
}

#[test]
fn gathered_tensors_lie_in_the_order_of_ranks() {
    run("gather", 3);
}

fn gather(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    let local = Tensor::from_slice(&values(rank.rank, 6)).reshape([2, 3]);
    let all = Tensor::zeros([2 * rank.world_size as i64, 3], (Kind::Float, Device::Cpu));
    group.all_gather_into(&all, &local).unwrap().wait().unwrap();
    let expected: Vec<f32> = (0..rank.world_size).flat_map(|rank| values(rank, 6)).collect();
    assert_eq!(floats(&all), expected);
    rank.finish();
}

#[test]
fn a_rank_gets_its_part_of_a_scattered_reduction() {
    run("scatter", 3);
}

fn scatter(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    let full = Tensor::from_slice(&values(rank.rank, 6)).reshape([3, 2]);
    let before = full.copy();
    let part = Tensor::zeros([1, 2], (Kind::Float, Device::Cpu));
    group.reduce_scatter_into(&part, &full, ReduceOp::Sum).unwrap().wait().unwrap();
    let row = rank.rank as f32 * 2.0;
    assert_eq!(floats(&part), [(row + 1.0) * 6.0, (row + 2.0) * 6.0]);
    assert_eq!(full, before, "the input is not written");
    rank.finish();
}

#[test]
fn a_broadcast_replaces_all_tensors_by_the_roots() {
    run("broadcast", 3);
}

fn broadcast(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    for root in 0..rank.world_size {
        let tensor = Tensor::from_slice(&values(rank.rank, 5));
        group.broadcast(&tensor, root).unwrap().wait().unwrap();
        assert_eq!(floats(&tensor), values(root, 5));
    }
    let error = group.broadcast(&Tensor::from_slice(&[1.0f32]), rank.world_size).unwrap_err();
    assert_eq!(error.kind, FailureKind::Refused, "{error:?}");
    rank.finish();
}

#[test]
fn collectives_can_run_side_by_side() {
    run("overlap", 2);
}

fn overlap(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    let tensors: Vec<Tensor> = (0..8).map(|_| Tensor::from_slice(&values(rank.rank, 100_000))).collect();
    let works: Vec<_> =
        tensors.iter().map(|tensor| group.all_reduce(tensor, ReduceOp::Sum).unwrap()).collect();
    for work in works {
        work.wait().unwrap();
    }
    for tensor in &tensors {
        assert_eq!(tensor, &tensors[0]);
        assert_eq!(tensor.double_value(&[0]), 3.0);
    }
    rank.finish();
}

/// Four leaves, and buckets for one each.
fn leaves_in_buckets() -> (Vec<Tensor>, GradientBuckets) {
    let leaf = |_| Tensor::zeros([1000], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let leaves: Vec<Tensor> = (0..4).map(leaf).collect();
    let entries: Vec<_> =
        leaves.iter().map(|parameter| BucketEntry { parameter, leaf: Some(parameter) }).collect();
    let buckets = GradientBuckets::new(&entries, NonZeroUsize::new(4000).unwrap()).unwrap();
    (leaves, buckets)
}

#[test]
fn buckets_leave_while_backward_runs_and_hold_the_sum_of_all_ranks() {
    run("buckets", 2);
    run("buckets", 3);
}

fn buckets(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    let (leaves, mut buckets) = leaves_in_buckets();
    let own = Tensor::from_slice(&values(rank.rank, 1000));
    for step in 1..3 {
        let before = group.sequence().last();
        let backward = |leaf: usize| (&leaves[leaf] * &own * leaf as f64).sum(Kind::Float).backward();
        buckets.clear();
        buckets
            .all_reduce_during(&group, || {
                backward(2);
                assert_eq!(group.sequence().last(), before, "buckets leave in their order");
                backward(3);
                assert_eq!(group.sequence().last(), before + 2, "full buckets leave at once");
                backward(1);
            })
            .unwrap();
        assert_eq!(group.sequence().last(), before + 4, "the rest leaves in the end");
        let num_ranks = rank.world_size as f32;
        for (leaf, gradient) in buckets.gradients().iter().enumerate() {
            let factor = leaf as f32 * num_ranks * (num_ranks + 1.0) / 2.0;
            let expected: Vec<f32> = values(0, 1000).iter().map(|value| value * factor).collect();
            assert_eq!(floats(gradient), expected, "leaf {leaf} in step {step}");
        }
        let largest: Vec<f32> =
            [3.0, 2.0, 1.0, 0.0].map(|leaf| leaf * 1000.0 * (rank.rank as f32 + 1.0)).into();
        assert_eq!(floats(buckets.largest()), largest, "of this rank alone");
    }
    rank.finish();
}

#[test]
fn a_bucket_that_a_rank_does_not_come_to_is_named() {
    run("absent_from_buckets", 3);
}

fn absent_from_buckets(rank: &Rank) {
    let group = rank.group(SHORT_TIMEOUT);
    let (leaves, mut buckets) = leaves_in_buckets();
    group.barrier().unwrap().wait().unwrap();
    if rank.rank != 2 {
        let loss = || leaves.iter().map(|leaf| leaf.sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
        let error = buckets.all_reduce_during(&group, || loss().backward()).unwrap_err();
        assert_eq!(error.collective, Collective::GradientBucket { index: 0, num_buckets: 4 });
        assert_eq!(error.sequence, 2);
        let start = format!("all_reduce of gradient bucket 1 of 4 (collective 2) on rank {} of 3", rank.rank);
        assert!(error.to_string().starts_with(&start), "{error}");
        let started = Instant::now();
        drop(group);
        assert!(
            started.elapsed() < 3 * SHORT_TIMEOUT,
            "three buckets in flight do not wait for a time-out each"
        );
    }
    rank.finish();
}

#[test]
fn a_collective_that_a_rank_skips_times_out_and_says_which() {
    run("absent", 3);
}

fn absent(rank: &Rank) {
    let group = rank.group(SHORT_TIMEOUT);
    let tensor = Tensor::from_slice(&values(rank.rank, 5));
    group.all_reduce(&tensor, ReduceOp::Sum).unwrap().wait().unwrap();
    if rank.rank != 2 {
        let error = group.all_reduce(&tensor, ReduceOp::Sum).unwrap().wait().unwrap_err();
        assert_eq!((error.rank, error.world_size), (rank.rank, 3));
        assert_eq!((error.collective, error.sequence), (Collective::AllReduce, 2));
        // Whoever times out first closes its connections, which is what the other may see.
        assert_ne!(error.kind, FailureKind::Refused, "{error:?}");
    }
    rank.finish();
}

#[test]
fn a_rank_that_leaves_is_seen_as_a_lost_connection() {
    run("leave", 2);
}

fn leave(rank: &Rank) {
    let group = rank.group(TIMEOUT);
    if rank.rank == 1 {
        drop(group);
    } else {
        let tensor = Tensor::from_slice(&values(rank.rank, 5));
        let error = group.all_reduce(&tensor, ReduceOp::Sum).and_then(|work| work.wait()).unwrap_err();
        assert_eq!(error.kind, FailureKind::ConnectionLost, "{error:?}");
        assert!(error.to_string().starts_with("all_reduce (collective 1) on rank 0 of 2 lost"), "{error}");
    }
    rank.finish();
}

fn local_store(port: u16, is_server: bool, timeout: Duration) -> Result<TcpStore, StoreError> {
    silence_log();
    TcpStore::connect(&StoreOptions { host: "127.0.0.1".to_owned(), port, is_server, timeout })
}

#[test]
fn a_store_keeps_what_was_set() {
    let server = local_store(0, true, TIMEOUT).unwrap();
    let client = local_store(server.port(), false, TIMEOUT).unwrap();
    server.set("key", b"value").unwrap();
    assert_eq!(client.get("key").unwrap(), b"value");
    assert!(client.check(&["key"]).unwrap());
    assert!(!client.check(&["key", "other"]).unwrap());
    assert_eq!(client.peek("other").unwrap(), None);
    client.set("empty", b"").unwrap();
    assert_eq!(server.peek("empty").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(client.add("count", 2).unwrap(), 2);
    assert_eq!(server.add("count", 3).unwrap(), 5);
}

#[test]
fn of_all_who_set_once_one_wins() {
    let server = local_store(0, true, TIMEOUT).unwrap();
    let client = local_store(server.port(), false, TIMEOUT).unwrap();
    assert_eq!(client.set_once("verdict", b"first").unwrap(), b"first");
    assert_eq!(server.set_once("verdict", b"second").unwrap(), b"first");
    assert_eq!(client.get("verdict").unwrap(), b"first");
}

#[test]
fn waiting_for_a_key_that_nobody_sets_times_out_and_names_it() {
    let server = local_store(0, true, TIMEOUT).unwrap();
    let error = server.wait(&["joined/3"], Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, StoreError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().starts_with("nobody set `joined/3` in the store at 127.0.0.1:"), "{error}");
    server.set("after", b"all").unwrap();
    assert_eq!(server.get("after").unwrap(), b"all");
}

#[test]
fn a_port_in_use_is_told_by_name() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = local_store(port, true, TIMEOUT).unwrap_err();
    assert!(matches!(error, StoreError::AddressInUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[test]
fn a_store_that_nobody_serves_is_unreachable_after_the_time_out() {
    let error = local_store(free_port(), false, Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
}

#[test]
fn a_store_whose_server_is_gone_is_lost() {
    let server = local_store(0, true, TIMEOUT).unwrap();
    let client = local_store(server.port(), false, TIMEOUT).unwrap();
    client.set("key", b"value").unwrap();
    drop(server);
    let error = client.get("key").unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
}
