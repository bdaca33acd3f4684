//! Decodes all JPEGs of folders with the crate and with TurboJPEG alone, in turn, and prints what both take.
//!
//! `cargo bench -p fastclip-images --bench decode -- FOLDER...`
//!
//! Of each image the shortest time of all rounds counts, so that other programs disturb little. Rounds go through the whole
//! folder, lest a processor learns an image by heart.

#![allow(clippy::print_stdout, reason = "the result of a benchmark is what it prints")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use fastclip_images::ImageDecoder;
use turbojpeg::{Decompressor, Image, PixelFormat};

const ROUNDS: usize = 15;
const MAX_IMAGES: usize = 200;

fn images(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    paths.iter().take(MAX_IMAGES).map(fs::read).collect()
}

/// Decodes the bytes of a file.
type Decode<'a> = &'a mut dyn FnMut(&[u8]);

/// The sum over images of the shortest times.
fn measure(images: &[Vec<u8>], mut decoders: [Decode<'_>; 2]) -> [Duration; 2] {
    let mut shortest = vec![[Duration::MAX; 2]; images.len()];
    for _ in 0..ROUNDS {
        for (at, decode) in decoders.iter_mut().enumerate() {
            for (image, shortest) in images.iter().zip(&mut shortest) {
                let start = Instant::now();
                decode(image);
                shortest[at] = shortest[at].min(start.elapsed());
            }
        }
    }
    [0, 1].map(|at| shortest.iter().map(|times| times[at]).sum())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo passes `--bench`.
    for folder in env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        let images = images(Path::new(&folder))?;
        if images.is_empty() {
            return Err(format!("`{folder}` holds no `.jpg` file").into());
        }
        let mut ours = ImageDecoder::new()?;
        let (mut turbo, mut pixels) = (Decompressor::new()?, Vec::new());
        let mut with_ours = |image: &[u8]| {
            black_box(ours.decode(image).expect("the images are sound"));
        };
        let mut with_turbo = |image: &[u8]| {
            let header = turbo.read_header(image).expect("the images are sound");
            let (width, height) = (header.width, header.height);
            pixels.resize(width * height * 3, 0);
            let target =
                Image { pixels: &mut pixels[..], width, pitch: width * 3, height, format: PixelFormat::RGB };
            turbo.decompress(image, target).expect("the images are sound");
            black_box(&pixels);
        };
        let [ours, turbo] = measure(&images, [&mut with_ours, &mut with_turbo]);
        let num_bytes: usize = images.iter().map(Vec::len).sum();
        let per_image = |time: Duration| time.as_secs_f64() * 1e6 / images.len() as f64;
        println!(
            "{folder}: {} images of {:.1} kB; ours {:.1} µs, TurboJPEG {:.1} µs an image, {:.2} times as fast",
            images.len(),
            num_bytes as f64 / 1e3 / images.len() as f64,
            per_image(ours),
            per_image(turbo),
            turbo.as_secs_f64() / ours.as_secs_f64(),
        );
    }
    Ok(())
}
