use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use proptest::prelude::*;
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use super::*;

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn jpeg(pixels: &[u8], (width, height): (usize, usize), format: PixelFormat) -> Vec<u8> {
    let mut compressor = Compressor::new().unwrap();
    compressor.set_quality(100).unwrap();
    compressor.set_subsamp(if format == PixelFormat::GRAY { Subsamp::Gray } else { Subsamp::None }).unwrap();
    let image = Image { pixels, width, pitch: width * format.size(), height, format };
    compressor.compress_to_vec(image).unwrap()
}

fn photo(width: u32, height: u32) -> Vec<u8> {
    let pixels =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, (x * y / 7) as u8]));
    jpeg(&pixels.collect::<Vec<u8>>(), (width as usize, height as usize), PixelFormat::RGB)
}

/// Every channel of every pixel lies within `tolerance` of the expected colour.
fn assert_colour(bytes: &[u8], expected: [u8; 3], tolerance: u8) {
    let image = decode_rgb(bytes).unwrap();
    for pixel in image.pixels.chunks_exact(3) {
        let near = pixel.iter().zip(expected).all(|(&got, want)| got.abs_diff(want) <= tolerance);
        assert!(near, "{pixel:?} instead of {expected:?}");
    }
}

#[test]
fn images_of_every_format_are_known_by_their_content() {
    let image = DynamicImage::ImageRgb8(ImageBuffer::from_pixel(5, 4, Rgb([200, 100, 50])));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
        assert_colour(&encode(&image, format), [200, 100, 50], 0);
    }
    // A palette of 216 or so colours.
    assert_colour(&encode(&DynamicImage::ImageRgba8(image.to_rgba8()), ImageFormat::Gif), [200, 100, 50], 8);
    assert_colour(&jpeg(&[200, 100, 50].repeat(20), (5, 4), PixelFormat::RGB), [200, 100, 50], 2);
}

#[test]
fn grey_is_grey_in_all_channels() {
    assert_colour(&jpeg(&[77; 20], (5, 4), PixelFormat::GRAY), [77; 3], 1);
    let grey = DynamicImage::ImageLuma8(ImageBuffer::from_pixel(3, 3, Luma([77])));
    assert_colour(&encode(&grey, ImageFormat::Png), [77; 3], 0);
}

#[test]
fn sixteen_bits_are_scaled_not_cut() {
    let deep =
        DynamicImage::ImageRgb16(ImageBuffer::from_pixel(3, 3, Rgb([257 * 200, 257 * 3 + 100, 65_535])));
    assert_colour(&encode(&deep, ImageFormat::Png), [200, 3, 255], 0);
}

#[test]
fn transparency_is_laid_over_white() {
    let half = DynamicImage::ImageRgba8(ImageBuffer::from_pixel(3, 3, Rgba([255, 0, 100, 51])));
    assert_colour(&encode(&half, ImageFormat::Png), [255, 204, 224], 0);
    let clear = DynamicImage::ImageLumaA8(ImageBuffer::from_pixel(3, 3, LumaA([0, 0])));
    assert_colour(&encode(&clear, ImageFormat::Png), [255; 3], 0);
}

#[test]
fn cmyk_is_read_as_adobe_stores_it() {
    // Inverted: full cyan ink is 0. Cyan without black shows as (0, 255, 255); half black halves it.
    assert_colour(&jpeg(&[0, 255, 255, 255].repeat(64), (8, 8), PixelFormat::CMYK), [0, 255, 255], 2);
    assert_colour(&jpeg(&[0, 255, 255, 128].repeat(64), (8, 8), PixelFormat::CMYK), [0, 128, 128], 2);
}

#[test]
fn a_jpeg_cut_in_half_is_truncated() {
    let whole = photo(64, 48);
    assert!(matches!(decode_rgb(&whole[..whole.len() / 2]), Err(DecodeError::Truncated { .. })));
}

#[test]
fn surplus_bytes_in_a_jpeg_do_no_harm() {
    let whole = photo(64, 48);
    let expected = decode_rgb(&whole).unwrap();
    let mut surplus = whole[..whole.len() - 2].to_vec();
    surplus.extend([1, 2, 3, 4, 0xff, 0xd9]);
    assert_eq!(decode_rgb(&surplus).unwrap(), expected);
    let mut trailing = whole.clone();
    trailing.extend([0; 100]);
    assert_eq!(decode_rgb(&trailing).unwrap(), expected);
    let strays = [&whole[..2], &[1, 2, 3], &whole[2..]].concat();
    assert_eq!(decode_rgb(&strays).unwrap(), expected);
    let mut of_the_future = whole;
    let version = of_the_future.windows(4).position(|bytes| bytes == b"JFIF").unwrap() + 5;
    of_the_future[version] = 7;
    assert_eq!(decode_rgb(&of_the_future).unwrap(), expected);
}

