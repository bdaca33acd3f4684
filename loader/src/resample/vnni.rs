//! The passes with AVX-512's dot products: four bytes times four signed bytes, added to 32 bits without saturation.

#![expect(unsafe_code, reason = "loads and stores of vectors")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_mask_storeu_epi8, _mm_storeu_si128, _mm512_add_epi32,
    _mm512_broadcast_i32x4, _mm512_castsi128_si512, _mm512_castsi512_si128, _mm512_cvtusepi32_epi8,
    _mm512_dpbusd_epi32, _mm512_extracti32x4_epi32, _mm512_inserti32x4, _mm512_loadu_si512, _mm512_max_epi32,
    _mm512_packus_epi16, _mm512_packus_epi32, _mm512_permutexvar_epi32, _mm512_set_epi32, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi32, _mm512_srai_epi32,
};
use std::hint::black_box;

use super::axis::PRECISION_BITS;
use super::kernel::{ANY, check_across};
use super::weights::{GROUP, TAPS, Weights};
use super::{CHANNELS, COLUMNS, STRIP_ROWS};

/// One for each digit: four signed bytes.
pub(super) const WORDS: usize = 3;

/// Splits weights into digits of eight bits, the lowest first. Weights are below 2 in magnitude, and so fit into three.
pub(super) fn pack(block: [i32; TAPS]) -> [i32; WORDS] {
    let mut rest = block;
    let mut words = [0; WORDS];
    for word in &mut words {
        let digits = rest.map(|rest| rest as i8);
        for (rest, digit) in rest.iter_mut().zip(digits) {
            *rest = (*rest - i32::from(digit)) >> 8;
        }
        *word = i32::from_le_bytes(digits.map(|digit| digit as u8));
    }
    words
}

/// The three sums of digits.
#[derive(Clone, Copy)]
struct Sums([__m512i; WORDS]);

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Self {
        let round = _mm512_set1_epi32(1 << (PRECISION_BITS - 1));
        Self([round, _mm512_setzero_si512(), _mm512_setzero_si512()])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn add(&mut self, values: __m512i, words: &[i32; WORDS]) {
        for (sum, &word) in self.0.iter_mut().zip(words) {
            *sum = _mm512_dpbusd_epi32(*sum, values, _mm512_set1_epi32(word));
        }
    }

    /// Puts the digits together and cuts off the fraction.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn values(self) -> __m512i {
        let [low, middle, high] = self.0;
        let upper = _mm512_add_epi32(_mm512_slli_epi32::<8>(middle), _mm512_slli_epi32::<16>(high));
        _mm512_srai_epi32::<PRECISION_BITS>(_mm512_add_epi32(low, upper))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn to_bytes(self) -> __m128i {
        _mm512_cvtusepi32_epi8(_mm512_max_epi32(self.values(), _mm512_setzero_si512()))
    }
}

/// The shuffle of each of the four quarters of a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_quarters(order: [i8; 16]) -> __m512i {
    // SAFETY: both are 16 bytes of any value.
    let order = unsafe { std::mem::transmute::<[i8; 16], __m128i>(order) };
    _mm512_broadcast_i32x4(order)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn across(rows: [&[u8]; STRIP_ROWS], columns: &Weights, strip: &mut [u8], width: usize) {
    // Down to 57 % of the width two blocks suffice, down to 36 % three. Without a loop these take a fifth less.
    match columns.num_blocks() {
        2 => across_blocks::<2>(rows, columns, strip, width),
        3 => across_blocks::<3>(rows, columns, strip, width),
        _ => across_blocks::<ANY>(rows, columns, strip, width),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn across_blocks<const BLOCKS: usize>(
    rows: [&[u8]; STRIP_ROWS],
    columns: &Weights,
    strip: &mut [u8],
    width: usize,
) {
    let num_blocks = if BLOCKS == ANY { columns.num_blocks() } else { BLOCKS };
    check_across(rows, columns, strip, width);
    // Four pixels to four bytes of each channel.
    let by_channel = in_quarters([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1]);
    // Quarters hold a row each, of that four columns with four channels; they shall hold a channel each, of that four
    // columns with four rows. Channels go together, then to their quarters, then rows to their columns.
    // The compiler must not know these orders: it would join the three shuffles and take them apart into fifteen.
    let transposed = black_box(in_quarters([0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]));
    let to_channel = black_box(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    let pointers = rows.map(<[u8]>::as_ptr);
    let load = |offset: usize| {
        // SAFETY: offsets are those of blocks, and each row reaches `READ_BYTES` beyond the last of them.
        let row = |row: usize| unsafe { _mm_loadu_si128(pointers[row].add(offset).cast()) };
        let two = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(row(0)), row(1));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(two, row(2)), row(3))
    };
    let values = |start: u32, words: &[[i32; WORDS]]| {
        let mut sums = Sums::new();
        let mut offset = start as usize * CHANNELS;
        for words in &words[..num_blocks] {
            sums.add(_mm512_shuffle_epi8(load(offset), by_channel), words);
            offset += TAPS * CHANNELS;
        }
        sums.values()
    };
    let (starts, words) = columns.groups();
    let words = words.as_chunks().0.chunks_exact(num_blocks * GROUP);
    for ((group, starts), words) in starts.iter().enumerate().zip(words) {
        let column = group * GROUP;
        let values = |member: usize| values(starts[member], &words[member * num_blocks..]);
        let first = _mm512_packus_epi32(values(0), values(1));
        let second = _mm512_packus_epi32(values(2), values(3));
        let rows = _mm512_shuffle_epi8(_mm512_packus_epi16(first, second), transposed);
        let channels = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(to_channel, rows), transposed);
        let channels = [
            _mm512_castsi512_si128(channels),
            _mm512_extracti32x4_epi32::<1>(channels),
            _mm512_extracti32x4_epi32::<2>(channels),
        ];
        for (channel, bytes) in channels.into_iter().enumerate() {
            let at = (channel * width + column) * STRIP_ROWS;
            // SAFETY: the strip has `STRIP_ROWS` bytes for each of `width` columns of each channel, and groups of columns
            // end at `width`.
            unsafe { _mm_storeu_si128(strip.as_mut_ptr().add(at).cast(), bytes) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn down(strips: &[u8], pitch: usize, words: &[i32], output: &mut [u8]) {
    let (words, _) = words.as_chunks::<WORDS>();
    let width = output.len().next_multiple_of(COLUMNS);
    let last = words.len().saturating_sub(1) * pitch;
    assert!(strips.len() >= last + width * STRIP_ROWS, "strips hold {} blocks", words.len());
    for (number, output) in output.chunks_mut(COLUMNS).enumerate() {
        let mut sums = Sums::new();
        let mut offset = number * COLUMNS * STRIP_ROWS;
        for words in words {
            // SAFETY: 64 bytes for 16 columns, which end at `width`, of a block up to the last.
            let values = unsafe { _mm512_loadu_si512(strips.as_ptr().add(offset).cast()) };
            sums.add(values, words);
            offset += pitch;
        }
        let bytes = sums.to_bytes();
        if output.len() == COLUMNS {
            // SAFETY: there is room for 16 bytes.
            unsafe { _mm_storeu_si128(output.as_mut_ptr().cast(), bytes) };
        } else {
            // SAFETY: the mask has a bit for each byte that there is room for.
            unsafe { _mm_mask_storeu_epi8(output.as_mut_ptr().cast(), (1 << output.len()) - 1, bytes) };
        }
    }
}
