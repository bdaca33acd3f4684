//! Everything that is decoded here has TurboJPEG's pixels; that is all there is to show.

#![expect(unsafe_code, reason = "TurboJPEG's compressor has restart intervals, its Rust interface has not")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr::null_mut;

use proptest::prelude::*;
use proptest::sample::Index;
use turbojpeg::{PixelFormat, Subsamp, raw};

use super::bits::Bits;
use super::codes::CodeLengths;
use super::*;
use crate::jpeg::JpegDecoder;
use crate::{DecodeError, DecodeOptions};

/// How a JPEG is made.
#[derive(Debug, Clone)]
struct Style {
    size: (u32, u32),
    /// Of the picture, which is more or less noisy.
    seed: u32,
    quality: c_int,
    subsampling: Subsamp,
    /// Units from one restart marker to the next, or none.
    restart_interval: c_int,
    is_optimised: bool,
}

impl Style {
    fn any(subsamplings: &'static [Subsamp]) -> impl Strategy<Value = Self> {
        let size = prop_oneof![1 => (1_u32..12, 1_u32..12), 6 => (1_u32..200, 1_u32..200)];
        let restart_interval = prop_oneof![2 => Just(0), 1 => 1..40];
        let rest = (prop::sample::select(subsamplings), restart_interval, any::<bool>());
        (size, any::<u32>(), 1..=100, rest).prop_map(|(size, seed, quality, rest)| {
            let (subsampling, restart_interval, is_optimised) = rest;
            Self { size, seed, quality, subsampling, restart_interval, is_optimised }
        })
    }

    /// Edges, gradients and more or less noise.
    fn picture(&self) -> Vec<u8> {
        let (width, height) = self.size;
        let mut state = u64::from(self.seed) | 1 << 40;
        let mut below = |bound: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) as u32) % bound
        };
        let (across, down, bend) = (3 + below(40), 3 + below(40), 1 + below(200));
        let grain = [1, 2, 10, 60, 256][below(5) as usize];
        let mut pixels = Vec::with_capacity((width * height * 3) as usize);
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let is_tile = (x / across + y / down) % 3 == 0;
            let base = if is_tile { x * 3 + y } else { 200_u32.wrapping_sub(x * y / bend) };
            let colour = [base, base ^ (y * 5), x * 255 / width];
            pixels.extend(colour.map(|value| value.wrapping_add(below(grain)) as u8));
        }
        pixels
    }

    fn encode(&self) -> Vec<u8> {
        let (width, height) = (self.size.0 as c_int, self.size.1 as c_int);
        let pixels = self.picture();
        // SAFETY: the handle is used by this function alone, and destroyed last; TurboJPEG allocates the bytes, which are
        // copied before they are freed; the picture has as many bytes as its size says.
        unsafe {
            let handle: *mut c_void = raw::tj3Init(raw::TJINIT_TJINIT_COMPRESS as c_int);
            let settings = [
                (raw::TJPARAM_TJPARAM_QUALITY, self.quality),
                (raw::TJPARAM_TJPARAM_SUBSAMP, self.subsampling as c_int),
                (raw::TJPARAM_TJPARAM_OPTIMIZE, c_int::from(self.is_optimised)),
                (raw::TJPARAM_TJPARAM_RESTARTBLOCKS, self.restart_interval),
            ];
            for (parameter, value) in settings {
                assert_eq!(raw::tj3Set(handle, parameter as c_int, value), 0);
            }
            let (mut bytes, mut num_bytes) = (null_mut(), 0);
            let format = PixelFormat::RGB as c_int;
            let code = raw::tj3Compress8(
                handle,
                pixels.as_ptr(),
                width,
                0,
                height,
                format,
                &raw mut bytes,
                &raw mut num_bytes,
            );
            assert_eq!(code, 0);
            let jpeg = std::slice::from_raw_parts(bytes, num_bytes as usize).to_vec();
            raw::tj3Free(bytes.cast());
            raw::tj3Destroy(handle);
            jpeg
        }
    }
}

