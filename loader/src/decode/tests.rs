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
    let mut trailing = whole;
    trailing.extend([0; 100]);
    assert_eq!(decode_rgb(&trailing).unwrap(), expected);
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
    assert!(matches!(decode_rgb(&bomb), Err(DecodeError::Oversized { width: 60_000, height: 60_000 })));
    let mut png = encode(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    assert!(decode_rgb(&png).is_err());
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
