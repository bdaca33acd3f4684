//! Reads a dataset batch by batch, shows the first ones, and tells how fast it was.
//!
//! The toy set is what `scripts/demo` makes.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_basic -- --data runs/toy-world/shards/train --samples 10000
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Instant;

use clap::Parser;
use fastclip_examples::LoaderArguments;
use fastclip_loader::Batch;
use fastclip_schemas::Position;

/// Batches that are shown.
const SHOWN: u64 = 3;

#[derive(Parser)]
#[command(about = "Read a dataset batch by batch, and tell how fast that is")]
struct Arguments {
    #[command(flatten)]
    loader: LoaderArguments,
    /// Stop after so many samples; after one epoch unless set. More than an epoch has are read in several.
    #[arg(long)]
    samples: Option<u64>,
}

fn show(batch: &Batch) {
    let Position { epoch, step } = batch.position();
    let mean = batch.images().iter().map(|&value| f64::from(value)).sum::<f64>()
        / batch.images().len().max(1) as f64;
    println!("epoch {epoch}, step {step}: {} samples, mean pixel {mean:.1}", batch.len());
    for (i, id) in batch.sample_ids().iter().enumerate().take(2) {
        let tokens = &batch.tokens()[i * batch.context_length()..][..batch.lengths()[i] as usize];
        println!("  sample {id}, class {}, tokens {tokens:?}", batch.classes()[i]);
    }
}

fn main() -> anyhow::Result<()> {
    let Arguments { loader: arguments, samples } = Arguments::parse();
    let loader = arguments.build()?;
    println!(
        "{}: {} samples, {} steps of {} in an epoch",
        loader.dataset().location(),
        loader.num_samples(),
        loader.steps_per_epoch(),
        loader.batch_size(),
    );

    let num_batches =
        samples.map_or(loader.steps_per_epoch(), |samples| samples.div_ceil(loader.batch_size() as u64));
    let start = Instant::now();
    let mut num_samples = 0;
    for (i, batch) in (0..).zip(loader.stream(Position::default(), loader.position_after(num_batches))?) {
        let batch = batch?;
        num_samples += batch.len();
        if i < SHOWN {
            show(&batch);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{num_samples} samples in {seconds:.2} s: {:.0} images/s", num_samples as f64 / seconds);
    println!("{}", loader.stats());
    Ok(())
}