#[test]
fn surplus_bytes_do_not_hide_that_the_end_is_missing() {
    for progressive in [false, true] {
        let whole = coloured(64, 48, Subsamp::None, progressive);
        let strays = [&whole[..2], &[1, 2, 3], &whole[2..]].concat();
        assert!(decode_rgb(&strays).is_ok());
        for length in (strays.len() / 2..strays.len() - 2).step_by(9) {
            assert!(decode_rgb(&strays[..length]).is_err(), "cut at {length}");
        }
    }
}

/// A JPEG without its segments of one kind.
fn without(jpeg: &[u8], kind: u8) -> Vec<u8> {
    let (mut kept, mut rest) = (jpeg[..2].to_vec(), &jpeg[2..]);
    while rest[1] != 0xda {
        let (segment, after) = rest.split_at(2 + usize::from(u16::from_be_bytes([rest[2], rest[3]])));
        if segment[1] != kind {
            kept.extend(segment);
        }
        rest = after;
    }
    [&kept[..], rest].concat()
}

#[test]
fn tables_of_one_image_serve_no_other() {
    let usual = coloured(64, 48, Subsamp::None, false);
    let (without_codes, without_steps) = (without(&usual, 0xc4), without(&usual, 0xdb));
    let expected = decode_rgb(&usual).unwrap();
    assert_eq!(decode_rgb(&without_codes).unwrap(), expected, "the usual codes are known without being told");
    let mut decoder = ImageDecoder::new().unwrap();
    for _ in 0..2 {
        // A progressive image brings codes of its own.
        decoder.decode(&coloured(64, 48, Subsamp::None, true)).unwrap();
        assert_eq!(decoder.decode(&without_codes).unwrap(), &expected);
        decoder.decode(&coloured(64, 48, Subsamp::None, true)).unwrap();
        assert!(matches!(decoder.decode(&without_steps), Err(DecodeError::Damaged { .. })));
    }
}

#[test]
fn what_is_no_image_says_so() {
    assert!(matches!(decode_rgb(b""), Err(DecodeError::Empty)));
    assert!(matches!(decode_rgb(b"<html>not found</html>"), Err(DecodeError::UnknownFormat)));
    assert!(matches!(
        decode_rgb(&[0xff, 0xd8]),
        Err(DecodeError::Damaged { .. } | DecodeError::Truncated { .. })
    ));
}

