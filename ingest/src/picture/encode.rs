use std::io::Cursor;

use fastclip_images::DecoderError;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use super::{EncodeFormat, PictureFailure, PictureOptions, PictureReason};

/// Encodes pixels one image after another.
#[derive(Debug)]
pub(super) struct Encoder {
    jpeg: Compressor,
    format: EncodeFormat,
    quality: u8,
}

impl Encoder {
    pub(super) fn new(options: &PictureOptions) -> Result<Self, DecoderError> {
        let quality = options.encode_quality;
        let jpeg = Compressor::new().and_then(|mut jpeg| {
            jpeg.set_quality(quality.into())?;
            jpeg.set_subsamp(Subsamp::Sub2x2)?;
            Ok(jpeg)
        });
        Ok(Self { jpeg: jpeg.map_err(DecoderError::from)?, format: options.encode_format, quality })
    }

    /// Encodes red, green and blue of each pixel, row after row.
    pub(super) fn encode(
        &mut self,
        pixels: &[u8],
        (width, height): (u32, u32),
    ) -> Result<Vec<u8>, PictureFailure> {
        let refused = |message: String| PictureFailure::new(PictureReason::NotEncodable, message);
        match self.format {
            EncodeFormat::Jpg => {
                let (width, height) = (width as usize, height as usize);
                let image = Image { pixels, width, pitch: width * 3, height, format: PixelFormat::RGB };
                self.jpeg.compress_to_vec(image).map_err(|error| refused(error.to_string()))
            }
            EncodeFormat::Png => {
                let mut bytes = Cursor::new(Vec::new());
                PngEncoder::new(&mut bytes)
                    .write_image(pixels, width, height, ExtendedColorType::Rgb8)
                    .map_err(|error| refused(error.to_string()))?;
                Ok(bytes.into_inner())
            }
            EncodeFormat::Webp => webp::Encoder::from_rgb(pixels, width, height)
                .encode_simple(false, self.quality.into())
                .map(|bytes| bytes.to_vec())
                .map_err(|error| refused(format!("{error:?}"))),
        }
    }
}
