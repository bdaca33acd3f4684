//! The inverse cosine transform of libjpeg's `islow`, bit for bit: Loeffler, Ligtenberg and Moschytz, "Practical Fast 1-D DCT
//! Algorithms with 11 Multiplications", 1989, in integers. And those of its `jidctred`, which make four or two samples of eight
//! coefficients: the same sums, of which pairs or fours of neighbours are averaged, so that the highest frequencies fall out.
//!
//! Factors have 13 bits after the point, and what the first pass leaves has two. Both the plain definition here and the
//! vectors beside it do what libjpeg-turbo's vectors do with absurd coefficients, too: products of coefficients and their
//! steps keep 16 bits, and the results of a pass are cut off at the ends of 16 bits.

use super::batch::Target;
use super::header::BLOCK;
use super::plane::SIDE;

/// Bits after the point of a factor.
pub(super) const FACTOR_BITS: u32 = 13;
/// Bits after the point between the passes.
pub(super) const PASS_BITS: u32 = 2;
/// Bits that the first pass cuts off.
pub(super) const FIRST_SHIFT: u32 = FACTOR_BITS - PASS_BITS;
/// Bits that the second pass cuts off: its own, those between the passes, and three because the transform is eight times too large.
pub(super) const SECOND_SHIFT: u32 = FACTOR_BITS + PASS_BITS + 3;
/// Makes of values around zero such around the middle of a byte.
const MIDDLE: i16 = 128;

const fn fixed(factor: f64) -> i16 {
    (factor * (1 << FACTOR_BITS) as f64 + 0.5) as i16
}

// √2 times cosines and sines of multiples of π/16, in the sums that the algorithm uses.
pub(super) const F_0_298: i16 = fixed(0.298_631_336);
pub(super) const F_0_390: i16 = fixed(0.390_180_644);
pub(super) const F_0_541: i16 = fixed(0.541_196_100);
pub(super) const F_0_765: i16 = fixed(0.765_366_865);
pub(super) const F_0_899: i16 = fixed(0.899_976_223);
pub(super) const F_1_175: i16 = fixed(1.175_875_602);
pub(super) const F_1_501: i16 = fixed(1.501_321_110);
pub(super) const F_1_847: i16 = fixed(1.847_759_065);
pub(super) const F_1_961: i16 = fixed(1.961_570_560);
pub(super) const F_2_053: i16 = fixed(2.053_119_869);
pub(super) const F_2_562: i16 = fixed(2.562_915_447);
pub(super) const F_3_072: i16 = fixed(3.072_711_026);

// Such sums averaged over two neighbours.
pub(super) const F_0_211: i16 = fixed(0.211_164_243);
pub(super) const F_0_509: i16 = fixed(0.509_795_579);
pub(super) const F_0_601: i16 = fixed(0.601_344_887);
pub(super) const F_1_061: i16 = fixed(1.061_594_337);
pub(super) const F_1_451: i16 = fixed(1.451_774_981);
pub(super) const F_2_172: i16 = fixed(2.172_734_803);
// And over four.
const F_0_720: i16 = fixed(0.720_959_822);
const F_0_850: i16 = fixed(0.850_430_095);
const F_1_272: i16 = fixed(1.272_758_580);
const F_3_624: i16 = fixed(3.624_509_785);

/// Two blocks and where they go.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) coefficients: &'a [i16; 2 * BLOCK],
    /// By what the coefficients of each have to be multiplied.
    pub(super) steps: [&'a [i16; BLOCK]; 2],
    /// Where the first sample of each goes. The first block is written last, for where there is no second one.
    pub(super) places: [usize; 2],
    /// From a row of samples to the next one.
    pub(super) pitches: [usize; 2],
}

/// Sides of blocks at half and a quarter of the size.
pub(super) const HALF: usize = SIDE / 2;
pub(super) const QUARTER: usize = SIDE / 4;

/// Transforms two blocks to squares of samples of this side: 8, 4 or 2.
pub(super) fn transform(pair: &Pair<'_>, side: usize, samples: &mut [u8]) {
    let (blocks, []) = pair.coefficients.as_chunks() else { unreachable!("two blocks") };
    for at in [1, 0] {
        let (block, steps) = (&blocks[at], pair.steps[at]);
        let target = &mut samples[pair.places[at]..];
        match side {
            SIDE => write(transform_block(block, steps), target, pair.pitches[at]),
            HALF => {
                let (first, second) =
                    (pass_to_half::<{ FIRST_SHIFT + 1 }>, pass_to_half::<{ SECOND_SHIFT + 1 }>);
                write(in_both(block, steps, first, second), target, pair.pitches[at]);
            }
            _ => {
                let (first, second) =
                    (pass_to_quarter::<{ FIRST_SHIFT + 2 }>, pass_to_quarter::<{ SECOND_SHIFT + 2 }>);
                write(in_both(block, steps, first, second), target, pair.pitches[at]);
            }
        }
    }
}

fn write<const N: usize>(rows: [[u8; N]; N], samples: &mut [u8], pitch: usize) {
    for (number, row) in rows.iter().enumerate() {
        samples[number * pitch..][..N].copy_from_slice(row);
    }
}

/// Writes a block without any coefficient but its mean.
pub(super) fn fill(mean: i16, step: i16, target: &Target, samples: &mut [u8]) {
    let value = sample(round::<{ SECOND_SHIFT - FACTOR_BITS }>(i32::from(flat(mean.wrapping_mul(step)))));
    for row in 0..target.side {
        samples[target.place + row * target.pitch..][..target.side].fill(value);
    }
}

