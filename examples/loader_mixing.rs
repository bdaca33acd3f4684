//! Mixes several datasets, and shows how much of each an epoch and its first batches hold.
//!
//! An epoch holds each dataset as often as its factor says: 0.5 is one half of it in this epoch and the other half in the next.
//! After any epoch, all samples of a dataset have come equally often, or some of them once more.
//!
//! The toy set is what `scripts/demo` makes.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_mixing -- \
//!     --data runs/toy-world/shards/train::runs/toy-world/shards/held-out --upsampling-factors 0.5::2
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::Context;
use clap::Parser;
use fastclip_examples::LoaderArguments;
use fastclip_schemas::{Position, SampleId};
use fastclip_shards::{Dataset, DatasetPart};

#[derive(Parser)]
#[command(about = "Mix several datasets, and show how much of each an epoch holds")]
struct Arguments {
    #[command(flatten)]
    loader: LoaderArguments,
    /// How often an epoch holds each of the datasets, in their order: `0.5::2`.
    #[arg(long)]
    upsampling_factors: Factors,
    /// Batches to read.
    #[arg(long, default_value_t = 5)]
    steps: usize,
}

/// Numbers between double colons, as OpenCLIP takes them.
#[derive(Clone)]
struct Factors(Vec<f64>);

impl std::str::FromStr for Factors {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split("::").map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Which of the joined datasets a sample is from: their ids follow one another.
fn part_of(dataset: &Dataset, id: SampleId) -> usize {
    dataset.parts().partition_point(|part| part.sample_ids.end <= id.0)
}

fn main() -> anyhow::Result<()> {
    let Arguments { loader: arguments, upsampling_factors: Factors(factors), steps } = Arguments::parse();
    let loader =
        arguments.builder()?.upsampling_factors(factors).build().context("could not build the loader")?;
    println!("an epoch of {} steps holds", loader.steps_per_epoch());
    for (DatasetPart { location, .. }, part) in loader.dataset().parts().iter().zip(loader.plan().parts()) {
        println!("  {} of the {} samples of {location}", part.per_epoch(), part.num_samples);
    }

    let mut total = vec![0; loader.dataset().parts().len()];
    for batch in loader.stream(Position::default(), Position::start_of(u64::MAX))?.take(steps) {
        let batch = batch?;
        let mut shares = vec![0; total.len()];
        for &id in batch.sample_ids() {
            shares[part_of(loader.dataset(), id)] += 1;
        }
        let Position { epoch, step } = batch.position();
        println!("epoch {epoch}, step {step}: {shares:?}");
        total.iter_mut().zip(shares).for_each(|(total, share)| *total += share);
    }
    println!("together: {total:?}");
    Ok(())
}