#[test]
fn an_image_that_would_fill_the_memory_is_refused_by_its_header() {
    let mut bomb = photo(16, 16);
    let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert!(matches!(decode_rgb(&bomb), Err(DecodeError::Oversized { width: 60_000, height: 60_000, .. })));
    let mut png = encode(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    assert!(decode_rgb(&png).is_err());
    let thread = encode(&DynamicImage::new_luma8(1, (1 << 18) + 1), ImageFormat::Png);
    assert!(matches!(decode_rgb(&thread), Err(DecodeError::TooLong { width: 1, .. })));
}

#[test]
fn a_decoder_is_as_good_after_a_bad_image_as_before() {
    let whole = photo(64, 48);
    let expected = decode_rgb(&whole).unwrap();
    let mut decoder = ImageDecoder::new().unwrap();
    // Cut at any place: TurboJPEG keeps another state for each part of a header.
    let cut = (0..whole.len()).step_by(7).map(|length| &whole[..length]);
    for bad in cut.chain([&b"GIF89a"[..]]) {
        assert!(decoder.decode(bad).is_err());
        assert_eq!(decoder.decode(&whole).unwrap(), &expected);
    }
}

/// A photo-like JPEG with strong colours, in any of the ways that JPEGs are stored.
fn coloured(width: u32, height: u32, subsampling: Subsamp, progressive: bool) -> Vec<u8> {
    let pixel =
        |x: u32, y: u32| [(x * 37 + y * 11) as u8, (((x / 3) ^ (y / 2)) * 9) as u8, (x * y / 7) as u8];
    let pixels: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let mut compressor = Compressor::new().unwrap();
    compressor.set_subsamp(subsampling).unwrap();
    compressor.set_progressive(progressive).unwrap();
    let (width, height) = (width as usize, height as usize);
    let image = Image { pixels: &pixels[..], width, pitch: width * 3, height, format: PixelFormat::RGB };
    compressor.compress_to_vec(image).unwrap()
}

/// A JPEG with an EXIF record that says how it was taken, and nothing else.
fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn images_are_turned_upright_only_when_asked() {
    let bytes = photo(48, 32);
    let stored = decode_rgb(&bytes).unwrap();
    let pixel = |image: &RgbImage, x: u32, y: u32| -> [u8; 3] {
        image.pixels[((y * image.width + x) * 3) as usize..][..3].try_into().unwrap()
    };
    let mut upright =
        ImageDecoder::with_options(DecodeOptions { turn_upright: true, ..DecodeOptions::default() }).unwrap();
    // Where the first pixel that is stored belongs.
    let corners = [(0, 0), (47, 0), (47, 31), (0, 31), (0, 0), (31, 0), (31, 47), (0, 47)];
    for (orientation, (x, y)) in (1..).zip(corners) {
        let bytes = turned(&bytes, orientation);
        assert_eq!(decode_rgb(&bytes).unwrap(), stored, "as stored");
        let image = upright.decode(&bytes).unwrap();
        let expected = if orientation < 5 { (48, 32) } else { (32, 48) };
        assert_eq!((image.width, image.height), expected, "orientation {orientation}");
        assert_eq!(pixel(image, x, y), pixel(&stored, 0, 0), "orientation {orientation}");
    }
}

#[test]
fn truncated_jpegs_are_kept_when_asked_with_grey_for_what_is_missing() {
    let whole = photo(64, 64);
    let expected = decode_rgb(&whole).unwrap();
    let options = DecodeOptions { keep_truncated: true, ..DecodeOptions::default() };
    let mut decoder = ImageDecoder::with_options(options).unwrap();
    let kept = decoder.decode(&whole[..whole.len() * 2 / 3]).unwrap();
    let (first, last) = (64 * 3 * 8, 64 * 3 * 56);
    assert_eq!(kept.pixels[..first], expected.pixels[..first]);
    assert!(
        kept.pixels[last..]
            .chunks_exact(3)
            .all(|pixel| pixel == kept.pixels[kept.pixels.len() - 3..].as_ref())
    );
    assert!(matches!(
        decoder.decode(&whole[..20]),
        Err(DecodeError::Damaged { .. } | DecodeError::Truncated { .. })
    ));
    let png = encode(&DynamicImage::new_rgb8(90, 90), ImageFormat::Png);
    assert!(decoder.decode(&png[..png.len() / 2]).is_err(), "other formats are refused all the same");
}

#[test]
fn files_beyond_the_limits_are_refused() {
    let bytes = photo(64, 48);
    let decode = |options| ImageDecoder::with_options(options).unwrap().decode(&bytes).map(|_| ());
    let usual = DecodeOptions::default();
    let max_bytes = bytes.len() - 1;
    assert!(matches!(
        decode(DecodeOptions { max_bytes, ..usual }),
        Err(DecodeError::TooManyBytes { num_bytes, .. }) if num_bytes == bytes.len()
    ));
    assert!(matches!(
        decode(DecodeOptions { max_pixels: 64 * 48 - 1, ..usual }),
        Err(DecodeError::Oversized { width: 64, height: 48, max_pixels: 3071 })
    ));
    assert!(decode(DecodeOptions { max_pixels: 64 * 48, max_bytes: max_bytes + 1, ..usual }).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_part_has_the_pixels_of_the_whole(
        (width, height) in (1_u32..150, 1_u32..150),
        subsampling in prop::sample::select(vec![
            Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2, Subsamp::Gray, Subsamp::Sub1x2, Subsamp::Sub4x1,
        ]),
        progressive in any::<bool>(),
        shrink in prop::sample::select(vec![1_u32, 2, 4, 8]),
        ends in any::<[prop::sample::Index; 4]>(),
    ) {
        let bytes = coloured(width, height, subsampling, progressive);
        let size = (width.div_ceil(shrink), height.div_ceil(shrink));
        let range = |length: u32, first: prop::sample::Index, second: prop::sample::Index| {
            let start = first.index(length as usize) as u32;
            start..start + 1 + second.index((length - start) as usize) as u32
        };
        let (columns, rows) = (range(size.0, ends[0], ends[1]), range(size.1, ends[2], ends[3]));
        let (mut one, mut other) = (ImageDecoder::new().unwrap(), ImageDecoder::new().unwrap());
        let whole = one.open(&bytes).unwrap().decode(&Part { shrink, columns: 0..size.0, rows: 0..size.1 }).unwrap();
        prop_assert_eq!((whole.left, whole.top, whole.width, whole.height), (0, 0, size.0, size.1));
        let part = other.open(&bytes).unwrap().decode(&Part { shrink, columns: columns.clone(), rows: rows.clone() });
        let part = part.unwrap();
        for y in rows {
            for x in columns.clone() {
                let at = |window: Window<'_>| {
                    let at = ((y - window.top) * window.width + x - window.left) * 3;
                    window.bytes[at as usize..][..3].to_vec()
                };
                prop_assert_eq!(at(part), at(whole), "pixel {}, {}", x, y);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_a_decoder_panic(
        start in prop::sample::select(vec![
            &b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8 ", b"GIF89a", b"BM", b"II*\0", b"",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = decode_rgb(&[start, &rest].concat());
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        format in prop::sample::select(vec![ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp,
                                            ImageFormat::Tiff, ImageFormat::Jpeg]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = match format {
            ImageFormat::Jpeg => photo(33, 17),
            other => encode(&DynamicImage::ImageRgba8(ImageBuffer::from_pixel(9, 7, Rgba([9, 8, 7, 6]))), other),
        };
        for (index, value) in damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let _ = decode_rgb(&bytes);
    }
}
