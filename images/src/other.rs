use std::any::Any;
use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(feature = "avif")]
use image::ImageFormat;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageError, ImageReader, Limits};

#[cfg(feature = "avif")]
use super::avif;
use super::{DecodeError, DecodeOptions, RgbImage};

/// Bytes for each pixel that is accepted: four channels of 16 bits, and as much again for what decoders need beside.
const BYTES_PER_PIXEL: u64 = 8 * 2;
/// What decoders may take for the smallest image.
const LEAST_BYTES: u64 = 1 << 20;

/// Decodes everything but JPEG.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions, image: &mut RgbImage) -> Result<(), DecodeError> {
    // These decoders are written in Rust for speed and breadth, and a malformed file has made each of them panic at
    // some time. Such a file is a bad sample, no reason to end a run. Nothing is shared with the closure but the
    // input, and the output is overwritten before it is next read.
    match catch_unwind(AssertUnwindSafe(|| read(bytes, options))) {
        Ok(result) => {
            lay_over_white(&result?, image);
            Ok(())
        }
        Err(panic) => {
            Err(DecodeError::Damaged { detail: format!("its decoder panicked: {}", words(&*panic)) })
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn read(bytes: &[u8], options: &DecodeOptions) -> Result<DynamicImage, DecodeError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| DecodeError::Damaged { detail: error.to_string() })?;
    if reader.format().is_none() {
        return Err(DecodeError::UnknownFormat);
    }
    #[cfg(feature = "avif")]
    if reader.format() == Some(ImageFormat::Avif) {
        return avif::read(bytes, options);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(options.max_pixels.saturating_mul(BYTES_PER_PIXEL).saturating_add(LEAST_BYTES));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refusal)?;
    let (width, height) = decoder.dimensions();
    options.check_size(u64::from(width), u64::from(height))?;
    let orientation = if options.turn_upright {
        decoder.orientation().map_err(refusal)?
    } else {
        Orientation::NoTransforms
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(refusal)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn refusal(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { detail: error.to_string() }
        }
        other => DecodeError::Damaged { detail: other.to_string() },
    }
}

fn lay_over_white(decoded: &DynamicImage, image: &mut RgbImage) {
    let pixels = image.resize(decoded.width(), decoded.height());
    if decoded.color().has_alpha() {
        let rgba = decoded.to_rgba8();
        for (rgb, rgba) in pixels.chunks_exact_mut(3).zip(rgba.as_raw().chunks_exact(4)) {
            let alpha = u32::from(rgba[3]);
            for (over, &colour) in rgb.iter_mut().zip(rgba) {
                let sum = u32::from(colour) * alpha + 255 * (255 - alpha);
                *over = ((sum + 127) / 255) as u8;
            }
        }
    } else {
        pixels.copy_from_slice(decoded.to_rgb8().as_raw());
    }
}