const OURS: &[Subsamp] = &[Subsamp::Gray, Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2];
const OTHERS: &[Subsamp] = &[Subsamp::Sub1x2, Subsamp::Sub4x1];

/// What TurboJPEG makes of the whole image.
fn decoded_by_turbo(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    shrunk_by_turbo(bytes, 1)
}

/// And at a fraction of its size.
fn shrunk_by_turbo(bytes: &[u8], shrink: u32) -> Result<RgbImage, DecodeError> {
    let mut decoder = JpegDecoder::new().unwrap();
    let header = decoder.read_header(bytes)?;
    let whole = Part { shrink, ..Part::whole(header.shrunk(shrink)) };
    let mut image = RgbImage::default();
    decoder.decode_other(&header, &whole, &DecodeOptions::default(), &mut image)?;
    Ok(image)
}

/// What is made of a part here, by each kernel.
fn decoded_here(bytes: &[u8], part: &Part) -> Vec<Option<(Part, RgbImage)>> {
    let Some(header) = Header::read(bytes) else { return Vec::new() };
    let decode = |kernel| {
        let mut image = RgbImage::default();
        let decoded = BaselineDecoder::with_kernel(kernel).decode(&header, part, &mut image)?;
        Some((decoded, image))
    };
    Kernel::available().map(decode).collect()
}

/// The pixels of a part, cut out of the whole image.
fn cut_out(image: &RgbImage, part: &Part) -> Vec<u8> {
    let width = image.width as usize * 3;
    let (start, end) = (part.columns.start as usize * 3, part.columns.end as usize * 3);
    part.rows.clone().flat_map(|row| &image.pixels[row as usize * width..][start..end]).copied().collect()
}

fn part_of(size: (u32, u32), ends: [Index; 4]) -> Part {
    let range = |length: u32, first: Index, second: Index| -> Range<u32> {
        let start = first.index(length as usize) as u32;
        start..start + 1 + second.index((length - start) as usize) as u32
    };
    Part { shrink: 1, columns: range(size.0, ends[0], ends[1]), rows: range(size.1, ends[2], ends[3]) }
}

