//! Plans an epoch of 315 million samples in 31,500 shards, and prints what it costs.
//!
//! `cargo bench -p fastclip-loader --bench plan`

#![allow(clippy::print_stdout, reason = "the result of a benchmark is what it prints")]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::time::Instant;

use fastclip_loader::plan::{Part, Plan, PlanSizes};
use fastclip_loader::{Order, Tail};
use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};

const NUM_SHARDS: u64 = 31_500;
const SHARD_SAMPLES: u32 = 10_000;
const GLOBAL_BATCH: u64 = 4096;

fn manifest() -> Manifest {
    let shards = (0..NUM_SHARDS).map(|shard| ShardEntry {
        name: format!("{shard:05}.tar"),
        index: format!("{shard:05}.idx"),
        num_samples: SHARD_SAMPLES,
        num_bytes: u64::from(SHARD_SAMPLES) * 30_000,
        digest: Digest([0; 32]),
        index_digest: Digest([0; 32]),
        first_sample_id: SampleId(shard * u64::from(SHARD_SAMPLES)),
    });
    Manifest {
        format_version: MANIFEST_FORMAT_VERSION,
        created_by: "bench".to_owned(),
        num_samples: NUM_SHARDS * u64::from(SHARD_SAMPLES),
        num_sample_ids: NUM_SHARDS * u64::from(SHARD_SAMPLES),
        shards: shards.collect(),
        source: BTreeMap::new(),
    }
}

/// Most memory that the process has held so far, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Plans the epoch of a mixture, and prints what it costs.
fn measure(name: &str, manifest: &Manifest, parts: &[Part]) {
    let before = peak_bytes();
    let start = Instant::now();
    let order = Order::Shuffled { seed: 1 };
    let plan = Plan::mixed(manifest, parts, GLOBAL_BATCH, order, Tail::Drop, PlanSizes::default())
        .expect("the manifest has samples enough");
    let epoch = plan.epoch(0);
    let planned = start.elapsed();
    let grown = peak_bytes().zip(before).map(|(after, before)| (after - before) as f64 / f64::from(1 << 20));

    let start = Instant::now();
    let num_steps = plan.layout().num_steps();
    let num_slots = 1_000;
    for i in 0..num_slots {
        black_box(epoch.slot(i * 7919 % num_steps, i * 104_729 % GLOBAL_BATCH));
    }
    let slot = start.elapsed() / num_slots as u32;

    let num_samples = plan.layout().num_samples();
    println!(
        "{name}: {num_samples} samples of {NUM_SHARDS} shards, {num_steps} steps: planned in {planned:.1?}"
    );
    if let Some(grown) = grown {
        println!("  memory grew by {grown:.1} MiB");
    }
    println!("  a slot anywhere in {slot:.1?}");
}

fn main() {
    let manifest = manifest();
    let num_shards = manifest.shards.len();
    measure("one dataset", &manifest, &[Part::new(&manifest, 0..num_shards, 1.0)]);
    // The peak of a process only grows: what this one takes above the first is what is shown.
    let mixture =
        [Part::new(&manifest, 0..num_shards / 3, 2.4), Part::new(&manifest, num_shards / 3..num_shards, 0.3)];
    measure("two, mixed", &manifest, &mixture);
}
