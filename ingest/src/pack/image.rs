use std::io::Cursor;

use fastclip_images::{DecodeError, DecodeOptions, DecoderError, ImageDecoder, Part};
use image::{DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits};

use crate::rejection::Reason;

/// What a fault is called, and what exactly was found.
pub(super) type Fault = (Reason, String);

/// Decodes images to find out whether they are whole. Each thread has its own.
///
/// Keeping bytes unseen would be cheaper; but then a damaged picture is found by every training run instead of once.
#[derive(Debug)]
pub(super) struct ImageCheck {
    max_pixels: u64,
    jpeg: ImageDecoder,
}

/// A whole image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CheckedImage {
    /// Extension of the member, by content.
    pub(super) extension: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bytes to store in place of the file's own: see [`ImageCheck::check`].
    pub(super) replacement: Option<Vec<u8>>,
}

impl ImageCheck {
    pub(super) fn new(max_pixels: u64) -> Result<Self, DecoderError> {
        let options = DecodeOptions { max_pixels, max_bytes: usize::MAX, ..DecodeOptions::default() };
        Ok(Self { max_pixels, jpeg: ImageDecoder::with_options(options)? })
    }

    /// Decodes an image of any known format.
    ///
    /// JPEG, PNG and WebP keep their bytes. GIF (its first frame), BMP and TIFF become PNG without loss, because no
    /// reader of shards looks for members of those kinds.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<CheckedImage, Fault> {
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return self.check_jpeg(bytes);
        }
        let format = image::guess_format(bytes)
            .map_err(|_| (Reason::NotAnImage, format!("it starts with {}", preview(bytes))))?;
        let extension = match format {
            ImageFormat::Png | ImageFormat::Gif | ImageFormat::Bmp | ImageFormat::Tiff => "png",
            ImageFormat::WebP => "webp",
            other => return Err((Reason::NotAnImage, format!("{other:?} is not supported"))),
        };
        let decoded = self.decode(bytes, format)?;
        let is_kept = matches!(format, ImageFormat::Png | ImageFormat::WebP);
        let replacement = if is_kept { None } else { Some(to_png(&decoded)?) };
        Ok(CheckedImage { extension, width: decoded.width(), height: decoded.height(), replacement })
    }

    fn check_jpeg(&mut self, bytes: &[u8]) -> Result<CheckedImage, Fault> {
        let opened = self.jpeg.open(bytes).map_err(jpeg_fault)?;
        let (width, height) = opened.size();
        // All coefficients are read, and they are what can be damaged. To turn them into few pixels takes less time.
        let shrink = if opened.is_scalable() { 8 } else { 1 };
        let part = Part { shrink, ..Part::whole((width.div_ceil(shrink), height.div_ceil(shrink))) };
        opened.decode(&part).map_err(jpeg_fault)?;
        Ok(CheckedImage { extension: "jpg", width, height, replacement: None })
    }

    fn decode(&self, bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, Fault> {
        let mut limits = Limits::default();
        // Sixteen bits in four channels, and as much again for the decoder's own needs.
        limits.max_alloc = Some(self.max_pixels.saturating_mul(16).saturating_add(1 << 20));
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(fault)?;
        let (width, height) = decoder.dimensions();
        self.admit(width, height)?;
        DynamicImage::from_decoder(decoder).map_err(fault)
    }

    /// Refuses by the header alone, before anything of that size is allocated.
    fn admit(&self, width: u32, height: u32) -> Result<(), Fault> {
        if u64::from(width) * u64::from(height) <= self.max_pixels {
            return Ok(());
        }
        Err((Reason::TooLarge, format!("{width}×{height} pixels, the limit is {} in all", self.max_pixels)))
    }
}

fn jpeg_fault(error: DecodeError) -> Fault {
    let reason = match error {
        DecodeError::Oversized { .. } | DecodeError::TooLong { .. } => Reason::TooLarge,
        _ => Reason::CorruptImage,
    };
    (reason, error.to_string())
}

