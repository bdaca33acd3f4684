use std::ops::Range;

/// Bits of a weight after the point. Pillow's: 32, less 8 of a value and 2 for sums beyond 255.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half the width of the cubic, in pixels of the result where it is smaller.
const SUPPORT: f64 = 2.0;

/// How the pixels of one direction become others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    /// First pixel of the image that the filter may touch.
    pub(crate) low: u32,
    /// Pixels from there on that it may touch.
    pub(crate) pixels: u32,
    /// Where the part begins that is resized, in pixels after `low`.
    pub(crate) start: f64,
    /// Its length in pixels.
    pub(crate) length: f64,
    /// Pixels that the part becomes.
    pub(crate) resized: u32,
    /// First of these that is kept.
    pub(crate) first: u32,
    /// How many of them are kept.
    pub(crate) kept: u32,
}

/// Which pixels make up each pixel of a result, and with what weights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taps {
    /// First pixel of the image for each of the result.
    firsts: Vec<u32>,
    /// Where the weights of each begin, and after the last one their end.
    ends: Vec<usize>,
    weights: Vec<i32>,
    scratch: Vec<f64>,
}

impl Taps {
    /// Computes the weights of an axis as Pillow does, in the same order of operations on doubles.
    pub(crate) fn compute(&mut self, axis: &Axis) {
        let Axis { low, pixels, start, length, resized, first, kept } = *axis;
        let scale = length / f64::from(resized);
        // When shrinking, the filter is widened to cover all pixels: that is the antialiasing.
        let widened = scale.max(1.0);
        let support = SUPPORT * widened;
        let inverse = 1.0 / widened;
        self.firsts.clear();
        self.weights.clear();
        self.ends.clear();
        self.ends.push(0);
        for output in first..first + kept {
            let centre = start + (f64::from(output) + 0.5) * scale;
            let from = (centre - support + 0.5).max(0.0) as u32;
            let to = ((centre + support + 0.5) as u32).min(pixels);
            self.scratch.clear();
            self.scratch.extend((from..to).map(|pixel| cubic((f64::from(pixel) - centre + 0.5) * inverse)));
            let sum: f64 = self.scratch.iter().sum();
            self.firsts.push(low + from);
            self.weights.extend(self.scratch.iter().map(|&weight| fixed_point(weight / sum)));
            self.ends.push(self.weights.len());
        }
    }

    /// Pixels of the result.
    pub(crate) fn len(&self) -> usize {
        self.firsts.len()
    }

    /// First pixel of the image, and weights from there on, for one pixel of the result.
    pub(super) fn of(&self, output: usize) -> (u32, &[i32]) {
        (self.firsts[output], &self.weights[self.ends[output]..self.ends[output + 1]])
    }

    /// Pixels of the image that matter.
    pub(crate) fn touched(&self) -> Range<u32> {
        // Neither the first nor the last pixel of a tap ever goes back.
        let (Some(&first), Some(last)) = (self.firsts.first(), self.len().checked_sub(1)) else {
            return 0..0;
        };
        let (start, weights) = self.of(last);
        first..start + weights.len() as u32
    }
}

/// The cubic with a = −0.5, in Pillow's order of operations.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    // Both at once: which one it is changes from tap to tap, and no processor would guess it.
    let inner = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let outer = (((x - 5.0) * x + 8.0) * x - 4.0) * A;
    let outer = if x < 2.0 { outer } else { 0.0 };
    if x < 1.0 { inner } else { outer }
}

/// Rounds half away from zero.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(pixels: u32, resized: u32) -> Axis {
        Axis { low: 0, pixels, start: 0.0, length: f64::from(pixels), resized, first: 0, kept: resized }
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_touch_only_what_they_may(
            pixels in 1_u32..3000,
            resized in 1_u32..600,
            low in 0_u32..50,
        ) {
            let mut taps = Taps::default();
            taps.compute(&Axis { low, ..axis(pixels, resized) });
            prop_assert_eq!(taps.len(), resized as usize);
            for output in 0..taps.len() {
                let (first, weights) = taps.of(output);
                prop_assert!(first >= low && first + weights.len() as u32 <= low + pixels);
                let sum: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
                prop_assert!((sum - (1 << PRECISION_BITS)).unsigned_abs() <= weights.len() as u64);
                // Kernels rely on it: more would not fit into three digits.
                prop_assert!(weights.iter().all(|weight| weight.unsigned_abs() < 127 << 16));
            }
        }
    }

    #[test]
    fn an_axis_that_keeps_its_size_keeps_its_pixels() {
        let mut taps = Taps::default();
        taps.compute(&axis(9, 9));
        for output in 0..9 {
            let (first, weights) = taps.of(output);
            let shown: Vec<i32> = weights.iter().map(|weight| weight >> PRECISION_BITS).collect();
            assert_eq!(shown.iter().sum::<i32>(), 1);
            assert_eq!(shown[output - first as usize], 1);
        }
    }

    #[test]
    fn keeping_a_part_keeps_its_weights() {
        let (mut whole, mut part) = (Taps::default(), Taps::default());
        whole.compute(&axis(100, 40));
        part.compute(&Axis { first: 12, kept: 20, ..axis(100, 40) });
        for output in 0..20 {
            assert_eq!(part.of(output), whole.of(output + 12));
        }
        assert_eq!(whole.touched(), 0..100);
        assert!(part.touched().start > 20 && part.touched().end < 90);
    }
}
