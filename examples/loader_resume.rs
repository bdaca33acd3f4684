//! Reads a few batches, notes where it stopped, and goes on from there when it is run again.
//!
//! All that has to be stored is the state of the stream. It knows the order that it belongs to: run the example with another
//! dataset, seed or batch size, and the loader refuses.
//!
//! The toy set is what `scripts/demo` makes.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_resume -- --data runs/toy-world/shards/train --state state.json
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use fastclip_examples::LoaderArguments;
use fastclip_loader::StreamState;
use fastclip_schemas::Position;

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

/// What an earlier run has stored, if there was one.
fn stored(path: &Path) -> anyhow::Result<Option<StreamState>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("could not read `{}`", path.display()))?,
    };
    serde_json::from_slice(&text).with_context(|| format!("`{}` is no state of a stream", path.display()))
}

fn main() -> anyhow::Result<()> {
    let Arguments { loader: arguments, state: path, steps } = Arguments::parse();
    let loader = arguments.build()?;
    // The end may be as far as one likes: what is not asked for is not delivered.
    let until = Position::start_of(u64::MAX);
    let mut batches = match stored(&path)? {
        Some(state) => loader.resume(state, until)?,
        None => loader.stream(Position::default(), until)?,
    };

    for batch in batches.by_ref().take(steps) {
        let batch = batch?;
        let Position { epoch, step } = batch.position();
        let first: Vec<u64> = batch.sample_ids().iter().map(|id| id.0).take(6).collect();
        println!("epoch {epoch}, step {step}: samples {first:?} …");
    }

    let state = batches.state();
    fs::write(&path, serde_json::to_vec(&state)?)
        .with_context(|| format!("could not write `{}`", path.display()))?;
    println!("stopped before step {} of epoch {}; run again to go on", state.next.step, state.next.epoch);
    Ok(())
}