fn fault(error: ImageError) -> Fault {
    let reason = match error {
        ImageError::Limits(_) => Reason::TooLarge,
        _ => Reason::CorruptImage,
    };
    (reason, error.to_string())
}

fn to_png(image: &DynamicImage) -> Result<Vec<u8>, Fault> {
    let mut png = Vec::new();
    match image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png) {
        Ok(()) => Ok(png),
        Err(error) => Err((Reason::NotAnImage, format!("it cannot be kept without loss: {error}"))),
    }
}

/// The first bytes, as text where they are text: an HTML page in place of a picture is recognised at once.
fn preview(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(16)];
    match std::str::from_utf8(start) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            format!("`{}`", text.trim())
        }
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbImage};
    use turbojpeg::{Image, PixelFormat};

    use super::*;

    fn check(bytes: &[u8]) -> Result<CheckedImage, Fault> {
        ImageCheck::new(10_000).unwrap().check(bytes)
    }

    fn photo() -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]))
    }

    fn jpeg() -> Vec<u8> {
        let photo = photo();
        let image = Image {
            pixels: photo.as_raw().as_slice(),
            width: 40,
            pitch: 120,
            height: 30,
            format: PixelFormat::RGB,
        };
        turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        photo().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    #[test]
    fn jpeg_png_and_webp_keep_their_bytes() {
        for (bytes, extension) in
            [(jpeg(), "jpg"), (encoded(ImageFormat::Png), "png"), (encoded(ImageFormat::WebP), "webp")]
        {
            let checked = check(&bytes).unwrap();
            assert_eq!(checked, CheckedImage { extension, width: 40, height: 30, replacement: None });
        }
    }

    #[test]
    fn other_formats_become_png_without_loss() {
        for format in [ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Gif] {
            let bytes = encoded(format);
            let checked = check(&bytes).unwrap();
            assert_eq!(checked.extension, "png");
            let kept = image::load_from_memory(&checked.replacement.unwrap()).unwrap().to_rgb8();
            assert_eq!(kept, image::load_from_memory(&bytes).unwrap().to_rgb8(), "{format:?}");
        }
    }

    #[test]
    fn cut_pictures_are_corrupt() {
        for bytes in [jpeg(), encoded(ImageFormat::Png), encoded(ImageFormat::WebP)] {
            let (reason, message) = check(&bytes[..bytes.len() / 2]).unwrap_err();
            assert_eq!(reason, Reason::CorruptImage, "{message}");
        }
    }

    #[test]
    fn a_cut_header_does_no_harm_to_the_next_picture() {
        let mut check = ImageCheck::new(10_000).unwrap();
        for length in (4..jpeg().len()).step_by(7) {
            let (reason, message) = check.check(&jpeg()[..length]).unwrap_err();
            assert_eq!(reason, Reason::CorruptImage, "{message}");
            assert!(check.check(&jpeg()).is_ok(), "after a picture cut at {length}: {message}");
        }
    }

    #[test]
    fn bytes_after_a_picture_do_no_harm() {
        let bytes = [jpeg().as_slice(), b"trailing"].concat();
        assert!(check(&bytes).is_ok());
    }

    #[test]
    fn what_is_no_picture_is_shown() {
        let (reason, message) = check(b"<html><body>404</body></html>").unwrap_err();
        assert_eq!((reason, message.as_str()), (Reason::NotAnImage, "it starts with `<html><body>404<`"));
        let (_, message) = check(&[0, 1, 2]).unwrap_err();
        assert_eq!(message, "it starts with 00 01 02");
    }

    #[test]
    fn bombs_are_refused_by_their_header() {
        let mut bomb = Vec::new();
        GrayImage::new(4000, 4000).write_to(&mut Cursor::new(&mut bomb), ImageFormat::Png).unwrap();
        let expected = (Reason::TooLarge, "4000×4000 pixels, the limit is 10000 in all".to_owned());
        assert_eq!(check(&bomb).unwrap_err(), expected);
    }
}
