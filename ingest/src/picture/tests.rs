use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};

use super::*;

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |x: u32, period: f32| (128.0 + 100.0 * (x as f32 / period).sin()) as u8;
        Rgb([wave(x, 40.0), wave(y, 60.0), wave(x + y, 90.0)])
    })
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let photo = photo(width, height);
    let (width, height) = (width as usize, height as usize);
    let image = turbojpeg::Image {
        pixels: photo.as_raw().as_slice(),
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 95, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
}

fn make(options: PictureOptions, bytes: &[u8]) -> Result<Picture, PictureFailure> {
    PictureMaker::new(options).unwrap().make(bytes)
}

fn keep_ratio() -> PictureOptions {
    PictureOptions { resize_mode: ResizeMode::KeepRatio, image_size: 64, ..PictureOptions::default() }
}

/// The middle pixel of what was made of an image of one colour.
fn middle(bytes: &[u8]) -> [u8; 3] {
    let options = PictureOptions { encode_format: EncodeFormat::Png, ..keep_ratio() };
    let picture = make(options, bytes).unwrap();
    let image = image::load_from_memory(&picture.bytes).unwrap().to_rgb8();
    image.get_pixel(image.width() / 2, image.height() / 2).0
}

#[test]
fn pictures_have_the_size_that_was_asked_for_in_every_format() {
    for (format, extension) in
        [(EncodeFormat::Jpg, "jpg"), (EncodeFormat::Png, "png"), (EncodeFormat::Webp, "webp")]
    {
        let options = PictureOptions { encode_format: format, ..keep_ratio() };
        let picture = make(options, &jpeg(300, 200)).unwrap();
        let image = image::load_from_memory(&picture.bytes);
        let size = match format {
            // `image` reads no JPEG here: TurboJPEG does.
            EncodeFormat::Jpg => {
                fastclip_images::decode_rgb(&picture.bytes).map(|rgb| (rgb.width, rgb.height)).unwrap()
            }
            _ => image.map(|image| (image.width(), image.height())).unwrap(),
        };
        assert_eq!((size, picture.extension), ((96, 64), extension));
        assert_eq!((picture.width, picture.height), (96, 64));
        assert_eq!((picture.original_width, picture.original_height), (300, 200));
    }
}

#[test]
fn decoding_at_a_fraction_gives_what_averaging_gives() {
    let options = PictureOptions { encode_format: EncodeFormat::Png, ..keep_ratio() };
    for (width, height) in [(128, 128), (512, 384), (401, 300), (130, 700)] {
        let picture = make(options.clone(), &jpeg(width, height)).unwrap();
        let found = image::load_from_memory(&picture.bytes).unwrap().to_rgb8();
        let whole = fastclip_images::decode_rgb(&jpeg(width, height)).unwrap();
        let mut expected = vec![0; found.as_raw().len()];
        area::shrink(&whole.pixels, (width, height), &mut expected, found.dimensions());
        let squares =
            found.as_raw().iter().zip(&expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        let mean = squares.sum::<f64>() / expected.len() as f64;
        let psnr = 10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10();
        assert!(psnr > 38.0, "{width}×{height}: {psnr:.1} dB");
    }
}

#[test]
fn colours_survive_every_kind_of_input() {
    let grey16 = ImageBuffer::<Luma<u16>, _>::from_pixel(80, 80, Luma([0x8080]));
    assert_eq!(middle(&encoded(&grey16.into(), ImageFormat::Png)), [128; 3]);
    let glass = ImageBuffer::from_pixel(80, 80, Rgba([255_u8, 0, 0, 0]));
    assert_eq!(middle(&encoded(&glass.into(), ImageFormat::Png)), [255; 3]);
    let red: DynamicImage = RgbImage::from_pixel(80, 80, Rgb([200, 10, 20])).into();
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Gif]
    {
        let found = middle(&encoded(&red, format));
        assert!(found.iter().zip([200_u8, 10, 20]).all(|(a, b)| a.abs_diff(b) <= 4), "{format:?}: {found:?}");
    }
}

