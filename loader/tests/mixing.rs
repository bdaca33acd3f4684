//! Several datasets in one stream.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::collections::HashMap;

use common::{Contents, Toy, at, block_on, count, read};
use fastclip_loader::plan::{Part, Plan, PlanSizes, slots_of};
use fastclip_loader::{LoadError, Loader, LoaderBuilder, Order, Tail, Transform, World};
use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};
use fastclip_shards::Dataset;
use proptest::prelude::*;

fn mixed(toys: &[&Toy], factors: &[f64]) -> LoaderBuilder {
    let dataset = block_on(Dataset::open(&locations(toys))).unwrap();
    Loader::builder(dataset)
        .upsampling_factors(factors.to_vec())
        .global_batch(count(8))
        .order(Order::Shuffled { seed: 7 })
        .tail(Tail::Keep)
        .transform(Transform::train_with(16, (0.3, 1.0), (0.75, 1.3)))
        .context_length(12)
        .threads(count(2))
}

fn locations(toys: &[&Toy]) -> String {
    toys.iter().map(|toy| toy.path().to_str().unwrap()).collect::<Vec<_>>().join("::")
}

fn counts(batches: &[Contents]) -> HashMap<u64, u32> {
    let mut counts = HashMap::new();
    batches.iter().flat_map(|batch| &batch.ids).for_each(|&id| *counts.entry(id).or_insert(0) += 1);
    counts
}

#[test]
fn an_epoch_holds_each_dataset_as_often_as_its_factor_says() {
    let (small, large) = (Toy::new(20, 10), Toy::new(50, 20));
    let loader = mixed(&[&small, &large], &[3.0, 0.5]).build().unwrap();
    assert_eq!(loader.num_samples(), 60 + 25);
    for epoch in 0..3 {
        let counts = counts(&read(&loader, at(epoch, 0), at(epoch + 1, 0)));
        assert!((0..20).all(|id| counts[&id] == 3), "epoch {epoch}: {counts:?}");
        assert_eq!((20..70).filter(|id| counts.contains_key(id)).count(), 25, "epoch {epoch}: {counts:?}");
    }
    let both = counts(&read(&loader, at(0, 0), at(2, 0)));
    assert!((20..70).all(|id| both[&id] == 1), "two halves of a pass are the whole: {both:?}");
}

#[test]
fn a_sample_that_comes_twice_in_an_epoch_looks_different() {
    let toy = Toy::new(16, 16);
    let other = Toy::new(8, 8);
    let loader = mixed(&[&toy, &other], &[2.0, 1.0]).build().unwrap();
    let mut images: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    for batch in read(&loader, at(0, 0), at(1, 0)) {
        for (i, &id) in batch.ids.iter().enumerate() {
            images.entry(id).or_default().push(batch.images[i * 768..][..768].to_vec());
        }
    }
    assert!((0..16).all(|id| images[&id].len() == 2 && images[&id][0] != images[&id][1]));
}

#[test]
fn resuming_and_ranks_change_nothing_in_a_mixture() {
    let (small, large) = (Toy::new(20, 10), Toy::new(50, 20));
    let toys = [&small, &large];
    let build = |world| mixed(&toys, &[1.5, 0.7]).world(world).build().unwrap();
    let whole = read(&build(World::single()), at(0, 0), at(3, 0));
    for (done, batch) in whole.iter().enumerate().step_by(5) {
        assert!(
            read(&build(World::single()), batch.position, at(3, 0)) == whole[done..],
            "{:?}",
            batch.position
        );
    }
    let ranks = [0, 1].map(|rank| read(&build(World::new(rank, 2).unwrap()), at(0, 0), at(3, 0)));
    for (step, expected) in whole.iter().enumerate() {
        assert!(Contents::unite(ranks.iter().map(|rank| rank[step].clone())) == *expected, "step {step}");
    }
}

