use proptest::prelude::*;

use super::*;
use crate::plan::{Draws, Purpose};

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut draws = Draws::new(Purpose::Augmentation, seed, 0, 0);
    // Mostly extremes: they overshoot the most.
    (0..length).map(|_| [0, 255, draws.below(256) as u8][draws.below(3) as usize]).collect()
}

fn whole(pixels: u32, resized: u32) -> Axis {
    Axis { low: 0, pixels, start: 0.0, length: f64::from(pixels), resized, first: 0, kept: resized }
}

fn resample(kernel: Kernel, window: Window<'_>, columns: &Axis, rows: &Axis) -> Vec<u8> {
    let (mut across, mut down) = (Taps::default(), Taps::default());
    across.compute(columns);
    down.compute(rows);
    let (width, height) = (across.len(), down.len());
    // All strips at once, a few at a time, and those of one row at a time.
    let [bytes, few, least] = [MAX_STRIP_BYTES, 16 << 10, 0].map(|max_strip_bytes| {
        let mut bytes = vec![0; 3 * width * height];
        let planes = Planes { bytes: &mut bytes, plane: width * height, row: width, offset: 0 };
        Resampler::with_kernel(kernel, max_strip_bytes).resample(window, &across, &down, planes);
        bytes
    });
    assert!(bytes == few && bytes == least, "however many strips there are at a time");
    bytes
}

/// Both passes as they are defined, pixel by pixel.
fn definition(window: Window<'_>, columns: &Axis, rows: &Axis) -> Vec<u8> {
    let pass = |values: &dyn Fn(u32) -> u8, taps: &Taps, output: usize| {
        let (first, weights) = taps.of(output);
        let sum = (first..)
            .zip(weights)
            .map(|(at, &weight)| i64::from(values(at)) * i64::from(weight))
            .sum::<i64>();
        ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
    };
    let (mut across, mut down) = (Taps::default(), Taps::default());
    across.compute(columns);
    down.compute(rows);
    let mut planes = Vec::new();
    for channel in 0..3 {
        let value = |x: u32, y: u32| {
            window.bytes[(((y - window.top) * window.width + x - window.left) * 3 + channel) as usize]
        };
        let first: Vec<Vec<u8>> = (window.top..window.top + window.height)
            .map(|y| (0..across.len()).map(|x| pass(&|at| value(at, y), &across, x)).collect())
            .collect();
        for y in 0..down.len() {
            planes.extend(
                (0..across.len()).map(|x| pass(&|at| first[(at - window.top) as usize][x], &down, y)),
            );
        }
    }
    planes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_kernel_gives_what_the_definition_does(
        (width, height) in (1_u32..90, 1_u32..90),
        (columns, rows) in (1_u32..120, 1_u32..120),
        seed in any::<u64>(),
    ) {
        let bytes = noise((width * height * 3) as usize, seed);
        let window = Window { bytes: &bytes, left: 0, top: 0, width, height };
        let (columns, rows) = (whole(width, columns), whole(height, rows));
        let expected = definition(window, &columns, &rows);
        for kernel in Kernel::available() {
            prop_assert_eq!(&resample(kernel, window, &columns, &rows), &expected, "{:?}", kernel);
        }
    }
}

#[test]
fn a_window_is_enough_when_it_holds_what_is_touched() {
    let (width, height) = (70_u32, 50_u32);
    let bytes = noise((width * height * 3) as usize, 4);
    let image = Window { bytes: &bytes, left: 0, top: 0, width, height };
    let columns = Axis { low: 20, pixels: 41, length: 41.0, resized: 30, first: 5, kept: 19, ..whole(0, 0) };
    let rows = Axis { low: 7, pixels: 30, start: 0.25, length: 29.5, resized: 16, first: 0, kept: 16 };
    let expected = definition(image, &columns, &rows);
    let mut taps = (Taps::default(), Taps::default());
    taps.0.compute(&columns);
    taps.1.compute(&rows);
    let (across, down) = (taps.0.touched(), taps.1.touched());
    assert!(across.start > 20 && across.end < 61 && down == (7..37));
    let part: Vec<u8> = down
        .clone()
        .flat_map(|y| {
            bytes[((y * width + across.start) * 3) as usize..((y * width + across.end) * 3) as usize].to_vec()
        })
        .collect();
    let window = Window {
        bytes: &part,
        left: across.start,
        top: down.start,
        width: across.end - across.start,
        height: down.end - down.start,
    };
    for kernel in Kernel::available() {
        assert_eq!(resample(kernel, window, &columns, &rows), expected, "{kernel:?}");
        assert_eq!(resample(kernel, image, &columns, &rows), expected, "{kernel:?}");
    }
}
