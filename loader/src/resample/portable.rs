//! The passes in plain arithmetic: what the other kernels must give.

use super::axis::PRECISION_BITS;
use super::weights::{TAPS, Weights};
use super::{CHANNELS, STRIP_ROWS};

pub(super) const WORDS: usize = TAPS;

/// Half of the last bit that is kept.
const ROUND: i32 = 1 << (PRECISION_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

pub(super) fn across(rows: [&[u8]; STRIP_ROWS], columns: &Weights, strip: &mut [u8], width: usize) {
    for column in 0..columns.len() {
        let words = columns.words(column);
        let at = columns.start(column) * CHANNELS;
        for (number, row) in rows.iter().enumerate() {
            let mut sums = [ROUND; CHANNELS];
            for (pixel, &weight) in row[at..].chunks_exact(CHANNELS).zip(words) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(i32::from(value) * weight);
                }
            }
            for (channel, sum) in sums.into_iter().enumerate() {
                strip[(channel * width + column) * STRIP_ROWS + number] = to_byte(sum);
            }
        }
    }
}

pub(super) fn down(strips: &[u8], pitch: usize, words: &[i32], output: &mut [u8]) {
    for (column, output) in output.iter_mut().enumerate() {
        let mut sum = ROUND;
        for (block, weights) in words.chunks_exact(TAPS).enumerate() {
            let values = &strips[block * pitch + column * STRIP_ROWS..][..STRIP_ROWS];
            for (&value, &weight) in values.iter().zip(weights) {
                sum = sum.wrapping_add(i32::from(value) * weight);
            }
        }
        *output = to_byte(sum);
    }
}
