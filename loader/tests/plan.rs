//! The promises of the plan, over random datasets, batches and worlds.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fastclip_loader::plan::{Plan, PlanSizes, slots_of};
use fastclip_loader::{Order, Tail, World};
use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};
use proptest::prelude::*;
use proptest::sample::select;

fn manifest(shard_samples: &[u32]) -> Manifest {
    let mut first = 0;
    let shards = shard_samples.iter().enumerate().map(|(shard, &num_samples)| {
        let first_sample_id = SampleId(first);
        first += u64::from(num_samples);
        ShardEntry {
            name: format!("{shard:05}.tar"),
            index: format!("{shard:05}.idx"),
            num_samples,
            num_bytes: u64::from(num_samples) * 30_000,
            digest: Digest([0; 32]),
            index_digest: Digest([0; 32]),
            first_sample_id,
        }
    });
    let shards: Vec<ShardEntry> = shards.collect();
    Manifest {
        format_version: MANIFEST_FORMAT_VERSION,
        created_by: "test".to_owned(),
        num_samples: first,
        num_sample_ids: first,
        shards,
        source: BTreeMap::new(),
    }
}

type Place = (usize, u32);

/// What each rank gets in each step of an epoch.
fn batches(plan: &Plan, epoch: u64, slots: Range<u64>) -> Vec<Vec<Option<Place>>> {
    let epoch = plan.epoch(epoch);
    (0..plan.layout().num_steps())
        .map(|step| slots.clone().map(|slot| epoch.slot(step, slot)).collect())
        .collect()
}

#[derive(Debug, Clone)]
struct Case {
    manifest: Manifest,
    global_batch: u64,
    order: Order,
    tail: Tail,
    sizes: PlanSizes,
    epoch: u64,
}

impl Case {
    fn plan(&self) -> Plan {
        Plan::new(&self.manifest, self.global_batch, self.order, self.tail, self.sizes).unwrap()
    }

