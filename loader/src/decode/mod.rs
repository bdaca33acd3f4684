//! Image files to pixels.
//!
//! The format is told from the content, never from the name. What comes out is 8-bit RGB:
//!
//! | input | becomes |
//! |---|---|
//! | grey, palette, 1 to 8 bits | the colours that it shows |
//! | 16 bits a channel | divided by 257, rounded |
//! | transparency | laid over white |
//! | CMYK, YCCK | inverted as Adobe stores it, then multiplied by black: what Pillow does without a colour profile |
//! | animation | its first frame |
//!
//! Colour profiles are ignored, and so is EXIF orientation: OpenCLIP trains on pixels as they are stored, and `ingest`
//! turns images upright when it packs them.
//!
//! A JPEG that ends too early is refused, as Pillow does. Of other faults only surplus bytes after the header are
//! accepted: web images often carry some, and they show as intended.

mod jpeg;
mod other;

pub(crate) use jpeg::JpegDecoder;

use crate::LoadError;

/// Most pixels of an image. Larger ones are refused by their header, before memory is taken for them.
pub const MAX_PIXELS: u64 = 64_000_000;

/// An 8-bit RGB image, row after row without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green and blue of each pixel.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// Takes a size and returns the bytes to fill. Keeps the memory of larger images that were here before.
    fn resize(&mut self, width: u32, height: u32) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        self.pixels.resize(width as usize * height as usize * 3, 0);
        &mut self.pixels
    }
}

/// Why bytes are not an image that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are of no known format.
    #[error("the file is of no known image format")]
    UnknownFormat,
    /// The header announces more pixels than are accepted.
    #[error("{width} by {height} pixels are more than {MAX_PIXELS}")]
    Oversized {
        /// Pixels of a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// The file ends before the image does.
    #[error("the image ends too early ({detail})")]
    Truncated {
        /// What the decoder says.
        detail: String,
    },
    /// The decoder cannot make an image of it.
    #[error("the image is damaged or unsupported ({detail})")]
    Damaged {
        /// What the decoder says.
        detail: String,
    },
}

fn check_size(width: u64, height: u64) -> Result<(u32, u32), DecodeError> {
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(w @ 1..), Ok(h @ 1..)) if width * height <= MAX_PIXELS => Ok((w, h)),
        (Ok(0), _) | (_, Ok(0)) => Err(DecodeError::Damaged { detail: "it has no pixels".to_owned() }),
        _ => Err(DecodeError::Oversized { width, height }),
    }
}

/// Decodes images one after another, keeping decoder and memory between them.
#[derive(Debug)]
pub struct ImageDecoder {
    jpeg: JpegDecoder,
    image: RgbImage,
}

impl ImageDecoder {
    /// Sets up the decoders.
    ///
    /// # Errors
    /// When the JPEG library has no memory for one.
    pub fn new() -> Result<Self, LoadError> {
        Ok(Self { jpeg: JpegDecoder::new().map_err(LoadError::Decoder)?, image: RgbImage::default() })
    }

    /// Decodes one image; it is valid until the next one.
    ///
    /// # Errors
    /// When the bytes are not an image of a known format, or one that is damaged or too large. Never panics.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<&RgbImage, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if bytes.starts_with(&[0xff, 0xd8]) {
            self.jpeg.decode(bytes, &mut self.image)?;
        } else {
            other::decode(bytes, &mut self.image)?;
        }
        Ok(&self.image)
    }
}

/// Decodes a single image.
///
/// # Errors
/// As [`ImageDecoder::decode`], or when no decoder can be set up.
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let mut decoder =
        ImageDecoder::new().map_err(|error| DecodeError::Damaged { detail: error.to_string() })?;
    decoder.decode(bytes)?;
    Ok(decoder.image)
}

#[cfg(test)]
mod tests;
