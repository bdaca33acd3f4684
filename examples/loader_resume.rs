//! Reads a few batches, notes where it stopped, and goes on from there when it is run again.
//!
//! All that has to be stored is the position of the next batch. The digest of the order beside it tells whether that
//! position still means the same: run the example with another dataset, seed or batch size, and it refuses.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_resume -- --data data/toy/train --state state.json
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use fastclip_examples::LoaderArguments;
use fastclip_loader::Loader;
use fastclip_schemas::{Digest, Position};
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(about = "Read a few batches, and go on from there when run again")]
struct Arguments {
    #[command(flatten)]
    loader: LoaderArguments,
    /// File that holds where the last run stopped; written at the end of each.
    #[arg(long)]
    state: PathBuf,
    /// Batches to read.
    #[arg(long, default_value_t = 3)]
    steps: usize,
}

/// What survives between runs.
#[derive(Serialize, Deserialize)]
struct State {
    next: Position,
    order: Digest,
}

fn stored_position(path: &Path, loader: &Loader) -> anyhow::Result<Position> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Position::default()),
        text => text.with_context(|| format!("could not read `{}`", path.display()))?,
    };
    let state: State = serde_json::from_slice(&text)
        .with_context(|| format!("`{}` is no state of this example", path.display()))?;
    let order = loader.order_digest();
    anyhow::ensure!(
        state.order == order,
        "`{}` belongs to the order {}, but data, seed and batch size now make the order {order}",
        path.display(),
        state.order,
    );
    Ok(state.next)
}

fn main() -> anyhow::Result<()> {
    let Arguments { loader: arguments, state: path, steps } = Arguments::parse();
    let loader = arguments.build()?;
    let from = stored_position(&path, &loader)?;

    let mut next = from;
    // The end may be as far as one likes: what is not asked for is not delivered.
    for batch in loader.stream(from, Position::start_of(u64::MAX))?.take(steps) {
        let batch = batch?;
        let Position { epoch, step } = batch.position();
        let first: Vec<u64> = batch.sample_ids().iter().map(|id| id.0).take(6).collect();
        println!("epoch {epoch}, step {step}: samples {first:?} …");
        next = Position { epoch, step: step + 1 };
    }

    let state = State { next, order: loader.order_digest() };
    fs::write(&path, serde_json::to_vec(&state)?)
        .with_context(|| format!("could not write `{}`", path.display()))?;
    println!("stopped before step {} of epoch {}; run again to go on", next.step, next.epoch);
    Ok(())
}
