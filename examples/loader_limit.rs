//! Measures what no loader can exceed: decoding and resizing alone.
//!
//! All JPEGs are read into memory first. Each thread then takes one after another, decodes all of it with TurboJPEG, and
//! resizes a random crop bicubically with `fast_image_resize`: the libraries that loaders are built from, and nothing
//! around them. A loader that is faster does less work, or has better kernels.

#![allow(clippy::print_stdout, reason = "a tool prints what it has measured")]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use fastclip_examples::{cpu_seconds, open};
use fastclip_shards::Dataset;
use serde_json::json;
use turbojpeg::{Decompressor, PixelFormat};

#[derive(Parser)]
#[command(about = "Measure decoding and resizing alone, and print one line of JSON")]
struct Arguments {
    /// Folder or manifest of a dataset of JPEGs, a path or a URL.
    #[arg(long)]
    data: String,
    /// Threads.
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Side of the result, in pixels.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Images to decode.
    #[arg(long, default_value_t = 10_000)]
    samples: usize,
}

async fn read_all(dataset: &Dataset) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut images = Vec::new();
    for shard in 0..dataset.manifest().shards.len() {
        let index = dataset.index(shard).await?;
        let run = dataset.fetch(shard, &index, 0..index.len()).await?;
        for position in run.samples() {
            let sample = run.sample(position)?;
            images.push(sample.member("jpg").context("a sample is no JPEG")?.to_vec());
        }
    }
    Ok(images)
}

/// What a thread keeps between images.
struct Worker {
    decompressor: Decompressor,
    resizer: Resizer,
    pixels: Vec<u8>,
    square: Vec<u8>,
}

impl Worker {
    fn work(&mut self, jpeg: &[u8], number: usize, size: u32) -> anyhow::Result<()> {
        let header = self.decompressor.read_header(jpeg)?;
        let (width, height) = (header.width, header.height);
        self.pixels.resize(width * height * 3, 0);
        let pixels = &mut self.pixels[..];
        let output = turbojpeg::Image { pixels, width, pitch: width * 3, height, format: PixelFormat::RGB };
        self.decompressor.decompress(jpeg, output)?;

        // Sides of 95 to 100 %, at all places: as much as OpenCLIP's crops show.
        let fraction = 0.95 + 0.05 * (number % 101) as f64 / 100.0;
        let part = |length: usize, step: usize| {
            let kept = (length as f64 * fraction) as u32;
            ((number * step) as u32 % (length as u32 - kept + 1), kept)
        };
        let ((left, across), (top, down)) = (part(width, 7), part(height, 13));
        let image = TypedImageRef::<U8x3>::from_buffer(width as u32, height as u32, &self.pixels)?;
        let crop = TypedCroppedImage::from_ref(&image, left, top, across, down)?;
        self.square.resize((size * size * 3) as usize, 0);
        let mut square = TypedImage::<U8x3>::from_buffer(size, size, &mut self.square)?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
        self.resizer.resize_typed(&crop, &mut square, &options)?;
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let Arguments { data, threads, size, samples } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dataset = open(&data)?;
    let jpegs = runtime.block_on(read_all(&dataset))?;
    anyhow::ensure!(!jpegs.is_empty(), "`{data}` holds no sample");

    let next = AtomicUsize::new(0);
    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    std::thread::scope(|scope| {
        let run = || -> anyhow::Result<()> {
            let mut worker = Worker {
                decompressor: Decompressor::new()?,
                resizer: Resizer::new(),
                pixels: Vec::new(),
                square: Vec::new(),
            };
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= samples {
                    return Ok(());
                }
                worker.work(&jpegs[number % jpegs.len()], number, size)?;
            }
        };
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(run)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker returns its errors"))
    })?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - start_cpu);
    println!(
        "{}",
        json!({
            "samples": samples,
            "seconds": seconds,
            "images_per_second": samples as f64 / seconds,
            "cpu_seconds": cpu,
            "images_per_cpu_second": samples as f64 / cpu,
        })
    );
    Ok(())
}