#[test]
fn factors_are_part_of_the_order_and_absurd_ones_are_refused() {
    let (small, large) = (Toy::new(20, 10), Toy::new(50, 20));
    let toys = [&small, &large];
    let digest = |factors: &[f64]| mixed(&toys, factors).build().unwrap().order_digest();
    assert_ne!(digest(&[1.0, 2.0]), digest(&[2.0, 1.0]));
    let refuse = |builder: LoaderBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(
        refuse(mixed(&toys, &[1.0])),
        "upsampling_factors cannot be [1.0]: there must be one for each dataset"
    );
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let message = refuse(mixed(&toys, &[1.0, factor]));
        assert!(message.ends_with("each must lie between 0.000001 and 1,000,000"), "{message}");
    }
    let message = refuse(mixed(&toys, &[1.0, 2.0]).order(Order::Sequential));
    assert!(message.ends_with("the sequential order gives every sample once"), "{message}");
    // Joined datasets without factors are one dataset.
    let plain = Loader::builder(block_on(Dataset::open(&locations(&toys))).unwrap());
    let plain =
        plain.global_batch(count(8)).order(Order::Shuffled { seed: 7 }).tail(Tail::Keep).build().unwrap();
    assert_eq!(plain.order_digest(), digest(&[1.0, 1.0]));
}

fn manifest(shards: &[u32]) -> Manifest {
    let digest = Digest([0; 32]);
    let entry = |&num_samples: &u32| ShardEntry {
        name: String::new(),
        index: String::new(),
        num_samples,
        num_bytes: u64::from(num_samples),
        digest,
        index_digest: digest,
        first_sample_id: SampleId(0),
    };
    Manifest {
        format_version: MANIFEST_FORMAT_VERSION,
        created_by: String::new(),
        num_samples: shards.iter().map(|&num| u64::from(num)).sum(),
        num_sample_ids: 0,
        shards: shards.iter().map(entry).collect(),
        source: Default::default(),
    }
}

/// Shards of one dataset and its factor.
type Share = (Vec<u32>, f64);

fn shares() -> impl Strategy<Value = Vec<Share>> {
    let shards = prop::collection::vec(0_u32..40, 1..4);
    let factor = prop_oneof![Just(1.0), 0.05_f64..4.0];
    prop::collection::vec((shards, factor), 1..4).prop_filter("needs samples", |shares| {
        shares.iter().any(|(shards, _)| shards.iter().any(|&num| num > 0))
    })
}

fn plan(shares: &[Share], global_batch: u64, tail: Tail, segment_samples: u32) -> Result<Plan, LoadError> {
    let shards: Vec<u32> = shares.iter().flat_map(|(shards, _)| shards.iter().copied()).collect();
    let manifest = manifest(&shards);
    let mut first = 0;
    let part = |(shards, factor): &Share| {
        first += shards.len();
        Part::new(&manifest, first - shards.len()..first, *factor)
    };
    let parts: Vec<Part> = shares.iter().map(part).collect();
    let sizes = PlanSizes { segment_samples: Some(segment_samples), window_samples: Some(7) };
    Plan::mixed(&manifest, &parts, global_batch, Order::Shuffled { seed: 1 }, tail, sizes)
}

/// Shard and number of each sample of a part.
fn samples<'a>(part: &Part, shards: &'a [u32]) -> impl Iterator<Item = (usize, u32)> + 'a {
    part.shards.clone().flat_map(|shard| (0..shards[shard]).map(move |sample| (shard, sample)))
}

