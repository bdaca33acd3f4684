//! Rows of pixels from rows of samples, with libjpeg's results.
//!
//! Where there are fewer samples of a colour than pixels, those of the four nearest count with 9, 3, 3 and 1 sixteenths, or those of
//! the two nearest with three quarters and one. [`nearer_and_farther`] and [`widen`] are the first half of that, the sum over rows.
//! Beyond a border of the image the samples at the border count again, which gives what libjpeg does there.

/// Pixels that may be computed at a time: samples must reach to a multiple of it.
pub(super) const PIXELS: usize = 32;

/// The samples of colours for a row of pixels, each two for blue and red.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colours<'a> {
    /// None: all is grey.
    Grey,
    /// One for each pixel.
    Full([&'a [u8]; 2]),
    /// Sums over rows, one for two pixels, and one before and one behind them.
    Half([&'a [u16]; 2], Interpolation),
}

/// How sums over rows are interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interpolation {
    /// Sums are samples.
    InRows,
    /// Sums are four times too large.
    InBoth,
}

impl Interpolation {
    /// Bits that are cut off.
    pub(super) const fn shift(self) -> u32 {
        match self {
            Self::InRows => 2,
            Self::InBoth => 4,
        }
    }

    /// What is added before for even and odd pixels: halves are rounded now up, now down.
    pub(super) const fn rounding(self) -> [u16; 2] {
        match self {
            Self::InRows => [1, 2],
            Self::InBoth => [8, 7],
        }
    }
}

/// Bits after the point of the factors of colours.
const FACTOR_BITS: u32 = 16;

const fn fixed(factor: f64) -> i32 {
    (factor * (1 << FACTOR_BITS) as f64 + 0.5) as i32
}

// ITU-R BT.601, as JFIF prescribes.
pub(super) const RED_OF_RED: i32 = fixed(1.402);
pub(super) const GREEN_OF_BLUE: i32 = fixed(0.344_14);
pub(super) const GREEN_OF_RED: i32 = fixed(0.714_14);
pub(super) const BLUE_OF_BLUE: i32 = fixed(1.772);

/// Sums three times the samples of the nearer row and those of the farther one.
pub(super) fn nearer_and_farther(nearer: &[u8], farther: &[u8], sums: &mut [u16]) {
    for ((sum, &nearer), &farther) in sums.iter_mut().zip(nearer).zip(farther) {
        *sum = 3 * u16::from(nearer) + u16::from(farther);
    }
}

/// Takes a row alone.
pub(super) fn widen(row: &[u8], sums: &mut [u16]) {
    for (sum, &sample) in sums.iter_mut().zip(row) {
        *sum = u16::from(sample);
    }
}

/// Writes red, green and blue of each pixel.
pub(super) fn rgb(luma: &[u8], colours: Colours<'_>, pixels: &mut [u8]) {
    let pixels = pixels.as_chunks_mut::<3>().0;
    match colours {
        Colours::Grey => pixels.iter_mut().zip(luma).for_each(|(pixel, &luma)| *pixel = [luma; 3]),
        Colours::Full([blue, red]) => {
            for (((pixel, &luma), &blue), &red) in pixels.iter_mut().zip(luma).zip(blue).zip(red) {
                *pixel = mixed(luma, blue.into(), red.into());
            }
        }
        Colours::Half(sums, interpolation) => {
            let [even, odd] = interpolation.rounding();
            for (at, (pixels, luma)) in pixels.chunks_mut(2).zip(luma.chunks(2)).enumerate() {
                let interpolated = |sums: &[u16], neighbour: usize, rounding: u16| {
                    (3 * sums[at + 1] + sums[neighbour] + rounding) >> interpolation.shift()
                };
                for (side, (pixel, &luma)) in pixels.iter_mut().zip(luma).enumerate() {
                    let (neighbour, rounding) = if side == 0 { (at, even) } else { (at + 2, odd) };
                    let [blue, red] = sums.map(|sums| interpolated(sums, neighbour, rounding));
                    *pixel = mixed(luma, blue, red);
                }
            }
        }
    }
}

/// The colour of a pixel.
fn mixed(luma: u8, blue: u16, red: u16) -> [u8; 3] {
    const HALF: i32 = 1 << (FACTOR_BITS - 1);
    let [luma, blue, red] = [i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128];
    let differences = [
        RED_OF_RED * red + HALF,
        -GREEN_OF_BLUE * blue - GREEN_OF_RED * red + HALF,
        BLUE_OF_BLUE * blue + HALF,
    ];
    // Between 0 and 255.
    differences.map(|difference| (luma + (difference >> FACTOR_BITS)).clamp(0, 255) as u8)
}
