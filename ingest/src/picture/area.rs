//! Shrinking by the mean over the area that a pixel covers, as OpenCV's `INTER_AREA` does.
//!
//! Both passes run in integers: weights have 14 bits after the point, and what lies between the passes has 8. Down the columns
//! first, where neighbouring values share a weight. What comes of eight lines lies side by side, so that they share the weights of the second
//! pass, too: the compiler makes vectors of both.

use multiversion::multiversion;

use super::CHANNELS;

const WEIGHT_BITS: u32 = 14;
/// Bits after the point of what lies between the passes.
const KEPT_BITS: u32 = 8;
/// Lines of the result that are computed side by side.
const LINES: usize = 8;

/// Shrinks an image, or leaves a side as it is.
///
/// # Panics
/// When the buffers do not have the sizes, or a side would grow.
pub(crate) fn shrink(
    from: &[u8],
    (from_width, from_height): (u32, u32),
    to: &mut [u8],
    (width, height): (u32, u32),
) {
    assert!(width <= from_width && height <= from_height, "{width}×{height} of {from_width}×{from_height}");
    assert_eq!(from.len(), from_width as usize * from_height as usize * CHANNELS);
    assert_eq!(to.len(), width as usize * height as usize * CHANNELS);
    let (columns, lines) = (Coverage::new(from_width, width), Coverage::new(from_height, height));
    let (pitch, to_pitch) = (from_width as usize * CHANNELS, width as usize * CHANNELS);
    let mut sums = vec![0_u32; pitch];
    let mut means = vec![[0_u16; LINES]; pitch];
    let mut values = vec![[0_u8; LINES]; to_pitch];
    for (block, to) in to.chunks_mut(LINES * to_pitch).enumerate() {
        for at in 0..to.len() / to_pitch {
            sums.fill(1 << (WEIGHT_BITS - KEPT_BITS - 1));
            for (row, weight) in lines.of(block * LINES + at) {
                add_row(&mut sums, &from[row * pitch..(row + 1) * pitch], weight);
            }
            for (kept, sum) in means.iter_mut().zip(&sums) {
                kept[at] = (sum >> (WEIGHT_BITS - KEPT_BITS)) as u16;
            }
        }
        shrink_rows(&means, &columns, &mut values);
        for (at, line) in to.chunks_exact_mut(to_pitch).enumerate() {
            line.iter_mut().zip(&values).for_each(|(byte, value)| *byte = value[at]);
        }
    }
}

#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn add_row(sums: &mut [u32], row: &[u8], weight: u32) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += u32::from(*value) * weight;
    }
}

/// The second pass, of eight lines at once.
#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn shrink_rows(means: &[[u16; LINES]], columns: &Coverage, values: &mut [[u8; LINES]]) {
    let (means, _) = means.as_chunks::<CHANNELS>();
    let (values, _) = values.as_chunks_mut::<CHANNELS>();
    for (column, values) in values.iter_mut().enumerate() {
        let mut sums = [[1_u32 << (WEIGHT_BITS + KEPT_BITS - 1); LINES]; CHANNELS];
        for (place, weight) in columns.of(column) {
            for (sums, means) in sums.iter_mut().zip(&means[place]) {
                for (sum, mean) in sums.iter_mut().zip(means) {
                    *sum += u32::from(*mean) * weight;
                }
            }
        }
        for (values, sums) in values.iter_mut().zip(sums) {
            *values = sums.map(|sum| (sum >> (WEIGHT_BITS + KEPT_BITS)) as u8);
        }
    }
}

/// How much of each pixel of a side lies in each pixel of the shorter one.
struct Coverage {
    /// Where the weights of each pixel begin, and the first pixel that they are for.
    starts: Vec<(usize, usize)>,
    /// Weights of a pixel add up to one.
    weights: Vec<u32>,
}

impl Coverage {
    fn new(from: u32, to: u32) -> Self {
        let (mut starts, mut weights) = (Vec::with_capacity(to as usize + 1), Vec::new());
        let (from, to) = (u64::from(from), u64::from(to));
        // In units of 1/to of a pixel of the longer side all borders are whole.
        for pixel in 0..to {
            let (start, end) = (pixel * from, (pixel + 1) * from);
            let (first, last) = (start / to, (end - 1) / to);
            starts.push((weights.len(), first as usize));
            let mut left = 1_u64 << WEIGHT_BITS;
            for place in first..=last {
                let covered = end.min((place + 1) * to) - start.max(place * to);
                // The last one takes what rounding left over.
                let weight = if place == last { left } else { ((covered << WEIGHT_BITS) + from / 2) / from };
                let weight = weight.min(left);
                left -= weight;
                weights.push(weight as u32);
            }
        }
        starts.push((weights.len(), 0));
        Self { starts, weights }
    }

    /// Places and weights of a pixel.
    fn of(&self, pixel: usize) -> impl Iterator<Item = (usize, u32)> + '_ {
        let ((start, first), (end, _)) = (self.starts[pixel], self.starts[pixel + 1]);
        (first..).zip(self.weights[start..end].iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The mean over the area, in floating point.
    fn mean(from: &[u8], (from_width, from_height): (u32, u32), (width, height): (u32, u32)) -> Vec<f64> {
        let overlap = |pixel: u32, place: u32, scale: f64| {
            let (start, end) = (f64::from(pixel) * scale, f64::from(pixel + 1) * scale);
            (end.min(f64::from(place + 1)) - start.max(f64::from(place))).max(0.0) / scale
        };
        let (across, down) =
            (f64::from(from_width) / f64::from(width), f64::from(from_height) / f64::from(height));
        let mut means = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for channel in 0..CHANNELS {
                    let mut sum = 0.0;
                    for row in 0..from_height {
                        for column in 0..from_width {
                            let value = from[(row * from_width + column) as usize * CHANNELS + channel];
                            sum += f64::from(value) * overlap(y, row, down) * overlap(x, column, across);
                        }
                    }
                    means.push(sum);
                }
            }
        }
        means
    }

    proptest! {
        #[test]
        fn a_pixel_is_the_mean_of_what_it_covers(
            (from_size, to_size, seed) in (1_u32..24, 1_u32..24).prop_flat_map(|(width, height)| {
                (Just((width, height)), (1..=width, 1..=height), any::<u64>())
            })
        ) {
            let mut state = seed;
            let from: Vec<u8> = (0..from_size.0 * from_size.1 * 3)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let mut to = vec![0; (to_size.0 * to_size.1 * 3) as usize];
            shrink(&from, from_size, &mut to, to_size);
            for (found, expected) in to.iter().zip(mean(&from, from_size, to_size)) {
                prop_assert!((f64::from(*found) - expected).abs() <= 0.6, "{found} is not {expected}");
            }
        }
    }
}
