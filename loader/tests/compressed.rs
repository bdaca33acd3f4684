//! Shards that are compressed as a whole.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::fs;

use async_compression::futures::bufread::{GzipEncoder, ZstdEncoder};
use common::{Toy, at, block_on, read, small_loader, try_read};
use fastclip_loader::{BadSampleBudget, LoadError, LoaderBuilder, Order, Tail, UnreadableShards};
use fastclip_schemas::{Digest, Manifest};
use fastclip_shards::{Cache, Compression, Dataset};
use futures::AsyncReadExt;

/// Puts compressed shards in the place of plain ones, which keep their indexes.
fn compress(toy: &Toy, suffix: &str) {
    let path = toy.path().join("manifest.json");
    let mut manifest = Manifest::from_json(&fs::read(&path).unwrap()).unwrap();
    for entry in &mut manifest.shards {
        let plain = toy.path().join(&entry.name);
        let tar = fs::read(&plain).unwrap();
        let mut compressed = Vec::new();
        match suffix {
            ".gz" => block_on(GzipEncoder::new(&tar[..]).read_to_end(&mut compressed)).unwrap(),
            _ => block_on(ZstdEncoder::new(&tar[..]).read_to_end(&mut compressed)).unwrap(),
        };
        fs::remove_file(plain).unwrap();
        entry.name.push_str(suffix);
        fs::write(toy.path().join(&entry.name), &compressed).unwrap();
        entry.num_bytes = compressed.len() as u64;
        entry.digest = Digest(*blake3::hash(&compressed).as_bytes());
    }
    fs::write(path, manifest.to_json()).unwrap();
}

fn settings(dataset: Dataset) -> LoaderBuilder {
    small_loader(dataset, 8).segment_samples(5).window_samples(16)
}

#[test]
fn compressed_shards_give_the_batches_of_plain_ones() {
    let plain = Toy::new(60, 20);
    let expected = read(&settings(plain.open()).build().unwrap(), at(0, 0), at(2, 0));
    for (suffix, decoder) in [(".gz", Compression::Gzip), (".zst", Compression::Zstd)] {
        let toy = Toy::new(60, 20);
        compress(&toy, suffix);
        let bound = settings(toy.open()).build().unwrap().memory_bound(1 << 20);
        assert_eq!(bound.decompression, 4 * decoder.max_memory());
        assert!(read(&settings(toy.open()).build().unwrap(), at(0, 0), at(2, 0)) == expected, "{suffix}");

        let folder = tempfile::tempdir().unwrap();
        let cached = toy.open().with_cache(Cache::open(folder.path(), 16 << 20).unwrap());
        let cached = settings(cached).build().unwrap();
        assert!(read(&cached, at(0, 0), at(2, 0)) == expected, "{suffix} with a cache");
    }
}

#[test]
fn a_compressed_shard_that_was_cut_ends_the_stream_with_both_sizes() {
    let toy = Toy::new(60, 20);
    compress(&toy, ".gz");
    let path = toy.path().join("00001.tar.gz");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let loader = settings(toy.open()).build().unwrap();
    let Err(LoadError::Read { source, .. }) = try_read(&loader, at(0, 0), at(1, 0)) else {
        panic!("not noticed")
    };
    let (found, expected) = (whole.len() / 2, whole.len());
    let message = format!("shard `00001.tar.gz` has {found} bytes, the manifest says {expected}");
    assert_eq!(source.to_string(), message);
}

#[test]
fn what_damage_of_a_compressed_shard_costs_is_accounted_for() {
    for suffix in [".gz", ".zst"] {
        let toy = Toy::new(60, 20);
        compress(&toy, suffix);
        let path = toy.path().join(format!("00001.tar{suffix}"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        (middle..middle + 2000).for_each(|at| bytes[at] ^= at as u8);
        fs::write(&path, bytes).unwrap();

        let settings = settings(toy.open()).order(Order::Sequential).tail(Tail::Keep).window_samples(4);
        let settings = settings.bad_sample_budget(BadSampleBudget::UNLIMITED);
        let lenient = settings.unreadable_shards(UnreadableShards::LeaveOut).build().unwrap();
        let batches = read(&lenient, at(0, 0), at(1, 0));
        let ids: Vec<u64> = batches.into_iter().flat_map(|batch| batch.ids).collect();
        let is_there = |ids_of: std::ops::Range<u64>| ids_of.clone().all(|id| ids.contains(&id));
        assert!(is_there(0..25) && is_there(40..60), "{suffix}: {ids:?}");
        let num_bad = lenient.stats().num_bad();
        assert!(num_bad > 0 && ids.len() as u64 + num_bad == 60, "{suffix}: {num_bad} of {ids:?}");
    }
}
