//! What a step moves between ranks, against the formulas of the paper: bytes that a rank receives in a ring.
//!
//! b local and B global samples, d the dimension of the features, K ranks; all numbers of the runs here have eight bytes.

use fastclip_trainer::distributed::{Alone, CommCounters, Traffic};

use crate::invariance::{EMBED_DIM, GLOBAL_BATCH, MakeObjective, Result, on_ranks, openclip, train, v3};

const NUMBER_BYTES: u64 = 8;

/// Loss, InfoNCE and the mean logarithm of the estimates.
const NUM_VALUES: u64 = 3;
/// SIGINT and SIGTERM.
const NUM_STOPS: u64 = 2;
/// Of an all-reduce of estimators: old and new for both modalities.
const NUM_ESTIMATES: u64 = 4;

/// A step on K ranks.
#[derive(Clone, Copy)]
struct Step {
    num_ranks: u64,
}

impl Step {
    fn local_batch(self) -> u64 {
        GLOBAL_BATCH as u64 / self.num_ranks
    }

    /// All-gather: (K−1) times what a rank has.
    fn gathered(self, local_numbers: u64) -> Traffic {
        Traffic { num_calls: 1, num_bytes: (self.num_ranks - 1) * local_numbers * NUMBER_BYTES }
    }

    /// All-reduce: 2(K−1)/K of the tensor.
    fn reduced(self, num_calls: u64, numbers: u64) -> Traffic {
        Traffic { num_calls, num_bytes: 2 * (self.num_ranks - 1) * numbers * NUMBER_BYTES / self.num_ranks }
    }

    /// 2bd(K−1): images and texts of all ranks.
    fn features(self) -> Traffic {
        self.gathered(2 * self.local_batch() * EMBED_DIM as u64)
    }

    /// 2bd(K−1) again: the baseline's gradients of gathered features on their way back.
    fn feature_gradients(self) -> Traffic {
        let full = 2 * GLOBAL_BATCH as u64 * EMBED_DIM as u64;
        Traffic { num_calls: 1, num_bytes: (self.num_ranks - 1) * full * NUMBER_BYTES / self.num_ranks }
    }

    /// b(K−1): which samples the others have.
    fn ids(self) -> Traffic {
        self.gathered(self.local_batch())
    }

    /// Rows of the table of all samples, from their owners and back.
    fn estimators(self) -> Traffic {
        self.reduced(1, NUM_ESTIMATES * GLOBAL_BATCH as u64)
    }

    /// 2(K−1)/K of all parameters, one call a bucket.
    fn gradients(self, run: &Result) -> Traffic {
        self.reduced(run.num_buckets as u64, run.num_values() as u64)
    }

    /// What is reported, requests to stop, and a mark for each rank.
    fn agreement(self) -> Traffic {
        self.reduced(1, NUM_VALUES + NUM_STOPS + self.num_ranks)
    }
}

fn sum(parts: &[Traffic]) -> Traffic {
    Traffic {
        num_calls: parts.iter().map(|part| part.num_calls).sum(),
        num_bytes: parts.iter().map(|part| part.num_bytes).sum(),
    }
}

fn check(objective: MakeObjective, expected: impl Fn(Step, &Result) -> CommCounters) {
    let alone = train(&Alone::new(), objective, 1);
    assert!(alone.num_buckets > 1, "one bucket shows little");
    assert_eq!(alone.traffic, expected(Step { num_ranks: 1 }, &alone));
    assert_eq!(alone.traffic.total().num_bytes, 0, "nothing is received from nobody");
    // Micro-batches cost no communication.
    for (num_ranks, num_micro_batches) in [(2, 1), (4, 1), (4, 2)] {
        for run in on_ranks(num_ranks, |comm| train(comm, objective, num_micro_batches)) {
            let step = Step { num_ranks: num_ranks as u64 };
            assert_eq!(run.traffic, expected(step, &run), "{num_ranks} ranks");
        }
    }
}

#[test]
fn a_step_of_fastclip_v3_moves_what_the_formulas_say() {
    check(v3, |step, run| CommCounters {
        all_gather: sum(&[step.features(), step.ids()]),
        all_reduce: sum(&[step.estimators(), step.gradients(run), step.agreement()]),
        ..CommCounters::default()
    });
}

#[test]
fn a_step_of_the_baseline_moves_what_the_formulas_say() {
    check(openclip, |step, run| CommCounters {
        all_gather: step.features(),
        reduce_scatter: step.feature_gradients(),
        all_reduce: sum(&[step.gradients(run), step.agreement()]),
        ..CommCounters::default()
    });
}
