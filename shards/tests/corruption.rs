//! Two thousand damaged shards through every reader of tars: none panics or hangs, and whatever lies outside the damage is
//! delivered, or its place is named.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use fastclip_shards::tar::{Salvaged, Salvager, Scanner, StreamScanner};
use fastclip_shards::{Dataset, DatasetWriter, ReadError, Store, WriterOptions};
use fastclip_testkit::Mutation;
use object_store::memory::InMemory;

const NUM_MUTATIONS: u64 = 2000;
const NUM_SAMPLES: u8 = 12;

fn members(number: u8) -> [(&'static str, Vec<u8>); 3] {
    let image = (0..300 + 97 * usize::from(number)).map(|at| (at * 7) as u8 ^ number).collect();
    [
        ("jpg", image),
        ("txt", format!("caption {number}").into_bytes()),
        ("cls", number.to_string().into_bytes()),
    ]
}

/// A dataset of one shard in memory.
async fn dataset() -> (Store, Dataset) {
    let store = Store::from_object_store(Arc::new(InMemory::new()), "").unwrap();
    let options =
        WriterOptions { samples_per_shard: NonZeroU32::new(100).unwrap(), ..WriterOptions::default() };
    let mut writer = DatasetWriter::new(store.clone(), options);
    for number in 0..NUM_SAMPLES {
        let members = members(number);
        let members = members.each_ref().map(|(extension, data)| (*extension, &data[..]));
        writer.append(&members).await.unwrap();
    }
    writer.finish(BTreeMap::new()).await.unwrap();
    let dataset = Dataset::from_store(store.clone(), "manifest.json").await.unwrap();
    (store, dataset)
}

#[tokio::test]
async fn with_an_index_damage_costs_the_samples_that_it_touches_and_no_other() {
    let (store, dataset) = dataset().await;
    let whole = store.get("00000.tar").await.unwrap();
    let index = dataset.index(0).await.unwrap();
    let (mut num_delivered, mut num_refused) = (0, 0);
    for seed in 0..NUM_MUTATIONS {
        let (mutation, damaged) = Mutation::of(&whole, seed);
        store.put("00000.tar", damaged.clone()).await.unwrap();
        if damaged.len() != whole.len() {
            let error = dataset.index(0).await.unwrap_err();
            assert!(matches!(error, ReadError::ShardSize { .. }), "{mutation:?} {seed}: {error}");
            num_refused += 1;
            continue;
        }
        let run = dataset.fetch(0, &index, 0..index.len()).await.unwrap();
        for position in run.samples() {
            let bytes = index.byte_range(position..position + 1);
            let bytes = bytes.start as usize..bytes.end as usize;
            match run.sample(position) {
                Ok(sample) if damaged[bytes.clone()] == whole[bytes.clone()] => {
                    let expected = members(position as u8);
                    let found: Vec<_> = sample.members().collect();
                    let expected = expected.each_ref().map(|(extension, data)| (*extension, &data[..]));
                    assert_eq!(found, expected, "{mutation:?} {seed}: sample {position}");
                    num_delivered += 1;
                }
                // Damage of data alone: tar has no checksum for it.
                Ok(_) => {}
                Err(error) => {
                    assert!(damaged[bytes.clone()] != whole[bytes], "{mutation:?} {seed}: {error}");
                    assert!(error.costs_one_sample(), "{mutation:?} {seed}: {error}");
                }
            }
        }
    }
    assert!(num_delivered > 10_000 && num_refused > 200, "{num_delivered}, {num_refused}");
}

#[tokio::test]
async fn without_an_index_every_member_outside_the_damage_is_found_and_the_damage_is_named() {
    let (store, _) = dataset().await;
    let whole = store.get("00000.tar").await.unwrap();
    let intact: Vec<_> = Scanner::new(&whole).map(Result::unwrap).collect();
    let mut num_found = 0;
    for seed in 0..NUM_MUTATIONS {
        let (mutation, damaged) = Mutation::of(&whole, seed);
        let mut found = BTreeMap::new();
        let mut lost = Vec::new();
        for item in Salvager::new(&damaged) {
            match item {
                Salvaged::Member(entry) => {
                    found.insert(entry.start, entry);
                }
                Salvaged::Damage { bytes, .. } => lost.push(bytes),
            }
        }
        for entry in &intact {
            let bytes = entry.start as usize..entry.end as usize;
            // Swapped members are whole, but elsewhere; they are looked for by what they hold below.
            if damaged.get(bytes.clone()) != Some(&whole[bytes]) {
                continue;
            }
            let is_lost = lost.iter().any(|lost| lost.contains(&entry.start));
            assert!(found.get(&entry.start) == Some(entry) || is_lost, "{mutation:?} {seed}: {entry:?}");
            num_found += u32::from(!is_lost);
        }
        if mutation == Mutation::SwappedMembers {
            assert!(lost.is_empty(), "{seed}");
            let names = |entries: &mut dyn Iterator<Item = &fastclip_shards::tar::Entry>| {
                let mut names: Vec<String> = entries.map(|entry| entry.name.clone()).collect();
                names.sort();
                names
            };
            assert_eq!(names(&mut found.values()), names(&mut intact.iter()), "{seed}");
        }
    }
    assert!(num_found > 40_000, "{num_found}");
}

#[tokio::test]
async fn scanning_in_memory_and_in_pieces_agree_on_any_damage() {
    let (store, _) = dataset().await;
    let whole = store.get("00000.tar").await.unwrap();
    for seed in 0..NUM_MUTATIONS {
        let (mutation, damaged) = Mutation::of(&whole, seed);
        let in_memory: Vec<_> = Scanner::new(&damaged).map_while(Result::ok).collect();
        let mut in_pieces = Vec::new();
        let mut scanner = StreamScanner::new();
        for piece in damaged.chunks(1 + seed as usize % 1500) {
            if scanner.push(piece, |_| false, |entry, _| in_pieces.push(entry.clone())).is_err() {
                break;
            }
        }
        assert_eq!(in_memory, in_pieces, "{mutation:?} {seed}");
    }
}
