use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cvtepu8_epi16,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_epi16, _mm256_min_epi16,
    _mm256_mulhi_epi16, _mm256_or_si256, _mm256_packs_epi32, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srai_epi32,
    _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_epi16, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
};

use super::super::rows::{
    BLUE_OF_BLUE, Colours, GREEN_OF_BLUE, GREEN_OF_RED, Interpolation, PIXELS, RED_OF_RED,
};

/// Sums that a vector holds.
const SUMS: usize = PIXELS / 2;
const CHANNELS: usize = 3;
/// Bytes of the pixels that are computed at a time.
const BYTES: usize = CHANNELS * PIXELS;

/// Sums three times the samples of the nearer row and those of the farther one.
#[target_feature(enable = "avx2")]
pub(in super::super) fn nearer_and_farther(nearer: &[u8], farther: &[u8], sums: &mut [u16]) {
    for (number, sums) in sums.chunks_mut(SUMS).enumerate() {
        let (nearer, farther) = (load_wide(nearer, number * SUMS), load_wide(farther, number * SUMS));
        let triple = _mm256_add_epi16(nearer, _mm256_add_epi16(nearer, nearer));
        store_sums(_mm256_add_epi16(triple, farther), sums);
    }
}

/// Takes a row alone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn widen(row: &[u8], sums: &mut [u16]) {
    for (number, sums) in sums.chunks_mut(SUMS).enumerate() {
        store_sums(load_wide(row, number * SUMS), sums);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_sums(values: __m256i, sums: &mut [u16]) {
    if let Some(sums) = sums.first_chunk_mut::<SUMS>() {
        // SAFETY: there is room for 16 numbers of 16 bits.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), values) };
    } else {
        let mut whole = [0_u16; SUMS];
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(whole.as_mut_ptr().cast(), values) };
        sums.copy_from_slice(&whole[..sums.len()]);
    }
}

/// Sixteen samples, of 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn load_wide(row: &[u8], at: usize) -> __m256i {
    let samples: &[u8; SUMS] = row[at..].first_chunk().expect("rows reach to a multiple of a vector");
    // SAFETY: these are 16 bytes.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(samples.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(row: &[u8], at: usize) -> __m256i {
    let samples: &[u8; PIXELS] = row[at..].first_chunk().expect("rows reach to a multiple of a vector");
    // SAFETY: these are 32 bytes.
    unsafe { _mm256_loadu_si256(samples.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_sums(sums: &[u16], at: usize) -> __m256i {
    let sums: &[u16; SUMS] = sums[at..].first_chunk().expect("sums reach to a multiple of a vector");
    // SAFETY: these are 16 numbers of 16 bits.
    unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) }
}

/// Even and odd pixels of a row, 16 bits each.
#[derive(Clone, Copy)]
struct Halves {
    even: __m256i,
    odd: __m256i,
}

impl Halves {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn of_bytes(bytes: __m256i) -> Self {
        Self { even: _mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), odd: _mm256_srli_epi16::<8>(bytes) }
    }

    /// Cuts off what is below 0 or above 255.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn to_bytes(self) -> __m256i {
        let cut = |values| {
            let limit = _mm256_set1_epi16(255);
            _mm256_max_epi16(_mm256_min_epi16(values, limit), _mm256_setzero_si256())
        };
        _mm256_or_si256(cut(self.even), _mm256_slli_epi16::<8>(cut(self.odd)))
    }
}

/// Writes red, green and blue of each pixel, as many at a time as a vector holds.
#[target_feature(enable = "avx2")]
pub(in super::super) fn rgb(luma: &[u8], colours: Colours<'_>, pixels: &mut [u8]) {
    let mut last = [0; BYTES];
    for (number, pixels) in pixels.chunks_mut(BYTES).enumerate() {
        let channels = channels(luma, colours, number * PIXELS);
        let num_bytes = pixels.len();
        // One call each, which becomes part of the loop.
        interleave(channels, pixels.first_chunk_mut().unwrap_or(&mut last));
        if num_bytes < BYTES {
            pixels.copy_from_slice(&last[..num_bytes]);
        }
    }
}

/// Red, green and blue of the pixels from one on.
// Without closures that the standard library would call: these stay functions of their own.
#[inline]
#[target_feature(enable = "avx2")]
fn channels(luma: &[u8], colours: Colours<'_>, at: usize) -> [__m256i; CHANNELS] {
    const IN_ROWS: i32 = Interpolation::InRows.shift() as i32;
    const IN_BOTH: i32 = Interpolation::InBoth.shift() as i32;
    let luma = load(luma, at);
    let (blue, red) = match colours {
        Colours::Grey => return [luma; CHANNELS],
        Colours::Full([blue, red]) => (Halves::of_bytes(load(blue, at)), Halves::of_bytes(load(red, at))),
        Colours::Half([blue, red], Interpolation::InRows) => (
            interpolated::<IN_ROWS>(blue, at / 2, Interpolation::InRows),
            interpolated::<IN_ROWS>(red, at / 2, Interpolation::InRows),
        ),
        Colours::Half([blue, red], Interpolation::InBoth) => (
            interpolated::<IN_BOTH>(blue, at / 2, Interpolation::InBoth),
            interpolated::<IN_BOTH>(red, at / 2, Interpolation::InBoth),
        ),
    };
    let luma = Halves::of_bytes(luma);
    let (even, odd) = (differences(blue.even, red.even), differences(blue.odd, red.odd));
    [mixed(luma, even[0], odd[0]), mixed(luma, even[1], odd[1]), mixed(luma, even[2], odd[2])]
}

