//! Measures what no `ingest download` can exceed: decoding, resizing and encoding alone.
//!
//! All JPEGs are read into memory first. Each thread then takes one after another, decodes it with TurboJPEG at the
//! smallest fraction of its size that suffices, shrinks it by area with `fast_image_resize`, and encodes it. There are no
//! requests, no digests, no metadata and no shards.

#![allow(clippy::print_stdout, reason = "a tool prints what it has measured")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use fastclip_examples::cpu_seconds;
use serde_json::json;
use turbojpeg::{Compressor, Decompressor, PixelFormat, ScalingFactor, Subsamp};

/// Fractions of its size at which a JPEG is decoded in less time.
const FRACTIONS: [ScalingFactor; 3] =
    [ScalingFactor::ONE_EIGHTH, ScalingFactor::ONE_QUARTER, ScalingFactor::ONE_HALF];

#[derive(Parser)]
#[command(about = "Measure decoding, resizing and encoding alone, and print one line of JSON")]
struct Arguments {
    /// Folder of JPEGs, or of folders of them.
    #[arg(long)]
    images: PathBuf,
    /// Threads.
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// What the shorter side becomes, in pixels. Without it images are decoded whole, and that is all.
    #[arg(long)]
    size: Option<u32>,
    /// Quality of the result.
    #[arg(long, default_value_t = 95)]
    quality: i32,
    /// Images to make.
    #[arg(long, default_value_t = 4_000)]
    samples: usize,
}

/// What a thread keeps between images.
struct Worker {
    decompressor: Decompressor,
    resizer: Resizer,
    compressor: Compressor,
    decoded: Vec<u8>,
    resized: Vec<u8>,
}

impl Worker {
    fn new(quality: i32) -> anyhow::Result<Self> {
        let mut compressor = Compressor::new()?;
        compressor.set_quality(quality)?;
        compressor.set_subsamp(Subsamp::Sub2x2)?;
        Ok(Self {
            decompressor: Decompressor::new()?,
            resizer: Resizer::new(),
            compressor,
            decoded: Vec::new(),
            resized: Vec::new(),
        })
    }

    /// Returns the bytes of the result, or 0 without a size.
    fn work(&mut self, jpeg: &[u8], size: Option<u32>) -> anyhow::Result<usize> {
        let header = self.decompressor.read_header(jpeg)?;
        let (width, height) = size.map_or((header.width, header.height), |size| {
            let short = header.width.min(header.height) as f64;
            let scale = |length: usize| (length as f64 * f64::from(size) / short).round() as usize;
            (scale(header.width), scale(header.height))
        });
        let suffices = |fraction: &ScalingFactor| {
            fraction.scale(header.width) >= width && fraction.scale(header.height) >= height
        };
        let fraction = FRACTIONS.into_iter().find(suffices).unwrap_or(ScalingFactor::ONE);
        self.decompressor.set_scaling_factor(fraction)?;
        let from = header.scaled(fraction);
        self.decoded.resize(from.width * from.height * 3, 0);
        let output = turbojpeg::Image {
            pixels: &mut self.decoded[..],
            width: from.width,
            pitch: from.width * 3,
            height: from.height,
            format: PixelFormat::RGB,
        };
        self.decompressor.decompress(jpeg, output)?;
        if size.is_none() {
            return Ok(0);
        }
        let pixels = if (from.width, from.height) == (width, height) {
            &self.decoded
        } else {
            self.resized.resize(width * height * 3, 0);
            let (across, down) = (from.width as u32, from.height as u32);
            let large = TypedImageRef::<U8x3>::from_buffer(across, down, &self.decoded)?;
            let mut small = TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut self.resized)?;
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Box));
            self.resizer.resize_typed(&large, &mut small, &options)?;
            &self.resized
        };
        let image = turbojpeg::Image {
            pixels: pixels.as_slice(),
            width,
            pitch: width * 3,
            height,
            format: PixelFormat::RGB,
        };
        Ok(self.compressor.compress_to_vec(image)?.len())
    }
}

/// Reads the JPEGs of a folder and of all folders in it.
fn read_folder(folder: &Path, jpegs: &mut Vec<Vec<u8>>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not list `{}`", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, jpegs)?;
        } else if path.extension().is_some_and(|extension| extension == "jpg") {
            jpegs.push(fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?);
        }
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let Arguments { images, threads, size, quality, samples } = Arguments::parse();
    let mut jpegs = Vec::new();
    read_folder(&images, &mut jpegs)?;
    anyhow::ensure!(!jpegs.is_empty(), "`{}` has no JPEG in it", images.display());

    let (next, num_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    std::thread::scope(|scope| {
        let run = || -> anyhow::Result<()> {
            let mut worker = Worker::new(quality)?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= samples {
                    return Ok(());
                }
                num_bytes.fetch_add(worker.work(&jpegs[number % jpegs.len()], size)?, Ordering::Relaxed);
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
            "cpu_seconds": cpu,
            "images_per_cpu_second": samples as f64 / cpu,
            "mean_bytes": num_bytes.into_inner() / samples.max(1),
        })
    );
    Ok(())
}
