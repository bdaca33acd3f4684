//! Memory stays below the bound that a loader states.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::num::NonZeroUsize;
use std::process::Command;

use common::{Members, Toy, at, count, jpeg};
use fastclip_loader::{Loader, Transform};
use fastclip_testkit::run;

const SIZE: (usize, usize) = (1024, 768);
const BATCH: usize = 64;
/// Names the dataset, in the process that reads it.
const LOCATION: &str = "FASTCLIP_TEST_MEMORY_LOCATION";
/// How many loaders read it at once there.
const NUM_LOADERS: &str = "FASTCLIP_TEST_MEMORY_LOADERS";

/// A number of `/proc/self/status`, in bytes.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

fn builder(location: &str) -> fastclip_loader::LoaderBuilder {
    Loader::builder(common::block_on(fastclip_shards::Dataset::open(location)).unwrap())
        .global_batch(count(BATCH))
        .transform(Transform::train(224))
        .threads(NonZeroUsize::new(2).unwrap())
        .max_bytes_in_flight(64 << 20)
        .segment_samples(2)
        .window_samples(2)
}

/// Not a test by itself: what the test below measures, in a process of its own.
#[test]
fn reads_with_several_loaders() {
    let Ok(location) = std::env::var(LOCATION) else { return };
    let num_loaders: usize = std::env::var(NUM_LOADERS).unwrap().parse().unwrap();
    let before = status("VmRSS:");
    let loaders: Vec<Loader> = (0..num_loaders).map(|_| builder(&location).build().unwrap()).collect();
    let bound: u64 = loaders.iter().map(|loader| loader.memory_bound((SIZE.0 * SIZE.1) as u64).total()).sum();
    let mut streams: Vec<_> =
        loaders.iter().map(|loader| loader.stream(at(0, 0), at(1, 0)).unwrap()).collect();
    let mut num_samples = 0;
    for _ in 0..2 {
        for stream in &mut streams {
            num_samples += stream.next().unwrap().unwrap().len();
        }
    }
    assert_eq!(num_samples, 2 * BATCH * num_loaders);
    let peak = status("VmHWM:");
    println!("{num_loaders} loaders: {} MiB of {} MiB", (peak - before) >> 20, bound >> 20);
    assert!(peak - before <= bound, "{} bytes were taken, the bound is {bound}", peak - before);
    // A bound that is never approached would hold for a loader that leaks, too.
    assert!((peak - before) * 8 > bound, "{} bytes were taken, the bound is {bound}", peak - before);
}

#[test]
fn peak_memory_stays_below_the_stated_bound_with_one_loader_and_with_eight() {
    let pictures: Vec<Vec<u8>> = (0..16).map(|number| jpeg(number, SIZE)).collect();
    let sample = |number: u32| -> Members {
        vec![("jpg", pictures[number as usize % pictures.len()].clone()), ("txt", b"a picture".to_vec())]
    };
    let toy = Toy::with(256, 64, sample);
    for num_loaders in ["1", "8"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "reads_with_several_loaders", "--nocapture"]);
        command.env(LOCATION, toy.path()).env(NUM_LOADERS, num_loaders);
        let finished = run(&mut command).assert_code(0);
        assert!(finished.stdout.contains(&format!("{num_loaders} loaders: ")), "{finished}");
        println!("{}", finished.stdout.lines().find(|line| line.contains("loaders: ")).unwrap());
    }
}