/// Replaces all steps by one, which may make coefficients as large as no image needs.
fn set_steps(jpeg: &mut [u8], step: u8) {
    let mut at = 2;
    while jpeg[at + 1] != 0xda {
        let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] == 0xdb {
            jpeg[at + 4..at + 2 + length].chunks_mut(65).for_each(|table| table[1..].fill(step));
        }
        at += 2 + length;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn usual_jpegs_have_the_pixels_of_turbo_jpeg(style in Style::any(OURS), ends in any::<[Index; 4]>(), is_whole in any::<bool>()) {
        let bytes = style.encode();
        let expected = decoded_by_turbo(&bytes).unwrap();
        let wanted = if is_whole { Part::whole(style.size) } else { part_of(style.size, ends) };
        let is_too_narrow = style.size.0 <= 4 && matches!(style.subsampling, Subsamp::Sub2x1 | Subsamp::Sub2x2);
        let decoded = decoded_here(&bytes, &wanted);
        prop_assert_eq!(decoded.is_empty(), is_too_narrow);
        for image in decoded {
            let (part, image) = image.unwrap();
            prop_assert_eq!(&part.rows, &wanted.rows);
            prop_assert!(part.columns.start <= wanted.columns.start && part.columns.end == wanted.columns.end);
            prop_assert!(image.pixels == cut_out(&expected, &part), "{:?}", part);
        }
    }

    #[test]
    fn smaller_ones_have_the_pixels_of_turbo_jpeg_too(
        style in Style::any(OURS),
        shrink in prop::sample::select(&SHRINKS[1..]),
        ends in any::<[Index; 4]>(),
        is_whole in any::<bool>(),
    ) {
        let bytes = style.encode();
        let expected = shrunk_by_turbo(&bytes, shrink).unwrap();
        let size = (expected.width, expected.height);
        let wanted = Part { shrink, ..if is_whole { Part::whole(size) } else { part_of(size, ends) } };
        let is_left = style.subsampling == Subsamp::Sub2x1 && (shrink == 8 || size.0 <= 4);
        for image in decoded_here(&bytes, &wanted) {
            prop_assert_eq!(image.is_none(), is_left);
            let Some((part, image)) = image else { continue };
            prop_assert_eq!((part.shrink, &part.rows), (shrink, &wanted.rows));
            prop_assert!(part.columns.start <= wanted.columns.start && part.columns.end == wanted.columns.end);
            prop_assert!(image.pixels == cut_out(&expected, &part), "{:?} of {:?}", part, size);
        }
    }

    #[test]
    fn absurd_coefficients_have_the_pixels_of_turbo_jpeg(style in Style::any(OURS), step in 20_u8..) {
        let mut bytes = Style { quality: 100, ..style.clone() }.encode();
        set_steps(&mut bytes, step);
        let expected = decoded_by_turbo(&bytes).unwrap();
        for image in decoded_here(&bytes, &Part::whole(style.size)) {
            prop_assert!(image.unwrap().1 == expected);
        }
    }

    #[test]
    fn damaged_jpegs_are_left_to_turbo_jpeg_or_have_its_pixels(
        style in Style::any(OURS),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<Index>()),
        is_late in any::<bool>(),
    ) {
        let mut bytes = style.encode();
        // Behind the header damage is met more often.
        let first = if is_late { bytes.len() / 2 } else { 2 };
        for (index, value) in damage {
            let at = first + index.index(bytes.len() - first);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(2 + cut.index(bytes.len() - 2));
        }
        let Some(header) = Header::read(&bytes) else { return Ok(()) };
        if u64::from(header.width) * u64::from(header.height) > 1 << 20 {
            return Ok(());
        }
        for image in decoded_here(&bytes, &Part::whole((header.width, header.height))).into_iter().flatten() {
            prop_assert!(decoded_by_turbo(&bytes).unwrap() == image.1);
        }
    }

    #[test]
    fn other_subsamplings_are_left_to_turbo_jpeg(style in Style::any(OTHERS)) {
        prop_assert!(Header::read(&style.encode()).is_none());
    }
}

fn usual() -> Style {
    Style {
        size: (70, 50),
        seed: 7,
        quality: 90,
        subsampling: Subsamp::Sub2x2,
        restart_interval: 3,
        is_optimised: false,
    }
}

#[test]
fn a_decoder_keeps_nothing_of_earlier_images() {
    for kernel in Kernel::available() {
        let mut decoder = BaselineDecoder::with_kernel(kernel);
        for number in 0..60 {
            let style = Style {
                size: (8 + number * 7 % 90, 8 + number * 11 % 70),
                seed: number,
                quality: 40 + number as c_int,
                subsampling: OURS[number as usize % 4],
                is_optimised: number % 3 == 0,
                restart_interval: number as c_int % 5,
            };
            let mut bytes = style.encode();
            let expected = decoded_by_turbo(&bytes).unwrap();
            let mut image = RgbImage::default();
            decoder.decode(&Header::read(&bytes).unwrap(), &Part::whole(style.size), &mut image).unwrap();
            assert!(image == expected, "{style:?} with {kernel:?}");
            // And what fails half-way leaves nothing behind, either.
            bytes.truncate(bytes.len() * 2 / 3);
            bytes.extend([0xff, 0xd9]);
            if let Some(header) = Header::read(&bytes) {
                decoder.decode(&header, &Part::whole(style.size), &mut image);
            }
        }
    }
}

#[test]
fn every_early_end_is_left_to_turbo_jpeg() {
    let bytes = usual().encode();
    let whole = Part::whole(usual().size);
    for length in 0..bytes.len() {
        assert!(decoded_here(&bytes[..length], &whole).iter().all(Option::is_none), "{length} bytes");
    }
    assert!(decoded_here(&bytes, &whole).iter().all(Option::is_some));
}