proptest! {
    #[test]
    fn after_any_epochs_samples_of_a_dataset_have_come_equally_often_or_once_more(
        shares in shares(),
        (global_batch, world_size) in prop::sample::select(vec![(1_u64, 1_usize), (6, 3), (8, 1), (24, 12), (70, 2)]),
        num_epochs in 1_u64..6,
        segment in 1_u32..20,
    ) {
        let shards: Vec<u32> = shares.iter().flat_map(|(shards, _)| shards.iter().copied()).collect();
        let plan = plan(&shares, global_batch, Tail::Keep, segment).unwrap();
        let mut counts: HashMap<(usize, u32), u64> = HashMap::new();
        let count = |counts: &HashMap<_, u64>, place| counts.get(&place).copied().unwrap_or(0);
        for number in 0..num_epochs {
            let before = counts.clone();
            let epoch = plan.epoch(number);
            for rank in 0..world_size {
                let slots = slots_of(World::new(rank, world_size).unwrap(), global_batch).unwrap();
                for step in 0..plan.layout().num_steps() {
                    for place in slots.clone().filter_map(|slot| epoch.slot(step, slot)) {
                        *counts.entry(place).or_default() += 1;
                    }
                }
            }
            for part in plan.parts() {
                let in_epoch = samples(part, &shards).map(|place| count(&counts, place) - count(&before, place));
                prop_assert_eq!(in_epoch.sum::<u64>(), part.per_epoch(), "epoch {}", number);
                let least = samples(part, &shards).map(|place| count(&counts, place)).min();
                let most = samples(part, &shards).map(|place| count(&counts, place)).max();
                prop_assert!(most <= least.map(|least| least + 1), "{:?} to {:?} times", least, most);
            }
        }
    }

    #[test]
    fn every_step_of_a_mixture_is_full_where_the_tail_is_dropped(
        shares in shares(),
        global_batch in prop::sample::select(vec![1_u64, 6, 8]),
        epoch in any::<u64>(),
        segment in 1_u32..20,
    ) {
        let plan = match plan(&shares, global_batch, Tail::Drop, segment) {
            Ok(plan) => plan,
            Err(LoadError::TooFewSamples { num_samples, .. }) => {
                prop_assert!(num_samples < global_batch);
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        let num_steps = plan.layout().num_steps();
        prop_assert_eq!(num_steps, plan.layout().num_samples() / global_batch);
        let epoch = plan.epoch(epoch);
        for step in 0..num_steps {
            prop_assert!((0..global_batch).all(|slot| epoch.slot(step, slot).is_some()));
        }
        prop_assert!((0..global_batch).all(|slot| epoch.slot(num_steps, slot).is_none()));
    }
}

/// The first batches of an epoch and those of a later one, taken down when this order was made.
#[test]
fn the_order_of_a_mixture_never_changes_between_versions() {
    let plan = plan(&[(vec![30, 21], 1.5), (vec![40], 0.3)], 6, Tail::Keep, 10).unwrap();
    let batch =
        |epoch, step| (0..6).filter_map(|slot| plan.epoch(epoch).slot(step, slot)).collect::<Vec<_>>();
    let first = [(1, 19), (0, 3), (0, 25), (2, 16), (1, 9), (0, 22)];
    let last = [(1, 13), (0, 27), (0, 13), (1, 4), (1, 19)];
    assert_eq!([batch(0, 0), batch(5, 14)], [&first[..], &last]);
}

#[test]
fn a_mixture_that_cannot_be_numbered_is_refused() {
    let error = plan(&[(vec![1; 3000], 1e6)], 6, Tail::Keep, 10).unwrap_err().to_string();
    let rule = "an epoch would visit its shards more than two billion times";
    assert_eq!(error, format!("upsampling_factors cannot be [1000000.0]: {rule}"));
}

#[test]
fn windows_are_those_of_the_dataset_with_the_largest_samples() {
    let mut manifest = manifest(&[10_000, 100]);
    (manifest.shards[0].num_bytes, manifest.shards[1].num_bytes) = (300_000_000, 20_000_000);
    let parts = |factor| [Part::new(&manifest, 0..1, 1.0), Part::new(&manifest, 1..2, factor)];
    let window = |parts: &[Part]| {
        let order = Order::Shuffled { seed: 1 };
        let plan = Plan::mixed(&manifest, parts, 64, order, Tail::Drop, PlanSizes::default()).unwrap();
        plan.layout().window_samples()
    };
    assert_eq!(window(&parts(1.0)), (256 << 20) / 64 / 200_000);
    assert_eq!(window(&parts(3.0)), window(&parts(1.0)));
    assert_eq!(window(&parts(1.0)[..1]), (256 << 20) / 64 / 30_000);
}
