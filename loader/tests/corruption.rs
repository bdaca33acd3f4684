//! Two thousand damaged shards through the whole loader. One test alone in its process, as it looks at its memory.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Toy, at, block_on, read};
use fastclip_loader::{BadReason, BadSampleBudget, Order, Tail, Tokenizer, Transform, UnreadableShards};
use fastclip_testkit::Mutation;

const NUM_MUTATIONS: u64 = 2000;
const NUM_SAMPLES: u32 = 16;
const PER_SHARD: u32 = 8;
/// What a damaged shard may cost in memory beyond what a sound one does.
const MOST_GROWTH_KIB: u64 = 64 << 10;

/// Most memory that this process has held so far.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn every_sample_outside_the_damage_is_delivered_or_counted() {
    let toy = Toy::new(NUM_SAMPLES, PER_SHARD);
    let path = toy.path().join("00000.tar");
    let whole = fs::read(&path).unwrap();
    let index = block_on(toy.open().index(0)).unwrap();
    let tokenizer = Tokenizer::clip();
    let loader = || {
        toy.loader(8)
            .order(Order::Sequential)
            .tail(Tail::Keep)
            .transform(Transform::eval(8))
            .bad_sample_budget(BadSampleBudget::UNLIMITED)
            .unreadable_shards(UnreadableShards::LeaveOut)
            .max_bytes_in_flight(1 << 20)
            .tokenizer(tokenizer.clone())
            .build()
            .unwrap()
    };
    let contents = |loader: &fastclip_loader::Loader| {
        let mut samples = BTreeMap::new();
        for batch in read(loader, at(0, 0), at(1, 0)) {
            for (i, &id) in batch.ids.iter().enumerate() {
                let sample = (batch.images[i * 192..][..192].to_vec(), batch.tokens[i * 12..][..12].to_vec());
                assert!(samples.insert(id, sample).is_none(), "sample {id} came twice");
            }
        }
        samples
    };
    let expected = contents(&loader());
    assert_eq!(expected.len(), NUM_SAMPLES as usize);
    let before = peak_kib();
    for seed in 0..NUM_MUTATIONS {
        let (mutation, damaged) = Mutation::of(&whole, seed);
        fs::write(&path, &damaged).unwrap();
        let loader = loader();
        let found = contents(&loader);
        let stats = loader.stats();
        let said = format!("{mutation:?} {seed}: {:?}", stats.bad_samples);
        assert_eq!(found.len() as u64 + stats.num_bad(), u64::from(NUM_SAMPLES), "{said}");
        assert!(stats.peak_bytes_in_flight <= 1 << 20 && stats.buffers_lent == 0, "{said}");
        if damaged.len() != whole.len() {
            let lost = BTreeMap::from([(BadReason::UnreadableShard, u64::from(PER_SHARD))]);
            assert_eq!(stats.bad_samples, lost, "{said}");
        }
        for id in 0..u64::from(NUM_SAMPLES) {
            let position = id as u32;
            let is_touched = position < PER_SHARD && {
                let bytes = index.byte_range(position..position + 1);
                let bytes = bytes.start as usize..bytes.end as usize;
                damaged.len() != whole.len() || damaged[bytes.clone()] != whole[bytes]
            };
            assert!(is_touched || found.get(&id) == expected.get(&id), "sample {id}, {said}");
        }
    }
    let growth = peak_kib().saturating_sub(before);
    assert!(growth < MOST_GROWTH_KIB, "{growth} KiB more than before the first damage");
}