#[test]
fn images_are_turned_upright_and_their_record_is_kept() {
    // Orientation 6 of a little-endian record with one field: the camera was turned to the left.
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = jpeg(200, 100);
    let mut segment = vec![0xff, 0xe1];
    segment.extend_from_slice(&(exif.len() as u16 + 2).to_be_bytes());
    segment.extend_from_slice(exif);
    bytes.splice(2..2, segment);
    let picture = make(keep_ratio(), &bytes).unwrap();
    assert_eq!((picture.width, picture.height), (64, 128));
    assert_eq!((picture.original_width, picture.original_height), (100, 200));
    let record = picture.exif.unwrap();
    assert!(record.starts_with("{\"Orientation\":"), "{record}");
}

#[test]
fn bytes_are_kept_where_nothing_changes_and_only_if_they_are_whole() {
    let options = PictureOptions {
        skip_reencode: true,
        resize_only_if_bigger: true,
        resize_mode: ResizeMode::KeepRatio,
        ..PictureOptions::default()
    };
    let small = jpeg(200, 100);
    assert_eq!(make(options.clone(), &small).unwrap().bytes, small);
    let png = encoded(&photo(50, 50).into(), ImageFormat::Png);
    let kept = make(options.clone(), &png).unwrap();
    assert_eq!((kept.bytes, kept.extension), (png.clone(), "png"));
    assert_ne!(make(options.clone(), &jpeg(600, 300)).unwrap().width, 600);
    let failure = make(options.clone(), &small[..small.len() / 2]).unwrap_err();
    assert_eq!(failure.reason, PictureReason::CorruptImage);
    // No reader of shards looks for BMP.
    let bmp = encoded(&photo(50, 50).into(), ImageFormat::Bmp);
    assert_eq!(make(options, &bmp).unwrap().extension, "jpg");
}

#[test]
fn kept_bytes_that_are_damaged_in_the_middle_are_refused_by_decoding_alone() {
    let mut damaged = jpeg(200, 100);
    let middle = damaged.len() / 2;
    // A marker that belongs to no baseline scan.
    damaged[middle..middle + 2].copy_from_slice(&[0xff, 0xc4]);
    let keeping =
        PictureOptions { skip_reencode: true, resize_mode: ResizeMode::No, ..PictureOptions::default() };
    assert_eq!(make(keeping.clone(), &damaged).unwrap().bytes, damaged);
    let failure = make(PictureOptions { decode_kept: true, ..keeping }, &damaged).unwrap_err();
    assert_eq!(failure.reason, PictureReason::CorruptImage);
}

#[test]
fn images_that_cannot_be_used_say_why() {
    let strict = PictureOptions {
        min_image_size: 50,
        max_image_area: Some(100_000),
        max_aspect_ratio: Some(3.0),
        ..keep_ratio()
    };
    let mut bomb = encoded(&photo(10, 10).into(), ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[0, 0x0f, 0x42, 0x40, 0, 0x0f, 0x42, 0x40]);
    for (bytes, expected) in [
        (jpeg(40, 100), "too_small"),
        (jpeg(400, 300), "too_large"),
        (jpeg(300, 60), "too_long"),
        (b"<html>404</html>".to_vec(), "html_page"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>gone</title><svg/>".to_vec(), "html_page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "svg"),
        (
            b"<?xml version='1.0'?><!-- drawn --><SVG><foreignObject><body/></foreignObject></SVG>".to_vec(),
            "svg",
        ),
        (b"<?xml version='1.0'?><rss/>".to_vec(), "not_an_image"),
        (b"see <html>".to_vec(), "not_an_image"),
        (Vec::new(), "not_an_image"),
        (jpeg(100, 100)[..700].to_vec(), "corrupt_image"),
    ] {
        let failure = make(strict.clone(), &bytes).unwrap_err();
        assert_eq!(failure.reason.to_string(), expected, "{}", failure.message);
    }
    assert!(make(strict.clone(), &bomb).is_err());
    assert!(make(strict, &jpeg(100, 60)).is_ok());
}
