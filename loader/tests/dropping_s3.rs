//! One test alone in its process, as it counts the threads of the process.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::hint;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::{Toy, at, block_on, count, s3_copy, small_loader};
use fastclip_loader::{Order, Tokenizer};
use fastclip_shards::{Cache, Dataset};
use fastclip_testkit::{S3Fault, S3Server};

/// Threads of this process that are not the server's.
fn num_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name any more.
    let names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim() != S3Server::THREADS).count()
}

/// Files of a cache that are not yet under their final name, which has no dot.
fn half_written(cache: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(cache).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    files.filter(|file| file.extension().is_some()).collect()
}

#[test]
fn dropping_at_any_moment_leaves_no_thread_and_no_buffer_over_a_slow_server_with_or_without_a_cache() {
    let toy = Toy::new(120, 30);
    let server = s3_copy(&toy);
    server.inject(|request| {
        request.path.ends_with(".tar").then_some(S3Fault::Slowly(4000, Duration::from_micros(300)))
    });
    let dataset = block_on(Dataset::open_with(&server.location("toy"), &server.options())).unwrap();
    // Has started the threads that all remote stores of a process share.
    let before = num_threads();
    let tokenizer = Tokenizer::clip();
    let mut state = 1_u64;
    let mut below = |bound: u64| {
        // Knuth's generator; its upper bits are random enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for round in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let dataset = match round % 2 {
            0 => dataset.clone(),
            _ => dataset.clone().with_cache(Cache::open(folder.path(), 16 << 20).unwrap()),
        };
        let loader = small_loader(dataset, 12)
            .order(Order::Shuffled { seed: round })
            .tokenizer(tokenizer.clone())
            .threads(count(3))
            .build()
            .unwrap();
        let mut batches = loader.stream(at(0, below(10)), at(5, 0)).unwrap();
        // Moments: in the middle of any request, after some batches, and anywhere in between.
        let requests = server.requests().len() + below(6) as usize;
        while server.requests().len() < requests {
            thread::yield_now();
        }
        let taken: Vec<_> = batches.by_ref().take(below(4) as usize).map(Result::unwrap).collect();
        (0..below(100_000)).for_each(|_| hint::spin_loop());
        drop(batches);
        assert_eq!(loader.stats().buffers_lent, taken.len(), "round {round}");
        drop(taken);
        let stats = loader.stats();
        assert_eq!((stats.buffers_lent, stats.bytes_in_flight), (0, 0), "round {round}");
        assert_eq!(half_written(folder.path()), Vec::<PathBuf>::new(), "round {round}");
        // All are joined; the kernel takes a moment to remove a joined thread from its list. One that was not joined
        // would never leave, and hang the test here.
        while num_threads() > before {
            thread::yield_now();
        }
    }
}
