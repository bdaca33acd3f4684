//! Ranks that fall apart.

use std::env;
use std::process::Output;
use std::thread;
use std::time::Instant;

use fastclip_testkit::free_port;
use fastclip_trainer::distributed::{CommError, Communicator, Verdict};
use rustix::process::{Signal, getpid, kill_process};
use tch::{Device, Kind, Tensor};

use crate::processes::written;
use crate::{SHORT_TIMEOUT, TIMEOUT, join, outputs, rank_command, run, start_rank, tell, told};

/// Runs collectives until one fails, and checks that it blames the rank that it should.
fn reduce_until_failure(comm: &dyn Communicator, culprit: usize) -> CommError {
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
    error
}

/// Asserts that all ranks but `culprit` ended well and told the same, and returns what.
pub(crate) fn told_by_others(outputs: &[Output], culprit: usize) -> String {
    let others: Vec<&Output> =
        outputs.iter().enumerate().filter(|(rank, _)| *rank != culprit).map(|(_, output)| output).collect();
    for output in &others {
        assert!(output.status.success(), "{}", written(output));
        assert!(told(output).contains("all_reduce"), "{}", told(output));
        assert!(told(output).contains("(collective "), "{}", told(output));
    }
    told(others[0])
}

pub(crate) fn dies() {
    let comm = join(TIMEOUT);
    let culprit: usize = env::var("CULPRIT").unwrap().parse().unwrap();
    comm.barrier().unwrap();
    if comm.rank() == culprit {
        kill_itself();
    }
    let _ = reduce_until_failure(&*comm, culprit);
}

pub(crate) fn run_with_culprit(worker: &str, world_size: usize, culprit: usize) -> (Vec<Output>, u32) {
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

pub(crate) fn kill_itself() {
    kill_process(getpid(), Signal::KILL).unwrap();
    thread::sleep(TIMEOUT);
}

/// Tells its process and stands still, watch and all, until the test kills it.
pub(crate) fn freezes() {
    let comm = join(SHORT_TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        stop_itself();
    } else {
        let _ = reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn a_frozen_rank_is_named_after_the_time_out() {
    let told = told_of_rank_one("freezes");
    assert!(told.contains("gave no more signs of life"), "{told}");
}

pub(crate) fn stop_itself() {
    kill_process(getpid(), Signal::STOP).unwrap();
    // The signal may stop another thread first: this one must not go on in the meantime.
    thread::sleep(TIMEOUT);
}

/// Starts three ranks and ends rank 1 when the others have; returns what those told.
pub(crate) fn told_of_rank_one(worker: &str) -> String {
    let port = free_port();
    let mut children: Vec<_> = (0..3).map(|rank| start_rank(worker, rank, 3, port)).collect();
    let mut culprit = children.remove(1);
    let others = outputs(children);
    culprit.kill().unwrap();
    let culprit = outputs(vec![culprit]).remove(0);
    told_by_others(&[&others[..1], &[culprit], &others[1..]].concat(), 1)
}

/// Lives, but does not come to the collective; leaves when the others are done.
pub(crate) fn stays_away() {
    let comm = join(SHORT_TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        // Longer than the others take to agree; ended by the test as soon as they have.
        thread::sleep(TIMEOUT);
    } else {
        let _ = reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn a_rank_that_lives_but_stays_away_is_named_with_the_collective() {
    let told = told_of_rank_one("stays_away");
    assert!(told.contains("did not come to all_reduce (collective 2)"), "{told}");
}

pub(crate) fn leaves() {
    let comm = join(TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() != 1 {
        let _ = reduce_until_failure(&*comm, 1);
    }
}

#[test]
fn a_rank_that_leaves_early_is_told_from_a_dead_one() {
    let told = told_by_others(&run("leaves", 3), 1);
    assert!(told.contains("had already left the run"), "{told}");
}

pub(crate) fn announces() {
    let comm = join(TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        comm.announce_failure("shard `00003.tar` ends in the middle of a sample", true);
    } else {
        let error = reduce_until_failure(&*comm, 1);
        assert!(error.is_refusal(), "{error:?}");
    }
}

#[test]
fn the_cause_that_a_rank_announces_reaches_all_others() {
    let told = told_by_others(&run("announces", 3), 1);
    assert!(told.contains("failed: shard `00003.tar` ends in the middle of a sample: all_reduce"), "{told}");
}

pub(crate) fn panics() {
    let comm = join(TIMEOUT);
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        panic!("for the test");
    }
    let error = reduce_until_failure(&*comm, 1);
    assert!(!error.is_refusal(), "{error:?}");
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
