//! Several datasets in one stream.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::collections::HashMap;
use std::ops::Range;

use common::{Contents, Toy, at, block_on, count, read};
use fastclip_loader::plan::{Part, Plan, PlanSizes};
use fastclip_loader::{Loader, LoaderBuilder, Order, Tail, Transform, World};
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
        assert!(read(&build(World::single()), batch.position, at(3, 0)) == whole[done..], "{:?}", batch.position);
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
    let plain = plain.global_batch(count(8)).order(Order::Shuffled { seed: 7 }).tail(Tail::Keep).build().unwrap();
    assert_eq!(plain.order_digest(), digest(&[1.0, 1.0]));
}

fn manifest(shards: &[u32]) -> Manifest {
    let digest = Digest([0; 32]);
    let entry = |&num_samples: &u32| ShardEntry {
        name: String::new(),
        index: String::new(),
        num_samples,
        num_bytes: 1,
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

proptest! {
    #[test]
    fn after_any_epochs_samples_of_a_dataset_have_come_equally_often_or_once_more(
        first in prop::collection::vec(0_u32..40, 1..4),
        second in prop::collection::vec(1_u32..40, 1..4),
        factors in (0.05_f64..4.0, 0.05_f64..4.0),
        start in 0_u64..5,
        segment in 1_u32..20,
    ) {
        let shards: Vec<u32> = first.iter().chain(&second).copied().collect();
        let manifest = manifest(&shards);
        let parts: [Range<usize>; 2] = [0..first.len(), first.len()..shards.len()];
        let parts = Part::of(&manifest, &parts, &[factors.0, factors.1]);
        let sizes = PlanSizes { segment_samples: Some(segment), window_samples: Some(7) };
        let plan = Plan::mixed(&manifest, &parts, 6, Order::Shuffled { seed: 1 }, Tail::Keep, sizes).unwrap();
        let mut counts: HashMap<(usize, u32), u64> = HashMap::new();
        // From the start of a row of passes, so that whole passes can be told from parts.
        for epoch in 0..=start {
            let before: u64 = counts.values().sum();
            let epoch = plan.epoch(epoch);
            for step in 0..plan.layout().num_steps() {
                for place in (0..6).filter_map(|slot| epoch.slot(step, slot)) {
                    *counts.entry(place).or_default() += 1;
                }
            }
            prop_assert_eq!(counts.values().sum::<u64>() - before, parts.iter().map(Part::per_epoch).sum::<u64>());
            for part in &parts {
                let samples = part.shards.clone().flat_map(|shard| (0..shards[shard]).map(move |sample| (shard, sample)));
                let of_part: Vec<u64> = samples.map(|place| counts.get(&place).copied().unwrap_or(0)).collect();
                let (least, most) = (of_part.iter().min(), of_part.iter().max());
                if let (Some(least), Some(most)) = (least, most) {
                    prop_assert!(most - least <= 1, "{:?}", of_part);
                }
            }
        }
    }
}