    fn all(&self) -> BTreeSet<Place> {
        let shards = self.manifest.shards.iter().enumerate();
        shards.flat_map(|(shard, entry)| (0..entry.num_samples).map(move |sample| (shard, sample))).collect()
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let shards = prop::collection::vec(prop_oneof![Just(0_u32), 1_u32..400], 1..6);
    let sizes = (prop::option::of(1_u32..300), prop::option::of(1_u32..600));
    let orders = prop_oneof![any::<u64>().prop_map(|seed| Order::Shuffled { seed }), Just(Order::Sequential)];
    let batches = select(vec![1_u64, 6, 8, 24, 64, 96, 128, 1000]);
    (shards, batches, orders, any::<bool>(), sizes, 0_u64..4)
        .prop_map(|(shards, global_batch, order, keep, (segment_samples, window_samples), epoch)| Case {
            manifest: manifest(&shards),
            global_batch,
            order,
            tail: if keep { Tail::Keep } else { Tail::Drop },
            sizes: PlanSizes { segment_samples, window_samples },
            epoch,
        })
        .prop_filter("needs samples", |case| {
            let least = if case.tail == Tail::Drop { case.global_batch } else { 1 };
            case.manifest.num_samples >= least
        })
}

fn divisors(number: u64) -> Vec<u64> {
    (1..=number.min(64)).filter(|divisor| number.is_multiple_of(*divisor)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_epoch_covers_each_sample_exactly_once_over_all_ranks(case in cases(), pick in any::<prop::sample::Index>()) {
        let plan = case.plan();
        let world_sizes = divisors(case.global_batch);
        let world_size = world_sizes[pick.index(world_sizes.len())] as usize;
        let mut seen = BTreeSet::new();
        let mut delivered = 0;
        for rank in 0..world_size {
            let slots = slots_of(World::new(rank, world_size).unwrap(), case.global_batch).unwrap();
            for place in batches(&plan, case.epoch, slots).into_iter().flatten().flatten() {
                delivered += 1;
                prop_assert!(seen.insert(place), "{place:?} comes twice");
            }
        }
        let all = case.all();
        prop_assert!(seen.is_subset(&all));
        match case.tail {
            Tail::Keep => prop_assert_eq!(delivered, all.len()),
            Tail::Drop => {
                let whole = all.len() as u64 / case.global_batch * case.global_batch;
                prop_assert_eq!(delivered as u64, whole);
            }
        }
    }

    #[test]
    fn every_rank_has_the_same_number_of_steps_and_full_batches_before_the_tail(case in cases()) {
        let plan = case.plan();
        let num_steps = plan.layout().num_steps();
        prop_assert!(num_steps > 0);
        let all = batches(&plan, case.epoch, 0..case.global_batch);
        let (last, full) = all.split_last().unwrap();
        prop_assert!(full.iter().flatten().all(Option::is_some));
        prop_assert!(last.iter().any(Option::is_some), "the last step delivers something");
        if case.tail == Tail::Drop {
            prop_assert!(last.iter().all(Option::is_some));
        }
        let past = plan.epoch(case.epoch);
        prop_assert!((0..case.global_batch).all(|slot| past.slot(num_steps, slot).is_none()));
    }

    #[test]
    fn a_different_world_size_gives_the_same_global_batches(case in cases()) {
        let plan = case.plan();
        let whole = batches(&plan, case.epoch, 0..case.global_batch);
        for world_size in divisors(case.global_batch) {
            let mut ranks: Vec<_> = (0..world_size as usize)
                .map(|rank| {
                    let world = World::new(rank, world_size as usize).unwrap();
                    batches(&case.plan(), case.epoch, slots_of(world, case.global_batch).unwrap()).into_iter()
                })
                .collect();
            for step in &whole {
                let united: Vec<_> = ranks.iter_mut().flat_map(|rank| rank.next().unwrap()).collect();
                prop_assert_eq!(&united, step);
            }
        }
    }

    #[test]
    fn a_window_is_shuffled_in_itself_and_read_in_few_runs(case in cases()) {
        let plan = case.plan();
        let layout = plan.layout();
        let epoch = plan.epoch(case.epoch);
        for lane in 0..layout.num_lanes() {
            let length = { let lane = layout.lane(lane); lane.end - lane.start };
            if length == 0 {
                continue;
            }
            let mut next = 0;
            for number in 0..=layout.window_at(lane, length - 1) {
                let window = epoch.window(lane, number);
                prop_assert_eq!(window.positions.start, next, "windows follow each other");
                next = window.positions.end;
                let held: BTreeSet<Place> = window
                    .runs
                    .iter()
                    .flat_map(|run| run.samples.clone().map(move |sample| (run.shard, sample)))
                    .collect();
                let placed: BTreeSet<Place> = window
                    .positions
                    .clone()
                    .map(|position| {
                        let (run, sample) = window.sample(position);
                        (window.runs[run].shard, sample)
                    })
                    .collect();
                prop_assert_eq!(held, placed);
            }
            prop_assert_eq!(next, length);
        }
    }
}

#[test]
fn one_shard_serves_eight_ranks() {
    let manifest = manifest(&[100]);
    let plan =
        Plan::new(&manifest, 32, Order::Shuffled { seed: 1 }, Tail::Drop, PlanSizes::default()).unwrap();
    let mut seen = BTreeSet::new();
    for rank in 0..8 {
        let steps = batches(&plan, 0, slots_of(World::new(rank, 8).unwrap(), 32).unwrap());
        assert_eq!(steps.len(), 3);
        seen.extend(steps.into_iter().flatten().flatten());
    }
    assert_eq!(seen.len(), 96);
}

#[test]
fn epochs_and_seeds_have_orders_of_their_own() {
    let manifest = manifest(&[500, 500]);
    let first_batch = |seed, epoch| {
        let order = Order::Shuffled { seed };
        let plan = Plan::new(&manifest, 50, order, Tail::Drop, PlanSizes::default()).unwrap();
        batches(&plan, epoch, 0..50).swap_remove(0)
    };
    assert_eq!(first_batch(1, 1), first_batch(1, 1));
    assert_ne!(first_batch(1, 1), first_batch(1, 2));
    assert_ne!(first_batch(1, 1), first_batch(2, 1));
}

#[test]
fn the_sequential_order_is_that_of_the_dataset() {
    let manifest = manifest(&[70, 3, 40]);
    let plan = Plan::new(&manifest, 24, Order::Sequential, Tail::Keep, PlanSizes::default()).unwrap();
    for epoch in [0, 5] {
        let places: Vec<Place> = batches(&plan, epoch, 0..24).into_iter().flatten().flatten().collect();
        assert!(places.is_sorted());
        assert_eq!(places.len(), 113);
    }
}

#[test]
fn samples_that_were_packed_near_each_other_still_meet_in_batches_of_a_small_dataset() {
    let manifest = manifest(&[1000, 1000]);
    let order = Order::Shuffled { seed: 3 };
    let plan = Plan::new(&manifest, 64, order, Tail::Drop, PlanSizes::default()).unwrap();
    let mut meetings = 0;
    for epoch in 0..40 {
        for batch in batches(&plan, epoch, 0..64) {
            let batch: BTreeSet<Place> = batch.into_iter().flatten().collect();
            meetings += batch.iter().filter(|(shard, sample)| batch.contains(&(*shard, sample + 20))).count();
        }
    }
    // In a uniform shuffle each of 1,960 pairs would meet with a chance of 63 in 1,999.
    let ratio = f64::from(meetings as u32) / (1960.0 * 63.0 / 1999.0 * 40.0);
    assert!((0.8..1.2).contains(&ratio), "samples 20 apart meet {ratio} times as often as others");
}

#[test]
fn the_order_never_changes_between_versions() {
    let manifest = manifest(&[300, 0, 41, 200]);
    let sizes = PlanSizes { segment_samples: Some(50), window_samples: Some(32) };
    let plan = Plan::new(&manifest, 12, Order::Shuffled { seed: 42 }, Tail::Drop, sizes).unwrap();
    let epoch = plan.epoch(3);
    let step = |step| (0..12).map(|slot| epoch.slot(step, slot).unwrap()).collect::<Vec<Place>>();
    let first = [(3, 58), (0, 114), (3, 114), (3, 140), (0, 90), (2, 37)];
    assert_eq!(step(0)[..6], first);
    let last = [(3, 92), (0, 126), (3, 121), (0, 75), (2, 19), (0, 227)];
    assert_eq!(step(44)[..6], last);
}

#[test]
fn sizes_follow_from_manifest_and_batch() {
    let large = manifest(&[10_000; 300]);
    let layout = |manifest: &Manifest, batch| {
        let order = Order::Shuffled { seed: 0 };
        *Plan::new(manifest, batch, order, Tail::Drop, PlanSizes::default()).unwrap().layout()
    };
    let usual = layout(&large, 4096);
    assert_eq!((usual.num_lanes(), usual.segment_samples(), usual.window_samples()), (64, 256, 139));
    assert_eq!(layout(&large, 1022).num_lanes(), 14);
    assert_eq!(layout(&large, 67).num_lanes(), 1);
    let small = layout(&manifest(&[1000]), 64);
    assert_eq!((small.num_lanes(), small.segment_samples()), (64, 8));
}

#[test]
fn what_cannot_be_planned_is_refused_with_both_numbers() {
    let refuse = |shards: &[u32], batch, tail| {
        let order = Order::Shuffled { seed: 0 };
        Plan::new(&manifest(shards), batch, order, tail, PlanSizes::default()).unwrap_err().to_string()
    };
    let message = refuse(&[10, 5], 16, Tail::Drop);
    assert_eq!(message, "an epoch holds 15 samples, fewer than one global batch of 16");
    assert_eq!(refuse(&[0], 16, Tail::Keep), "the dataset holds no sample");
    let message = slots_of(World::new(0, 3).unwrap(), 16).unwrap_err().to_string();
    assert_eq!(message, "a global batch of 16 cannot be shared equally by 3 ranks");
    let message = World::new(3, 3).unwrap_err().to_string();
    assert_eq!(message, "rank 3 is not in a world of 3");
}