#[inline]
#[target_feature(enable = "avx2")]
fn interpolated<const SHIFT: i32>(sums: &[u16], at: usize, interpolation: Interpolation) -> Halves {
    let middle = load_sums(sums, at + 1);
    let triple = _mm256_add_epi16(middle, _mm256_add_epi16(middle, middle));
    let weighted = |neighbour: __m256i, rounding: u16| {
        let sum = _mm256_add_epi16(_mm256_add_epi16(triple, neighbour), _mm256_set1_epi16(rounding as i16));
        _mm256_srli_epi16::<SHIFT>(sum)
    };
    let [even, odd] = interpolation.rounding();
    Halves { even: weighted(load_sums(sums, at), even), odd: weighted(load_sums(sums, at + 2), odd) }
}

/// A channel, of brightness and what it differs in.
#[inline]
#[target_feature(enable = "avx2")]
fn mixed(luma: Halves, even: __m256i, odd: __m256i) -> __m256i {
    let (even, odd) = (_mm256_add_epi16(luma.even, even), _mm256_add_epi16(luma.odd, odd));
    Halves { even, odd }.to_bytes()
}

/// What the colours of a pixel differ in from its brightness.
#[inline]
#[target_feature(enable = "avx2")]
fn differences(blue: __m256i, red: __m256i) -> [__m256i; CHANNELS] {
    // What exceeds 16 bits of a factor is a whole number, and left to additions.
    const ONE: i32 = 1 << 16;
    let middle = _mm256_set1_epi16(128);
    let (blue, red) = (_mm256_sub_epi16(blue, middle), _mm256_sub_epi16(red, middle));
    let double = |values| _mm256_add_epi16(values, values);
    // The upper half of twice the product, rounded when it is halved.
    let times = |doubled, factor: i32| {
        let product = _mm256_mulhi_epi16(doubled, _mm256_set1_epi16(factor as i16));
        _mm256_srai_epi16::<1>(_mm256_add_epi16(product, _mm256_set1_epi16(1)))
    };
    let red_of_red = _mm256_add_epi16(red, times(double(red), RED_OF_RED - ONE));
    let doubled = double(blue);
    let blue_of_blue = _mm256_add_epi16(doubled, times(doubled, BLUE_OF_BLUE - 2 * ONE));
    let factors = (-GREEN_OF_BLUE as u16 as u32 | ((ONE - GREEN_OF_RED) as u16 as u32) << 16) as i32;
    let product = |both| {
        let product = _mm256_madd_epi16(both, _mm256_set1_epi32(factors));
        _mm256_srai_epi32::<16>(_mm256_add_epi32(product, _mm256_set1_epi32(ONE / 2)))
    };
    let green = _mm256_packs_epi32(
        product(_mm256_unpacklo_epi16(blue, red)),
        product(_mm256_unpackhi_epi16(blue, red)),
    );
    [red_of_red, _mm256_sub_epi16(green, red), blue_of_blue]
}

/// Puts the channels of each pixel side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave(channels: [__m256i; CHANNELS], pixels: &mut [u8; BYTES]) {
    /// Bytes of a half.
    const HALF: usize = PIXELS / 2;
    /// For each channel where in a half a byte comes from: the one that goes there, whichever of three vectors that is.
    const SOURCES: [[i8; HALF]; CHANNELS] = {
        let mut sources = [[0; HALF]; CHANNELS];
        let mut at = 0;
        while at < CHANNELS * HALF {
            sources[at % CHANNELS][at % HALF] = (at / CHANNELS) as i8;
            at += 1;
        }
        sources
    };
    /// For each of three vectors and each channel but the first, which bytes are the channel's.
    const MASKS: [[[i8; HALF]; CHANNELS - 1]; CHANNELS] = {
        let mut masks = [[[0; HALF]; CHANNELS - 1]; CHANNELS];
        let mut at = 0;
        while at < CHANNELS * HALF {
            if at % CHANNELS > 0 {
                masks[at / HALF][at % CHANNELS - 1][at % HALF] = -1;
            }
            at += 1;
        }
        masks
    };
    let constant = |bytes: &[i8; HALF]| {
        // SAFETY: these are 16 bytes.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    };
    let shuffled = [
        _mm256_shuffle_epi8(channels[0], constant(&SOURCES[0])),
        _mm256_shuffle_epi8(channels[1], constant(&SOURCES[1])),
        _mm256_shuffle_epi8(channels[2], constant(&SOURCES[2])),
    ];
    let (lower, upper) = pixels.split_at_mut(CHANNELS * HALF);
    for (number, masks) in MASKS.iter().enumerate() {
        let two = _mm256_blendv_epi8(shuffled[0], shuffled[1], constant(&masks[0]));
        let all = _mm256_blendv_epi8(two, shuffled[2], constant(&masks[1]));
        for (pixels, half) in
            [(&mut *lower, _mm256_castsi256_si128(all)), (&mut *upper, _mm256_extracti128_si256::<1>(all))]
        {
            let bytes = &mut pixels[number * HALF..][..HALF];
            // SAFETY: these are 16 bytes.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), half) };
        }
    }
}
