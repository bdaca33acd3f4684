//! What a step moves between ranks, against the formulas of the paper: bytes that a rank receives in a ring.
//!
//! b local and B global samples, d the dimension of the features, K ranks; all numbers of the runs here have eight bytes.

use fastclip_trainer::distributed::{Alone, CommCounters, Traffic};
use fastclip_trainer::objective::NUM_VALUES;

use crate::invariance::{EMBED_DIM, GLOBAL_BATCH, MakeObjective, Result, on_ranks, openclip, train, v2, v3};

const NUMBER_BYTES: u64 = 8;

/// SIGINT, SIGTERM, SIGUSR1 and the time limit.
const NUM_STOPS: u64 = 4;
/// Of an all-reduce of estimators: old and new for both modalities.
const NUM_ESTIMATES: u64 = 4;
/// Estimate, temperature and both running means of Adam for both modalities.
const NUM_MEMORIES: u64 = 8;

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

    /// The same, and b(K−1) ids in the same call.
    fn features_and_ids(self) -> Traffic {
        self.gathered(self.local_batch() * (2 * EMBED_DIM as u64 + 1))
    }

    /// 2b(K−1): one number for each anchor of the others.
    fn normalizers(self) -> Traffic {
        self.gathered(2 * self.local_batch())
    }

    /// 8b(K−1): what is remembered of the others' samples where each has its own temperatures.
    fn memories(self) -> Traffic {
        self.gathered(NUM_MEMORIES * self.local_batch())
    }

    /// So many numbers of each sample's row, from their owners to all.
    fn table(self, num_numbers: u64) -> Traffic {
        self.reduced(1, num_numbers * GLOBAL_BATCH as u64)
    }

    /// 2(K−1)/K of all parameters, one call a bucket.
    fn gradients(self, run: &Result) -> Traffic {
        self.reduced(run.num_buckets as u64, run.num_values() as u64)
    }

    /// What is reported, requests to stop, and a mark for each rank.
    fn agreement(self) -> Traffic {
        self.reduced(1, NUM_VALUES as u64 + NUM_STOPS + self.num_ranks)
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
        all_gather: step.features_and_ids(),
        all_reduce: sum(&[step.table(NUM_ESTIMATES), step.gradients(run), step.agreement()]),
        ..CommCounters::default()
    });
}

#[test]
fn a_step_of_the_baseline_moves_what_the_formulas_say() {
    check(openclip, |step, run| CommCounters {
        all_gather: sum(&[step.features(), step.normalizers()]),
        all_reduce: sum(&[step.gradients(run), step.agreement()]),
        ..CommCounters::default()
    });
}

#[test]
fn a_step_with_individual_temperatures_moves_what_the_formulas_say() {
    check(v2, |step, run| CommCounters {
        all_gather: sum(&[step.features_and_ids(), step.memories()]),
        all_reduce: sum(&[step.table(NUM_MEMORIES), step.gradients(run), step.agreement()]),
        ..CommCounters::default()
    });
}