#[test]
fn a_file_longer_than_its_image_can_be_takes_no_more_memory() {
    let mut bytes = usual().encode();
    bytes.truncate(bytes.len() - 2);
    bytes.resize(50 << 20, 0);
    bytes.extend([0xff, 0xd9]);
    let mut decoder = BaselineDecoder::new();
    let header = Header::read(&bytes).unwrap();
    assert_eq!(decoder.decode(&header, &Part::whole(usual().size), &mut RgbImage::default()), None);
    assert!(decoder.scan.bytes.capacity() < 1 << 18, "{}", decoder.scan.bytes.capacity());
}

/// Changes a marker segment of a file, and decodes it.
fn is_decoded_after(change: impl Fn(&mut Vec<u8>)) -> bool {
    let mut bytes = usual().encode();
    change(&mut bytes);
    decoded_here(&bytes, &Part::whole(usual().size)).iter().any(Option::is_some)
}

fn position(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).unwrap()
}

#[test]
fn what_is_unusual_is_left_to_turbo_jpeg() {
    assert!(is_decoded_after(|_| {}));
    let replaced = |pattern: &'static [u8], offset: usize, value: u8| {
        is_decoded_after(move |bytes| {
            let at = position(bytes, pattern);
            bytes[at + offset] = value;
        })
    };
    assert!(!replaced(&[0xff, 0xc0], 1, 0xc2), "progressive");
    assert!(!replaced(&[0xff, 0xc0], 1, 0xc9), "arithmetic");
    assert!(replaced(&[0xff, 0xc0], 1, 0xc1), "extended, but of 8 bits");
    assert!(!replaced(&[0xff, 0xc0], 4, 12), "12 bits");
    assert!(!replaced(&[0xff, 0xc0], 6, 0), "no rows");
    assert!(!replaced(&[0xff, 0xda], 4, 1), "a scan of one component");
    assert!(!replaced(&[0xff, 0xda], 11, 1), "not all coefficients");
    assert!(!replaced(&[0xff, 0xda], 6, 0x22), "a table that is missing");
    assert!(!replaced(&[0xff, 0xd0], 1, 0xd1), "restart markers in another order");
    assert!(!replaced(&[0xff, 0xdb], 4, 0x10), "steps of 16 bits");
    // Adobe's way to say that these are red, green and blue.
    let adobe = [&[0xff, 0xee, 0, 14][..], b"Adobe\0\x64\0\0\0\0", &[0]].concat();
    assert!(is_decoded_after(|bytes| drop(bytes.splice(2..2, adobe.clone()))), "JFIF counts more");
    assert!(!is_decoded_after(|bytes| {
        let jfif = position(bytes, b"JFIF");
        bytes[jfif] = b'X';
        bytes.splice(2..2, adobe.clone());
    }));
    assert!(
        is_decoded_after(|bytes| drop(bytes.splice(2..2, [0xff, 0xff, 0xff, 0xfe, 0, 3, 9]))),
        "a comment"
    );
    assert!(!is_decoded_after(|bytes| drop(bytes.splice(2..2, [0, 0]))), "surplus bytes");
    assert!(is_decoded_after(|bytes| bytes.extend([1, 2, 3])), "bytes behind the image");
}

#[test]
fn codes_that_could_not_be_made_leave_nothing_behind() {
    let described = |num_longer: u8, symbols: &[u8]| {
        let mut counts = [0; 16];
        counts[..2].copy_from_slice(&[u8::from(num_longer > 0), num_longer]);
        [&counts, symbols].concat()
    };
    let mut codes = DcCodes::new();
    // One code of one bit, and three of two bits, for which there is no room.
    let (too_many, none) = (described(3, &[0, 1, 2, 3]), described(0, &[]));
    assert_eq!(codes.prepare(CodeLengths::split_from(&too_many).unwrap().0), Err(NotOurs));
    codes.prepare(CodeLengths::split_from(&none).unwrap().0).unwrap();
    let zeros = [0; 8];
    let mut bits = Bits::new(&zeros, 0);
    bits.refill().unwrap();
    assert_eq!(codes.take(&mut bits), Err(NotOurs));
}
