//! Writes what a loader delivers as files that NumPy reads, to compare it with other loaders value by value.
//!
//! The toy set is what `scripts/demo` makes.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_dump -- --data runs/toy-world/shards/train --transform train \
//!     --quality exact --samples 100 --output dump
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `images.npy` | bytes, (samples, 3, size, size) |
//! | `tokens.npy` | `i32`, (samples, context length) |
//! | `lengths.npy` | `i32`, (samples): tokens that are not padding |
//! | `ids.npy` | `u64`, (samples) |
//! | `keys.txt` | the key of each sample in its shard, one a line |

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use fastclip_examples::{NpyFile, QualityArgument, open};
use fastclip_loader::{Loader, Order, Tail, Transform};
use fastclip_schemas::Position;

#[derive(Parser)]
#[command(about = "Write what a loader delivers as files that NumPy reads")]
struct Arguments {
    /// Folder or manifest of a dataset, a path or a URL.
    #[arg(long)]
    data: String,
    /// What becomes of images. For evaluation, samples come in the order of the dataset.
    #[arg(long, value_enum, default_value_t = TransformArgument::Train)]
    transform: TransformArgument,
    /// How close to Pillow's pixels images come.
    #[arg(long, value_enum, default_value_t = QualityArgument::Exact)]
    quality: QualityArgument,
    /// Side of the images, in pixels.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Samples in a batch, on which the order depends.
    #[arg(long, default_value = "64")]
    batch_size: NonZeroUsize,
    /// Seed of order and augmentation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The epoch to read from its start.
    #[arg(long, default_value_t = 0)]
    epoch: u64,
    /// Samples to write; all of an epoch at most.
    #[arg(long)]
    samples: usize,
    /// Folder for the files; made if it does not exist.
    #[arg(long)]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum TransformArgument {
    Train,
    Eval,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { size, batch_size, seed, epoch, samples, output, .. } = &arguments;
    let dataset = open(&arguments.data)?;
    let (order, transform) = match arguments.transform {
        TransformArgument::Train => (Order::Shuffled { seed: *seed }, Transform::train(*size)),
        TransformArgument::Eval => (Order::Sequential, Transform::eval(*size)),
    };
    let num_samples =
        usize::try_from(dataset.manifest().num_samples).map_or(*samples, |all| all.min(*samples));
    let loader = Loader::builder(dataset)
        .global_batch(*batch_size)
        .order(order)
        .tail(Tail::Keep)
        .transform(transform)
        .quality(arguments.quality.into())
        .build()
        .context("could not build the loader")?;

    let mut images = Vec::with_capacity(num_samples * transform.image_bytes());
    let (mut tokens, mut lengths, mut ids, mut keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for batch in loader.stream(Position::start_of(*epoch), Position::start_of(epoch + 1))? {
        let batch = batch?;
        let wanted = batch.len().min(num_samples - ids.len());
        images.extend_from_slice(&batch.images()[..wanted * transform.image_bytes()]);
        tokens.extend_from_slice(&batch.tokens()[..wanted * batch.context_length()]);
        lengths.extend_from_slice(&batch.lengths()[..wanted]);
        ids.extend_from_slice(&batch.sample_ids()[..wanted]);
        keys.extend_from_slice(&batch.keys()[..wanted]);
        if ids.len() == num_samples {
            break;
        }
    }

    fs::create_dir_all(output).with_context(|| format!("could not make `{}`", output.display()))?;
    let side = *size as usize;
    let write = |name, kind, shape: &[usize], bytes: &[u8]| -> anyhow::Result<()> {
        let mut file = NpyFile::create(&output.join(name), kind, shape)?;
        file.append(bytes)?;
        file.finish()
    };
    let bytes_of = |values: &[i32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let num_samples = ids.len();
    let context_length = tokens.len().checked_div(num_samples).unwrap_or(0);
    write("images.npy", "|u1", &[num_samples, 3, side, side], &images)?;
    write("tokens.npy", "<i4", &[num_samples, context_length], &bytes_of(&tokens))?;
    write("lengths.npy", "<i4", &[num_samples], &bytes_of(&lengths))?;
    let id_bytes: Vec<u8> = ids.iter().flat_map(|id| id.0.to_le_bytes()).collect();
    write("ids.npy", "<u8", &[num_samples], &id_bytes)?;
    fs::write(output.join("keys.txt"), keys.join("\n") + "\n")?;
    Ok(())
}
