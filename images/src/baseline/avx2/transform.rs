use std::arch::x86_64::{
    __m128i, __m256i, _mm_castsi128_pd, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi8, _mm_set1_epi8,
    _mm_storeh_pd, _mm_storel_epi64, _mm256_add_epi16, _mm256_add_epi32, _mm256_blendv_epi8,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi16, _mm256_extracti128_si256,
    _mm256_madd_epi16, _mm256_movemask_epi8, _mm256_mullo_epi16, _mm256_or_si256, _mm256_packs_epi16,
    _mm256_packs_epi32, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srai_epi32, _mm256_sub_epi16, _mm256_sub_epi32,
    _mm256_unpackhi_epi8, _mm256_unpackhi_epi16, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi8, _mm256_unpacklo_epi16, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    _mm256_xor_si256,
};

use super::super::header::BLOCK;
use super::super::plane::SIDE;
use super::super::transform::{
    F_0_211, F_0_298, F_0_390, F_0_509, F_0_541, F_0_601, F_0_765, F_0_899, F_1_061, F_1_175, F_1_451,
    F_1_501, F_1_847, F_1_961, F_2_053, F_2_172, F_2_562, F_3_072, FACTOR_BITS, FIRST_SHIFT, HALF, PASS_BITS,
    Pair, SECOND_SHIFT,
};

/// Rows or columns of two blocks, one in the lower and one in the upper half.
type Lines = [__m256i; SIDE];

/// Transforms two blocks to samples.
#[target_feature(enable = "avx2")]
pub(in super::super) fn transform(pair: &Pair<'_>, samples: &mut [u8]) {
    let (blocks, []) = pair.coefficients.as_chunks() else { unreachable!("two blocks") };
    let coefficients = load([&blocks[0], &blocks[1]]);
    let steps = load(pair.steps);
    let values: Lines = std::array::from_fn(|row| _mm256_mullo_epi16(coefficients[row], steps[row]));
    let mut lines = pass::<{ FIRST_SHIFT as i32 }>(&values);
    flatten(&mut lines, &coefficients, values[0]);
    transpose(&mut lines);
    let columns = pass::<{ SECOND_SHIFT as i32 }>(&lines);
    store(to_rows(&columns), pair, samples);
}

/// Transforms two blocks to squares of four samples a side.
#[target_feature(enable = "avx2")]
pub(in super::super) fn transform_to_half(pair: &Pair<'_>, samples: &mut [u8]) {
    let (blocks, []) = pair.coefficients.as_chunks() else { unreachable!("two blocks") };
    let (coefficients, steps) = (load([&blocks[0], &blocks[1]]), load(pair.steps));
    let [e0, o1, e2, o3, _, o5, e6, o7]: Lines =
        std::array::from_fn(|row| _mm256_mullo_epi16(coefficients[row], steps[row]));
    let none = _mm256_setzero_si256();

    let odd = [Wide::interleaved(o1, o3), Wide::interleaved(o5, o7)];
    let sums = pass_to_half::<{ FIRST_SHIFT as i32 + 1 }>(
        Wide::interleaved(none, e0),
        Wide::interleaved(e2, e6),
        odd,
    );
    let narrow = |sums: Wide| sums.narrow::<{ FIRST_SHIFT as i32 + 1 }>();
    let upper = Wide::interleaved(narrow(sums[0]), narrow(sums[1]));
    let lower = Wide::interleaved(narrow(sums[2]), narrow(sums[3]));
    // Of four rows of eight columns now two columns of four rows in each half.
    let by_two = |one, other| [_mm256_unpacklo_epi32(one, other), _mm256_unpackhi_epi32(one, other)];
    let ([c01, c23], [c45, c67]) = (by_two(upper.low, lower.low), by_two(upper.high, lower.high));

    // Four rows fill the lower part alone.
    let half = |low| Wide { low, high: none };
    let odd = [half(_mm256_unpackhi_epi16(c01, c23)), half(_mm256_unpackhi_epi16(c45, c67))];
    let sums = pass_to_half::<{ SECOND_SHIFT as i32 + 1 }>(
        half(_mm256_unpacklo_epi16(none, c01)),
        half(_mm256_unpacklo_epi16(c23, c67)),
        odd,
    );
    let cut = |sums: Wide| _mm256_srai_epi32::<{ SECOND_SHIFT as i32 + 1 }>(sums.low);
    let left = _mm256_packs_epi32(cut(sums[0]), cut(sums[1]));
    let right = _mm256_packs_epi32(cut(sums[2]), cut(sums[3]));
    let bytes = _mm256_xor_si256(_mm256_packs_epi16(left, right), _mm256_set1_epi8(-128));
    // Four columns of four rows to rows.
    let by_row = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    let rows = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(by_row));
    let halves = [_mm256_castsi256_si128(rows), _mm256_extracti128_si256::<1>(rows)];
    for at in [1, 0] {
        let rows = [
            _mm_extract_epi32::<0>(halves[at]),
            _mm_extract_epi32::<1>(halves[at]),
            _mm_extract_epi32::<2>(halves[at]),
            _mm_extract_epi32::<3>(halves[at]),
        ];
        let block = &mut samples[pair.places[at]..];
        for (number, row) in rows.into_iter().enumerate() {
            block[number * pair.pitches[at]..][..HALF].copy_from_slice(&row.to_le_bytes());
        }
    }
}

