//! Reads another modality than images: depth maps, 16 bits a pixel, as numbers between 0 and 1. Writes a small set of them
//! first, into a folder of its own.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_custom_decode
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use fastclip_examples::open;
use fastclip_loader::{Augmentation, Content, Loader, SampleDecoder};
use fastclip_schemas::Position;
use fastclip_shards::{DatasetWriter, Sample, Store, StoreOptions, WriterOptions};

#[derive(Parser)]
#[command(about = "Read depth maps by a decoder of one's own")]
struct Arguments {
    /// Where the depth maps are written, if nothing is there yet.
    #[arg(long, default_value = "target/depth")]
    data: PathBuf,
    /// Side of the squares in a batch, in pixels.
    #[arg(long, default_value_t = 32)]
    size: usize,
}

const NUM_MAPS: u16 = 200;
/// Every map has as many rows and columns as its number says, beyond these.
const SMALLEST: u16 = 40;

/// Cuts a square out of a depth map, anywhere, and turns millimetres into numbers between 0 and 1.
///
/// A map is stored as `depth`: width and height, then rows of pixels, all in 16 bits, the lower half first.
#[derive(Debug)]
struct DepthDecoder {
    size: usize,
}

impl SampleDecoder for DepthDecoder {
    fn num_bytes(&self) -> usize {
        self.size * self.size * size_of::<f32>()
    }

    fn decode(
        &self,
        sample: &Sample<'_>,
        augmentation: Augmentation,
        out: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let bytes = sample.member("depth").ok_or("there is no depth map")?;
        let values: Vec<u16> = bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect();
        let [width, height, ref pixels @ ..] = values[..] else { return Err("it has no size".into()) };
        let (width, height) = (usize::from(width), usize::from(height));
        if pixels.len() != width * height || width.min(height) < self.size {
            return Err(format!("{} pixels are no map of {width} by {height}", pixels.len()).into());
        }
        // Nothing but seed, epoch and sample decides, so that an epoch is the same on any number of threads.
        let Augmentation { seed, epoch, sample } = augmentation;
        let chance = (seed ^ epoch << 32 ^ sample.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let left = chance as usize % (width - self.size + 1);
        let top = chance as usize / 1009 % (height - self.size + 1);
        for (row, out) in out.chunks_exact_mut(self.size * size_of::<f32>()).enumerate() {
            let depths = &pixels[(top + row) * width + left..][..self.size];
            for (out, &depth) in out.as_chunks_mut().0.iter_mut().zip(depths) {
                *out = (f32::from(depth) / f32::from(u16::MAX)).to_ne_bytes();
            }
        }
        Ok(())
    }
}

/// A slope whose direction depends on its number.
fn map(number: u16) -> Vec<u8> {
    let (width, height) = (SMALLEST + number % 17, SMALLEST + number % 23);
    let depth = |x, y| (x * number % 500 + y * 100) * 5;
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| depth(x, y)));
    [width, height].into_iter().chain(pixels).flat_map(u16::to_le_bytes).collect()
}

async fn write(folder: &str) -> anyhow::Result<()> {
    let store = Store::create(folder, &StoreOptions::from_process())?;
    let mut writer = DatasetWriter::new(store, WriterOptions::default());
    for number in 0..NUM_MAPS {
        let caption = format!("slope number {number}");
        writer.append(&[("depth", &map(number)), ("txt", caption.as_bytes())]).await?;
    }
    writer.finish(BTreeMap::new()).await?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let Arguments { data, size } = Arguments::parse();
    let location = data.display().to_string();
    if !data.join("manifest.json").exists() {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(write(&location))?;
    }
    let loader = Loader::builder(open(&location)?)
        .global_batch(NonZeroUsize::new(50).expect("50 is not 0"))
        .content(Content::Decoded(Arc::new(DepthDecoder { size })))
        .build()?;
    for batch in loader.stream(Position::default(), Position::start_of(1))? {
        let batch = batch?;
        let depths = batch.images().as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes));
        let mean = depths.sum::<f32>() / (batch.len() * size * size) as f32;
        println!("step {}: {} maps, mean depth {mean:.4}", batch.position().step, batch.len());
    }
    println!("{}", loader.stats());
    Ok(())
}
