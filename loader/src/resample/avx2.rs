//! The passes with AVX2's multiply-adds: pairs of 16 bits, added to 32.

#![expect(unsafe_code, reason = "loads and stores of vectors")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_extract_epi32, _mm_loadu_si128, _mm_packs_epi32, _mm_packus_epi16, _mm_set_epi8,
    _mm_shuffle_epi8, _mm_storel_epi64, _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set_m128i, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_slli_epi32, _mm256_srai_epi32, _mm256_srli_epi16,
};

use super::axis::PRECISION_BITS;
use super::weights::{TAPS, Weights};
use super::{CHANNELS, COLUMNS, READ_BYTES, STRIP_ROWS};

/// Even and odd taps, for each the lower and the upper digit: two of 16 bits in a word.
pub(super) const WORDS: usize = 4;
/// Bits of the lower digit, which is never negative.
const LOW_BITS: u32 = 15;
/// Columns of a vector in the second pass.
const HALF_COLUMNS: usize = COLUMNS / 2;

pub(super) fn pack(block: [i32; TAPS]) -> [i32; WORDS] {
    let low = |tap: usize| (block[tap] & ((1 << LOW_BITS) - 1)) as u16;
    let high = |tap: usize| (block[tap] >> LOW_BITS) as i16 as u16;
    let pair = |first: u16, second: u16| (u32::from(first) | u32::from(second) << 16) as i32;
    [pair(low(0), low(2)), pair(high(0), high(2)), pair(low(1), low(3)), pair(high(1), high(3))]
}

/// The two sums of digits.
#[derive(Clone, Copy)]
struct Sums {
    low: __m256i,
    high: __m256i,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        Self { low: _mm256_set1_epi32(1 << (PRECISION_BITS - 1)), high: _mm256_setzero_si256() }
    }

    /// Adds four bytes of each lane.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, values: __m256i, words: &[i32; WORDS]) {
        let even = _mm256_and_si256(values, _mm256_set1_epi16(0xff));
        let odd = _mm256_srli_epi16::<8>(values);
        let product = |values, word| _mm256_madd_epi16(values, _mm256_set1_epi32(word));
        let low = _mm256_add_epi32(product(even, words[0]), product(odd, words[2]));
        let high = _mm256_add_epi32(product(even, words[1]), product(odd, words[3]));
        self.low = _mm256_add_epi32(self.low, low);
        self.high = _mm256_add_epi32(self.high, high);
    }

    /// Puts the digits together and cuts off the fraction: eight values, four to a half.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn values(self) -> __m256i {
        let sum = _mm256_add_epi32(self.low, _mm256_slli_epi32::<{ LOW_BITS as i32 }>(self.high));
        _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(sum)
    }
}

/// Sixteen values to bytes, in the order of the four halves.
#[inline]
#[target_feature(enable = "avx2")]
fn to_bytes(first: __m256i, second: __m256i) -> __m128i {
    let words =
        |values| _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
    _mm_packus_epi16(words(first), words(second))
}

#[target_feature(enable = "avx2")]
pub(super) fn across(rows: [&[u8]; STRIP_ROWS], columns: &Weights, strip: &mut [u8], width: usize) {
    let reach = columns.reach() * CHANNELS + READ_BYTES;
    assert!(rows.iter().all(|row| row.len() >= reach), "rows can be read up to {reach}");
    assert!(columns.len() <= width && strip.len() >= CHANNELS * width * STRIP_ROWS);
    // Four pixels to four bytes of each channel.
    let by_channel = _mm_set_epi8(-1, -1, -1, -1, 11, 8, 5, 2, 10, 7, 4, 1, 9, 6, 3, 0);
    let by_channel = _mm256_broadcastsi128_si256(by_channel);
    // Channels of four rows to four rows of each channel.
    let by_row = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    let pointers = rows.map(<[u8]>::as_ptr);
    let load = |first: usize, offset: usize| {
        // SAFETY: offsets are those of blocks, and each row reaches `READ_BYTES` beyond the last of them.
        let row = |row: usize| unsafe { _mm_loadu_si128(pointers[row].add(offset).cast()) };
        _mm256_set_m128i(row(first + 1), row(first))
    };
    for column in 0..columns.len() {
        let (mut upper, mut lower) = (Sums::new(), Sums::new());
        let mut offset = columns.start(column) * CHANNELS;
        for words in columns.words(column).as_chunks().0 {
            upper.add(_mm256_shuffle_epi8(load(0, offset), by_channel), words);
            lower.add(_mm256_shuffle_epi8(load(2, offset), by_channel), words);
            offset += TAPS * CHANNELS;
        }
        let bytes = _mm_shuffle_epi8(to_bytes(upper.values(), lower.values()), by_row);
        let channels =
            [_mm_extract_epi32::<0>(bytes), _mm_extract_epi32::<1>(bytes), _mm_extract_epi32::<2>(bytes)];
        for (channel, rows) in channels.into_iter().enumerate() {
            let at = (channel * width + column) * STRIP_ROWS;
            strip[at..][..STRIP_ROWS].copy_from_slice(&rows.to_le_bytes());
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn down(strips: &[u8], pitch: usize, words: &[i32], output: &mut [u8]) {
    let (words, _) = words.as_chunks::<WORDS>();
    let width = output.len().next_multiple_of(COLUMNS);
    let last = words.len().saturating_sub(1) * pitch;
    assert!(strips.len() >= last + width * STRIP_ROWS, "strips hold {} blocks", words.len());
    for (number, output) in output.chunks_mut(HALF_COLUMNS).enumerate() {
        let mut sums = Sums::new();
        let mut offset = number * HALF_COLUMNS * STRIP_ROWS;
        for words in words {
            // SAFETY: 32 bytes for 8 columns, which end at `width`, of a block up to the last.
            let values = unsafe { _mm256_loadu_si256(strips.as_ptr().add(offset).cast()) };
            sums.add(values, words);
            offset += pitch;
        }
        let values = sums.values();
        let mut bytes = [0_u8; HALF_COLUMNS];
        // SAFETY: there is room for 8 bytes.
        unsafe { _mm_storel_epi64(bytes.as_mut_ptr().cast(), to_bytes(values, values)) };
        output.copy_from_slice(&bytes[..output.len()]);
    }
}
