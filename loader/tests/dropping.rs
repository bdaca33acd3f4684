//! One test alone in its process, as it counts the threads of the process.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::hint;
use std::thread;

use common::{Toy, at, count};

fn num_threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn dropping_at_any_moment_leaves_no_thread_and_no_buffer() {
    let toy = Toy::new(120, 30);
    let loader = toy.loader(12).threads(count(3)).prefetch_batches(count(2)).build().unwrap();
    let before = num_threads();
    for round in 0..200_u64 {
        let mut batches = loader.stream(at(0, round % 10), at(5, 0)).unwrap();
        // Moments: before anything, after some batches, and anywhere in between.
        let taken: Vec<_> = batches.by_ref().take((round % 7) as usize).map(Result::unwrap).collect();
        (0..round * 7919 % 100_000).for_each(|_| hint::spin_loop());
        if round % 2 == 0 {
            drop(taken);
            drop(batches);
        } else {
            drop(batches);
            assert_eq!(loader.stats().buffers_lent, taken.len());
            drop(taken);
        }
        let stats = loader.stats();
        assert_eq!((stats.buffers_lent, stats.bytes_in_flight), (0, 0), "round {round}");
        // All are joined; the kernel takes a moment to remove a joined thread from its list. One that was not joined
        // would never leave, and hang the test here.
        while num_threads() > before {
            thread::yield_now();
        }
    }
}