/// What the first pass makes of a column without anything but its mean.
fn flat(mean: i16) -> i16 {
    mean << PASS_BITS
}

fn sample(value: i16) -> u8 {
    // Between 0 and 255.
    (value.clamp(-MIDDLE, MIDDLE - 1) + MIDDLE) as u8
}

fn round<const SHIFT: u32>(value: i32) -> i16 {
    (value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT).clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// The sum of two products. No product of two 16-bit numbers is too large, and sums go round like those of vectors.
fn sum(terms: [(i16, i16); 2]) -> i32 {
    let [first, second] = terms.map(|(value, factor)| i32::from(value) * i32::from(factor));
    first.wrapping_add(second)
}

/// Both directions, columns first: of each `N` samples come.
fn in_both<const N: usize>(
    coefficients: &[i16; BLOCK],
    steps: &[i16; BLOCK],
    first: impl Fn([i16; SIDE]) -> [i16; N],
    second: impl Fn([i16; SIDE]) -> [i16; N],
) -> [[u8; N]; N] {
    let columns: [[i16; N]; SIDE] = std::array::from_fn(|column| {
        first(std::array::from_fn(|row| {
            let at = row * SIDE + column;
            coefficients[at].wrapping_mul(steps[at])
        }))
    });
    std::array::from_fn(|row| second(std::array::from_fn(|column| columns[column][row])).map(sample))
}

fn transform_block(coefficients: &[i16; BLOCK], steps: &[i16; BLOCK]) -> [[u8; SIDE]; SIDE] {
    // Whatever the steps are.
    let is_flat = coefficients[SIDE..].iter().all(|&coefficient| coefficient == 0);
    let first = |column: [i16; SIDE]| {
        if is_flat { [flat(column[0]); SIDE] } else { pass::<FIRST_SHIFT>(column) }
    };
    in_both(coefficients, steps, first, pass::<SECOND_SHIFT>)
}

/// One direction of the transform.
fn pass<const SHIFT: u32>(input: [i16; SIDE]) -> [i16; SIDE] {
    let [e0, o1, e2, o3, e4, o5, e6, o7] = input;

    let whole = |value: i16| i32::from(value) << FACTOR_BITS;
    let (plus, minus) = (whole(e0.wrapping_add(e4)), whole(e0.wrapping_sub(e4)));
    let wide = sum([(e2, F_0_541 + F_0_765), (e6, F_0_541)]);
    let narrow = sum([(e2, F_0_541), (e6, F_0_541 - F_1_847)]);
    let even = [
        plus.wrapping_add(wide),
        minus.wrapping_add(narrow),
        minus.wrapping_sub(narrow),
        plus.wrapping_sub(wide),
    ];

    let (outer, inner) = (o7.wrapping_add(o3), o5.wrapping_add(o1));
    let outer_turned = sum([(outer, F_1_175 - F_1_961), (inner, F_1_175)]);
    let inner_turned = sum([(outer, F_1_175), (inner, F_1_175 - F_0_390)]);
    let odd = [
        sum([(o1, F_1_501 - F_0_899), (o7, -F_0_899)]).wrapping_add(inner_turned),
        sum([(o3, F_3_072 - F_2_562), (o5, -F_2_562)]).wrapping_add(outer_turned),
        sum([(o5, F_2_053 - F_2_562), (o3, -F_2_562)]).wrapping_add(inner_turned),
        sum([(o7, F_0_298 - F_0_899), (o1, -F_0_899)]).wrapping_add(outer_turned),
    ];

    let mut output = [0; SIDE];
    for at in 0..SIDE / 2 {
        output[at] = round::<SHIFT>(even[at].wrapping_add(odd[at]));
        output[SIDE - 1 - at] = round::<SHIFT>(even[at].wrapping_sub(odd[at]));
    }
    output
}

/// One direction to half the size.
fn pass_to_half<const SHIFT: u32>(input: [i16; SIDE]) -> [i16; HALF] {
    let [e0, o1, e2, o3, _, o5, e6, o7] = input;
    let mean = i32::from(e0) << (FACTOR_BITS + 1);
    let even = sum([(e2, F_1_847), (e6, -F_0_765)]);
    let (plus, minus) = (mean.wrapping_add(even), mean.wrapping_sub(even));
    let outer = sum([(o1, F_2_562), (o3, F_0_899)]).wrapping_add(sum([(o5, -F_0_601), (o7, -F_0_509)]));
    let inner = sum([(o1, F_1_061), (o3, -F_2_172)]).wrapping_add(sum([(o5, F_1_451), (o7, -F_0_211)]));
    [plus.wrapping_add(outer), minus.wrapping_add(inner), minus.wrapping_sub(inner), plus.wrapping_sub(outer)]
        .map(round::<SHIFT>)
}

/// One direction to a quarter of the size.
fn pass_to_quarter<const SHIFT: u32>(input: [i16; SIDE]) -> [i16; QUARTER] {
    let [e0, o1, _, o3, _, o5, _, o7] = input;
    let mean = i32::from(e0) << (FACTOR_BITS + 2);
    let odd = sum([(o1, F_3_624), (o3, -F_1_272)]).wrapping_add(sum([(o5, F_0_850), (o7, -F_0_720)]));
    [mean.wrapping_add(odd), mean.wrapping_sub(odd)].map(round::<SHIFT>)
}
