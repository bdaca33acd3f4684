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
//! Colour profiles are ignored, and so is EXIF orientation unless [`DecodeOptions::turn_upright`] is set.
//!
//! A JPEG that ends too early is refused, as Pillow does, unless [`DecodeOptions::keep_truncated`] is set. Of other faults
//! only some oddities are accepted that web images often have and that show as intended, such as surplus bytes after the
//! header.
//!
//! AVIF is read by libaom (feature `avif`, on unless switched off). Colours at a half or a quarter of the resolution are repeated, where
//! libavif and Pillow interpolate: in a noisy picture full of coloured edges, pixels differ by four or six grey levels on
//! average. Sequences are refused, as are images that are made of tiles, and a turn that the container asks for is not made.
//!
//! JPEGs have the pixels that libjpeg-turbo gives them with the accurate transform and interpolated colours, which are Pillow's,
//! bit for bit. The usual ones are decoded by code of ours (`baseline`), which takes less time; all others by libjpeg-turbo. Of a JPEG
//! only the blocks are decoded that a crop needs. All bytes above its end have to be read nevertheless, since their code
//! has no marks to start from, and that is most of the time.

#[cfg(feature = "avif")]
mod avif;
mod baseline;
mod complete;
mod jpeg;
mod opened;
mod options;
mod other;
mod part;
mod turbo;
mod window;

pub use complete::is_complete_jpeg;
pub use options::DecodeOptions;

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer};
use jpeg::JpegDecoder;
pub use opened::OpenedImage;
pub use part::Part;
pub use window::Window;

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

    fn turn(&mut self, orientation: Orientation) {
        let pixels = std::mem::take(&mut self.pixels);
        let buffer = ImageBuffer::from_raw(self.width, self.height, pixels)
            .expect("an image has as many pixels as it says");
        let mut turned = DynamicImage::ImageRgb8(buffer);
        turned.apply_orientation(orientation);
        (self.width, self.height) = (turned.width(), turned.height());
        self.pixels = turned.into_bytes();
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
    #[error("{width} by {height} pixels are more than {max_pixels}")]
    Oversized {
        /// Pixels of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Most pixels that are accepted.
        max_pixels: u64,
    },
    /// The header announces an image that is longer or wider than accepted.
    #[error("{width} by {height} pixels: no side may have more than {max_side}")]
    TooLong {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Most of either.
        max_side: u32,
    },
    /// The file is larger than accepted.
    #[error("{num_bytes} bytes are more than {max_bytes}")]
    TooManyBytes {
        /// Size of the file.
        num_bytes: usize,
        /// Most bytes that are accepted.
        max_bytes: usize,
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

/// No decoder could be set up.
#[derive(Debug, thiserror::Error)]
#[error("could not set up the JPEG library")]
pub struct DecoderError(#[from] turbojpeg::Error);

/// Decodes images one after another, keeping decoder and memory between them.
#[derive(Debug)]
pub struct ImageDecoder {
    jpeg: JpegDecoder,
    image: RgbImage,
    options: DecodeOptions,
}

impl ImageDecoder {
    /// Sets up the decoders with default options.
    ///
    /// # Errors
    /// When the JPEG library has no memory for one.
    pub fn new() -> Result<Self, DecoderError> {
        Self::with_options(DecodeOptions::default())
    }

    /// Sets up the decoders.
    ///
    /// # Errors
    /// When the JPEG library has no memory for one.
    pub fn with_options(options: DecodeOptions) -> Result<Self, DecoderError> {
        let jpeg = JpegDecoder::new().map_err(DecoderError)?;
        Ok(Self { jpeg, image: RgbImage::default(), options })
    }

    /// Decodes one image; it is valid until the next one.
    ///
    /// # Errors
    /// When the bytes are not an image of a known format, or one that is damaged or too large. Never panics.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<&RgbImage, DecodeError> {
        let opened = self.open(bytes)?;
        let whole = Part::whole(opened.size());
        opened.decode(&whole)?;
        Ok(&self.image)
    }

    /// Reads as much of an image as its size needs: the header of a JPEG, all of any other.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn open<'a>(&'a mut self, bytes: &'a [u8]) -> Result<OpenedImage<'a>, DecodeError> {
        self.options.check_bytes(bytes)?;
        if !bytes.starts_with(&[0xff, 0xd8]) {
            other::decode(bytes, &self.options, &mut self.image)?;
            return Ok(OpenedImage { decoder: self, jpeg: None });
        }
        let opened = self.jpeg.open(bytes, &self.options)?;
        let turn =
            if self.options.turn_upright { jpeg::orientation(bytes) } else { Orientation::NoTransforms };
        if turn == Orientation::NoTransforms {
            return Ok(OpenedImage { decoder: self, jpeg: Some(opened) });
        }
        // Rare enough among images that were prepared for training to decode all of it and turn that.
        self.jpeg.decode(&opened, &Part::whole(opened.size()), &self.options, &mut self.image)?;
        self.image.turn(turn);
        Ok(OpenedImage { decoder: self, jpeg: None })
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
