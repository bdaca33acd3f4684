//! 64 bits of what a picture shows, which survive another size, another quality and small changes of colour.
//!
//! It is `pHash`'s idea: the picture is made grey and 32 pixels wide and high, and of its cosine transform the eight lowest
//! frequencies of both directions, without the mean, are compared with their median. So half of the bits are set.

use std::f64::consts::PI;
use std::sync::LazyLock;

use fastclip_images::{ImageDecoder, Part};

use crate::picture::shrink_by_area;

/// Pixels of a side.
const SIDE: usize = 32;

/// Frequencies of a direction, from 1 on.
const FREQUENCIES: usize = 8;

/// Less than this, in levels of grey at its strongest frequency, is nothing to see: a blank picture is like all others.
const LEAST_AMPLITUDE: f64 = 2.0;

static COSINES: LazyLock<[[f64; SIDE]; FREQUENCIES]> = LazyLock::new(|| {
    std::array::from_fn(|frequency| {
        std::array::from_fn(|at| {
            ((2 * at + 1) as f64 * (frequency + 1) as f64 * PI / (2 * SIDE) as f64).cos()
        })
    })
});

/// Nothing where an image cannot be decoded, is smaller than [`SIDE`], or shows nothing.
pub(super) fn picture_hash(decoder: &mut ImageDecoder, image: &[u8]) -> Option<u64> {
    let opened = decoder.open(image).ok()?;
    let (width, height) = opened.size();
    let suffices = |shrink: &u32| width.min(height) / shrink >= SIDE as u32;
    let shrink = if opened.is_scalable() { [8, 4, 2].into_iter().find(suffices) } else { None }.unwrap_or(1);
    let part = Part { shrink, ..Part::whole((width.div_ceil(shrink), height.div_ceil(shrink))) };
    let window = opened.decode(&part).ok()?;
    if window.width.min(window.height) < SIDE as u32 {
        return None;
    }
    let mut small = vec![0; SIDE * SIDE * 3];
    shrink_by_area(window.bytes, (window.width, window.height), &mut small, (SIDE as u32, SIDE as u32));
    let grey: Vec<f64> = small.chunks_exact(3).map(grey).collect();
    hash(&grey)
}

/// Brightness as television has it.
fn grey(pixel: &[u8]) -> f64 {
    0.299 * f64::from(pixel[0]) + 0.587 * f64::from(pixel[1]) + 0.114 * f64::from(pixel[2])
}

fn hash(grey: &[f64]) -> Option<u64> {
    let dot = |a: &[f64], b: &[f64; SIDE]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut values = [0.0; FREQUENCIES * FREQUENCIES];
    for (across, cosines) in COSINES.iter().enumerate() {
        let lines: Vec<f64> = grey.chunks_exact(SIDE).map(|line| dot(line, cosines)).collect();
        for (down, cosines) in COSINES.iter().enumerate() {
            values[down * FREQUENCIES + across] = dot(&lines, cosines);
        }
    }
    let strongest = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    // The squares of a cosine add up to half of the side.
    if strongest < LEAST_AMPLITUDE * (SIDE * SIDE / 4) as f64 {
        return None;
    }
    let mut sorted = values;
    sorted.sort_by(f64::total_cmp);
    let median = f64::midpoint(sorted[sorted.len() / 2 - 1], sorted[sorted.len() / 2]);
    Some(values.iter().enumerate().fold(0, |hash, (at, value)| hash | u64::from(*value > median) << at))
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    /// Light and dark spots, of which another seed draws others.
    fn scene(seed: u64, side: u32) -> RgbImage {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || f64::from(random.next_u32()) / f64::from(u32::MAX);
        let spots: Vec<[f64; 4]> =
            (0..24).map(|_| [draw(), draw(), 0.03 + 0.1 * draw(), draw() - 0.5]).collect();
        RgbImage::from_fn(side, side, |x, y| {
            let (x, y) = (f64::from(x) / f64::from(side), f64::from(y) / f64::from(side));
            let spot = |[across, down, size, strength]: &[f64; 4]| {
                let distance = (x - across).powi(2) + (y - down).powi(2);
                strength * (-distance / (2.0 * size * size)).exp()
            };
            let value = (0.5 + spots.iter().map(spot).sum::<f64>()).clamp(0.0, 1.0) * 255.0;
            image::Rgb([value as u8, (value * 0.8) as u8, (255.0 - value) as u8])
        })
    }

    fn hash_of(image: &RgbImage, quality: Option<i32>) -> Option<u64> {
        let bytes = match quality {
            Some(quality) => {
                let (width, height) = (image.width() as usize, image.height() as usize);
                let pixels = image.as_raw().as_slice();
                let format = turbojpeg::PixelFormat::RGB;
                let image = turbojpeg::Image { pixels, width, pitch: 3 * width, height, format };
                turbojpeg::compress(image, quality, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
            }
            None => {
                let mut bytes = Vec::new();
                image.write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
                bytes
            }
        };
        picture_hash(&mut ImageDecoder::new().unwrap(), &bytes)
    }

    #[test]
    fn another_size_quality_or_format_is_near_and_another_picture_is_not() {
        let hashes: Vec<u64> = (0..20).map(|seed| hash_of(&scene(seed, 300), None).unwrap()).collect();
        for (seed, hash) in (0..).zip(&hashes) {
            for (side, quality) in [(300, Some(60)), (150, Some(90)), (500, None)] {
                let near = hash_of(&scene(seed, side), quality).unwrap();
                assert!((hash ^ near).count_ones() <= 7, "{seed} at {side} differs in {:064b}", hash ^ near);
            }
            for other in hashes.iter().filter(|other| *other != hash) {
                assert!((hash ^ other).count_ones() > 14, "{hash:x} and {other:x}");
            }
        }
    }

    #[test]
    fn half_of_the_bits_are_set_unless_there_is_nothing_to_see() {
        assert_eq!(hash_of(&scene(3, 200), Some(80)).unwrap().count_ones(), 32);
        assert_eq!(hash_of(&RgbImage::from_pixel(64, 64, image::Rgb([9, 9, 9])), None), None);
        assert_eq!(hash_of(&scene(3, 31), None), None);
    }
}
