//! The passes with AVX2's multiply-adds: pairs of 16 bits added to 32, and of 8 bits added to 16.

#![expect(unsafe_code, reason = "loads and stores of vectors")]

use std::arch::x86_64::{
    __m256i, _mm_castsi128_pd, _mm_loadu_si128, _mm_packus_epi16, _mm_set_epi8, _mm_shuffle_epi32,
    _mm_storeh_pd, _mm_storel_epi64, _mm_storeu_si128, _mm_unpackhi_epi16, _mm_unpacklo_epi16,
    _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_packs_epi32, _mm256_packus_epi16, _mm256_set_m128i, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_srli_epi16,
};

use super::axis::PRECISION_BITS;
use super::kernel::{ANY, check_across};
use super::weights::{TAPS, Weights};
use super::{CHANNELS, COLUMNS, STRIP_ROWS};

/// The lower digits of even and of odd taps, and the upper digits of all.
pub(super) const WORDS: usize = 3;
/// Bits of the lower digit; the upper one has 8.
const LOW_BITS: u32 = 16;
/// Columns that the first pass writes at a time.
const PAIR: usize = 2;

/// Splits weights into two signed digits.
pub(super) fn pack(block: [i32; TAPS]) -> [i32; WORDS] {
    let high = block.map(|weight| ((weight + (1 << (LOW_BITS - 1))) >> LOW_BITS) as i8);
    let low = |tap: usize| block[tap] as u16;
    let pair = |first: u16, second: u16| (u32::from(first) | u32::from(second) << 16) as i32;
    // Two products are added in 16 bits with saturation. Weights of one sign sum up to less than 2, which is 128 here.
    debug_assert!(high.as_chunks::<2>().0.iter().all(|&[a, b]| (i16::from(a) + i16::from(b)).abs() <= 128));
    [pair(low(0), low(2)), pair(low(1), low(3)), i32::from_le_bytes(high.map(|digit| digit as u8))]
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
        let [even_low, odd_low, high] = words.map(|word| _mm256_set1_epi32(word));
        let even = _mm256_and_si256(values, _mm256_set1_epi16(0xff));
        let odd = _mm256_srli_epi16::<8>(values);
        let low = _mm256_add_epi32(_mm256_madd_epi16(even, even_low), _mm256_madd_epi16(odd, odd_low));
        let high = _mm256_madd_epi16(_mm256_maddubs_epi16(values, high), _mm256_set1_epi16(1));
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

#[target_feature(enable = "avx2")]
pub(super) fn across(rows: [&[u8]; STRIP_ROWS], columns: &Weights, strip: &mut [u8], width: usize) {
    // Down to 57 % of the width two blocks suffice, down to 36 % three.
    match columns.num_blocks() {
        2 => across_blocks::<2>(rows, columns, strip, width),
        3 => across_blocks::<3>(rows, columns, strip, width),
        _ => across_blocks::<ANY>(rows, columns, strip, width),
    }
}

#[target_feature(enable = "avx2")]
fn across_blocks<const BLOCKS: usize>(
    rows: [&[u8]; STRIP_ROWS],
    columns: &Weights,
    strip: &mut [u8],
    width: usize,
) {
    let num_blocks = if BLOCKS == ANY { columns.num_blocks() } else { BLOCKS };
    check_across(rows, columns, strip, width);
    // Four pixels to four bytes of each channel.
    let by_channel = _mm_set_epi8(-1, -1, -1, -1, 11, 8, 5, 2, 10, 7, 4, 1, 9, 6, 3, 0);
    let by_channel = _mm256_broadcastsi128_si256(by_channel);
    // Channels of two rows of two columns to two rows of two columns of each channel.
    let by_column = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    let by_column = _mm256_broadcastsi128_si256(by_column);
    let out = strip.as_mut_ptr();
    let pointers = rows.map(<[u8]>::as_ptr);
    let load = |lower: usize, upper: usize, offset: usize| {
        // SAFETY: offsets are those of blocks, and each row reaches `READ_BYTES` beyond the last of them.
        let row = |row: usize| unsafe { _mm_loadu_si128(pointers[row].add(offset).cast()) };
        _mm256_shuffle_epi8(_mm256_set_m128i(row(upper), row(lower)), by_channel)
    };
    // The first two rows in the lower half, the last two in the upper one.
    let values = |start: u32, words: &[[i32; WORDS]]| {
        let mut sums = [Sums::new(); 2];
        let mut offset = start as usize * CHANNELS;
        for words in &words[..num_blocks] {
            sums[0].add(load(0, 2, offset), words);
            sums[1].add(load(1, 3, offset), words);
            offset += TAPS * CHANNELS;
        }
        _mm256_packs_epi32(sums[0].values(), sums[1].values())
    };
    let (groups, words) = columns.groups();
    let starts = groups.as_flattened().as_chunks::<PAIR>().0;
    let words = words.as_chunks().0.chunks_exact(num_blocks * PAIR);
    for ((pair, starts), words) in starts.iter().enumerate().zip(words) {
        let both = _mm256_packus_epi16(values(starts[0], words), values(starts[1], &words[num_blocks..]));
        let both = _mm256_shuffle_epi8(both, by_column);
        let (upper_rows, lower_rows) = (_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
        let red_and_green = _mm_unpacklo_epi16(upper_rows, lower_rows);
        let blue = _mm_unpackhi_epi16(upper_rows, lower_rows);
        // SAFETY: the strip has `STRIP_ROWS` bytes for each of `width` columns of each channel, and pairs of columns end at
        // `width`.
        unsafe {
            let at = |channel: usize| out.add((channel * width + pair * PAIR) * STRIP_ROWS);
            _mm_storel_epi64(at(0).cast(), red_and_green);
            _mm_storeh_pd(at(1).cast(), _mm_castsi128_pd(red_and_green));
            _mm_storel_epi64(at(2).cast(), blue);
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn down(strips: &[u8], pitch: usize, words: &[i32], output: &mut [u8]) {
    let (words, _) = words.as_chunks::<WORDS>();
    let width = output.len().next_multiple_of(COLUMNS);
    let last = words.len().saturating_sub(1) * pitch;
    assert!(strips.len() >= last + width * STRIP_ROWS, "strips hold {} blocks", words.len());
    for (number, output) in output.chunks_mut(COLUMNS).enumerate() {
        let mut sums = [Sums::new(); 2];
        let mut offset = number * COLUMNS * STRIP_ROWS;
        for words in words {
            // SAFETY: 64 bytes for 16 columns, which end at `width`, of a block up to the last.
            let values = |half: usize| unsafe {
                _mm256_loadu_si256(strips.as_ptr().add(offset).cast::<__m256i>().add(half))
            };
            sums[0].add(values(0), words);
            sums[1].add(values(1), words);
            offset += pitch;
        }
        let values = _mm256_packs_epi32(sums[0].values(), sums[1].values());
        // Halves of the two vectors take turns: those of the first belong together.
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
        let bytes = _mm_shuffle_epi32::<0b11_01_10_00>(bytes);
        let store = |output: &mut [u8; COLUMNS]| {
            // SAFETY: there is room for 16 bytes.
            unsafe { _mm_storeu_si128(output.as_mut_ptr().cast(), bytes) }
        };
        if let Ok(output) = output.try_into() {
            store(output);
        } else {
            let mut all = [0; COLUMNS];
            store(&mut all);
            output.copy_from_slice(&all[..output.len()]);
        }
    }
}
