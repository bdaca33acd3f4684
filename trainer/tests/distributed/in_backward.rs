//! Ranks that fall apart while buckets of gradients are on their way.

use std::env;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use fastclip_torch_ext::{BucketEntry, GradientBuckets};
use fastclip_trainer::distributed::{CommError, Communicator};
use tch::{Device, Kind, Tensor};

use crate::failures::{kill_itself, run_with_culprit, stop_itself, told_by_others, told_of_rank_one};
use crate::{SHORT_TIMEOUT, TIMEOUT, join, tell};

pub(crate) const NUM_LEAVES: usize = 8;
pub(crate) const NUM_VALUES: i64 = 100_000;

/// Leaves with a bucket for each.
pub(crate) struct Filled {
    leaves: Vec<Tensor>,
    pub(crate) buckets: GradientBuckets,
}

impl Filled {
    pub(crate) fn new() -> Self {
        let leaf = |_| Tensor::zeros([NUM_VALUES], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let leaves: Vec<Tensor> = (0..NUM_LEAVES).map(leaf).collect();
        let entries: Vec<_> =
            leaves.iter().map(|parameter| BucketEntry { parameter, leaf: Some(parameter) }).collect();
        let buckets = GradientBuckets::new(&entries, NonZeroUsize::new(4).unwrap()).unwrap();
        Self { leaves, buckets }
    }

    /// Gives each leaf its number times that of the rank as gradient, the last leaf first; `before` is called with the
    /// number of buckets that have left.
    pub(crate) fn reduce(
        &mut self,
        comm: &dyn Communicator,
        before: impl Fn(usize),
    ) -> Result<(), CommError> {
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

pub(crate) fn dies_in_backward() {
    let culprit: usize = env::var("CULPRIT").unwrap().parse().unwrap();
    // Nobody waits for a time-out here, so that one bounds it well.
    fail_in_backward(join(TIMEOUT), TIMEOUT / 2, culprit, kill_itself);
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

pub(crate) fn freezes_in_backward() {
    fail_in_backward(join(SHORT_TIMEOUT), SHORT_TIMEOUT, 1, stop_itself);
}

pub(crate) fn stays_in_backward() {
    fail_in_backward(join(SHORT_TIMEOUT), SHORT_TIMEOUT, 1, || thread::sleep(TIMEOUT));
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