/// One direction of the transform to half the size: sums for four samples, rounded but not shifted, of what is interleaved: nothing
/// and the mean; 2 and 6; 1 and 3, and 5 and 7.
#[inline]
#[target_feature(enable = "avx2")]
fn pass_to_half<const SHIFT: i32>(mean: Wide, even: Wide, [first, second]: [Wide; 2]) -> [Wide; HALF] {
    let rounding = _mm256_set1_epi32(1 << (SHIFT - 1));
    let scale = |values| _mm256_add_epi32(_mm256_srai_epi32::<{ 15 - FACTOR_BITS as i32 }>(values), rounding);
    let mean = Wide { low: scale(mean.low), high: scale(mean.high) };
    let even = even.times(F_1_847, -F_0_765);
    let (plus, minus) = (mean.plus(even), mean.minus(even));
    let outer = first.times(F_2_562, F_0_899).plus(second.times(-F_0_601, -F_0_509));
    let inner = first.times(F_1_061, -F_2_172).plus(second.times(F_1_451, -F_0_211));
    [plus.plus(outer), minus.plus(inner), minus.minus(inner), plus.minus(outer)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(blocks: [&[i16; BLOCK]; 2]) -> Lines {
    std::array::from_fn(|row| {
        // SAFETY: a block has eight rows of eight values, which are as many bytes as are loaded.
        let [first, second] =
            blocks.map(|block| unsafe { _mm_loadu_si128(block.as_ptr().add(row * SIDE).cast()) });
        _mm256_set_m128i(second, first)
    })
}

/// Blocks without anything below their first row are not cut off at the ends of 16 bits, which shows in absurd means.
#[inline]
#[target_feature(enable = "avx2")]
fn flatten(lines: &mut Lines, coefficients: &Lines, first_row: __m256i) {
    let below = coefficients[1..].iter().copied().reduce(|one, other| _mm256_or_si256(one, other));
    let is_empty = below
        .map_or(0, |below| _mm256_movemask_epi8(_mm256_cmpeq_epi16(below, _mm256_setzero_si256())) as u32);
    let [lower, upper] = [is_empty & 0xffff == 0xffff, is_empty >> 16 == 0xffff];
    if lower || upper {
        let mask = |is_flat: bool| _mm_set1_epi8(if is_flat { -1 } else { 0 });
        let is_flat = _mm256_set_m128i(mask(upper), mask(lower));
        let flat = _mm256_slli_epi16::<{ PASS_BITS as i32 }>(first_row);
        for line in lines {
            *line = _mm256_blendv_epi8(*line, flat, is_flat);
        }
    }
}

/// Eight sums of products, of lanes that were interleaved.
#[derive(Clone, Copy)]
struct Wide {
    low: __m256i,
    high: __m256i,
}

impl Wide {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn interleaved(first: __m256i, second: __m256i) -> Self {
        Self { low: _mm256_unpacklo_epi16(first, second), high: _mm256_unpackhi_epi16(first, second) }
    }

    /// Multiplies the first of two values and the second, and adds the products.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn times(self, first: i16, second: i16) -> Self {
        let factors = _mm256_set1_epi32((u32::from(first as u16) | u32::from(second as u16) << 16) as i32);
        Self { low: _mm256_madd_epi16(self.low, factors), high: _mm256_madd_epi16(self.high, factors) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn plus(self, other: Self) -> Self {
        Self { low: _mm256_add_epi32(self.low, other.low), high: _mm256_add_epi32(self.high, other.high) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn minus(self, other: Self) -> Self {
        Self { low: _mm256_sub_epi32(self.low, other.low), high: _mm256_sub_epi32(self.high, other.high) }
    }

    /// Cuts bits off, and what exceeds 16.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow<const SHIFT: i32>(self) -> __m256i {
        _mm256_packs_epi32(_mm256_srai_epi32::<SHIFT>(self.low), _mm256_srai_epi32::<SHIFT>(self.high))
    }
}

/// One direction of the transform.
#[inline]
#[target_feature(enable = "avx2")]
fn pass<const SHIFT: i32>(input: &Lines) -> Lines {
    let [e0, o1, e2, o3, e4, o5, e6, o7] = *input;

    // Rounded here, once for all that it becomes part of.
    let rounding = _mm256_set1_epi32(1 << (SHIFT - 1));
    let whole = |values| {
        let Wide { low, high } = Wide::interleaved(_mm256_setzero_si256(), values);
        let scale = |values| {
            let scaled = _mm256_srai_epi32::<{ 16 - FACTOR_BITS as i32 }>(values);
            _mm256_add_epi32(scaled, rounding)
        };
        Wide { low: scale(low), high: scale(high) }
    };
    let (plus, minus) = (whole(_mm256_add_epi16(e0, e4)), whole(_mm256_sub_epi16(e0, e4)));
    let outer = Wide::interleaved(e2, e6);
    let wide = outer.times(F_0_541 + F_0_765, F_0_541);
    let narrow = outer.times(F_0_541, F_0_541 - F_1_847);
    let even = [plus.plus(wide), minus.plus(narrow), minus.minus(narrow), plus.minus(wide)];

    let turned = Wide::interleaved(_mm256_add_epi16(o7, o3), _mm256_add_epi16(o5, o1));
    let outer_turned = turned.times(F_1_175 - F_1_961, F_1_175);
    let inner_turned = turned.times(F_1_175, F_1_175 - F_0_390);
    let (ends, middles) = (Wide::interleaved(o1, o7), Wide::interleaved(o3, o5));
    let odd = [
        ends.times(F_1_501 - F_0_899, -F_0_899).plus(inner_turned),
        middles.times(F_3_072 - F_2_562, -F_2_562).plus(outer_turned),
        middles.times(-F_2_562, F_2_053 - F_2_562).plus(inner_turned),
        ends.times(-F_0_899, F_0_298 - F_0_899).plus(outer_turned),
    ];

    std::array::from_fn(|at| {
        if at < SIDE / 2 {
            even[at].plus(odd[at]).narrow::<SHIFT>()
        } else {
            let at = SIDE - 1 - at;
            even[at].minus(odd[at]).narrow::<SHIFT>()
        }
    })
}

/// Makes columns of rows, in each half.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(lines: &mut Lines) {
    let [a, b, c, d, e, f, g, h] = *lines;
    let (ab, cd, ef, gh) =
        (Wide::interleaved(a, b), Wide::interleaved(c, d), Wide::interleaved(e, f), Wide::interleaved(g, h));
    let by_four = |one, other| [_mm256_unpacklo_epi32(one, other), _mm256_unpackhi_epi32(one, other)];
    let upper = [by_four(ab.low, cd.low), by_four(ab.high, cd.high)];
    let lower = [by_four(ef.low, gh.low), by_four(ef.high, gh.high)];
    *lines = std::array::from_fn(|at| {
        let (one, other) = (upper[at / 4][at / 2 % 2], lower[at / 4][at / 2 % 2]);
        if at % 2 == 0 { _mm256_unpacklo_epi64(one, other) } else { _mm256_unpackhi_epi64(one, other) }
    });
}

/// Makes bytes of eight columns: two rows in each half, of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn to_rows(columns: &Lines) -> [__m256i; SIDE / 2] {
    // Around zero until here.
    let middle = _mm256_set1_epi8(-128);
    let bytes =
        |one: usize, other: usize| _mm256_xor_si256(_mm256_packs_epi16(columns[one], columns[other]), middle);
    let pairs = |one, other| [_mm256_unpacklo_epi8(one, other), _mm256_unpackhi_epi8(one, other)];
    let left = pairs(bytes(0, 2), bytes(1, 3));
    let right = pairs(bytes(4, 6), bytes(5, 7));
    let (left, right) = (Wide::interleaved(left[0], left[1]), Wide::interleaved(right[0], right[1]));
    [
        _mm256_unpacklo_epi32(left.low, right.low),
        _mm256_unpackhi_epi32(left.low, right.low),
        _mm256_unpacklo_epi32(left.high, right.high),
        _mm256_unpackhi_epi32(left.high, right.high),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(rows: [__m256i; SIDE / 2], pair: &Pair<'_>, samples: &mut [u8]) {
    let halves: [[__m128i; SIDE / 2]; 2] =
        [rows.map(|rows| _mm256_castsi256_si128(rows)), rows.map(|rows| _mm256_extracti128_si256::<1>(rows))];
    for at in [1, 0] {
        let (place, pitch) = (pair.places[at], pair.pitches[at]);
        let block = &mut samples[place..][..(SIDE - 1) * pitch + SIDE];
        let first = block.as_mut_ptr();
        for (number, rows) in halves[at].into_iter().enumerate() {
            // SAFETY: the block is eight bytes longer than seven rows, and these are eight bytes each of the rows from 0 to 7.
            unsafe {
                _mm_storel_epi64(first.add(2 * number * pitch).cast(), rows);
                _mm_storeh_pd(first.add((2 * number + 1) * pitch).cast(), _mm_castsi128_pd(rows));
            }
        }
    }
}
