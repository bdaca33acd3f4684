//! From the bytes of a host to the image of a sample: decoded, turned upright, resized, encoded.
//!
//! Modes and filters are img2dataset's, by name and meaning ([`ResizeMode`]). What it gets wrong in silence is not repeated: images are
//! turned the way up that EXIF says before that is lost, 16 bits are scaled, too large ones are refused by their header, and no
//! image is blown up beyond a limit.
//!
//! A JPEG that shall shrink to half its size or less is decoded at that fraction, which spares most of the work and is what
//! averaging its pixels would give, up to rounding.

mod area;
mod encode;
mod exif;
mod failure;
mod geometry;
mod kept;
mod options;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use fastclip_images::{DecodeOptions, DecoderError, ImageDecoder, Part, is_complete_jpeg};

pub use failure::PictureReason;
pub use options::{EncodeFormat, PictureOptions, ResizeMode};

pub(crate) use failure::PictureFailure;

pub(crate) use area::shrink as shrink_by_area;
use encode::Encoder;
use geometry::Geometry;

/// Channels of a pixel.
const CHANNELS: usize = 3;

/// An image for a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) bytes: Vec<u8>,
    /// Extension of the member.
    pub(crate) extension: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Before resizing, upright.
    pub(crate) original_width: u32,
    /// Before resizing, upright.
    pub(crate) original_height: u32,
    /// The EXIF record as JSON.
    pub(crate) exif: Option<String>,
}

/// Makes pictures one after another, keeping its memory between them.
#[derive(Debug)]
pub(crate) struct PictureMaker {
    options: PictureOptions,
    decoder: ImageDecoder,
    resizer: Resizer,
    encoder: Encoder,
    resized: Vec<u8>,
    canvas: Vec<u8>,
}

impl PictureMaker {
    pub(crate) fn new(options: PictureOptions) -> Result<Self, DecoderError> {
        let decoding = DecodeOptions {
            max_pixels: options.max_image_pixels,
            turn_upright: true,
            ..DecodeOptions::default()
        };
        Ok(Self {
            decoder: ImageDecoder::with_options(decoding)?,
            resizer: Resizer::new(),
            encoder: Encoder::new(&options)?,
            resized: Vec::new(),
            canvas: Vec::new(),
            options,
        })
    }

    /// Makes a picture of the bytes of an image file.
    pub(crate) fn make(&mut self, bytes: &[u8]) -> Result<Picture, PictureFailure> {
        let Self { options, decoder, resizer, encoder, resized, canvas } = self;
        let opened = decoder.open(bytes).map_err(|error| PictureFailure::of_bytes(bytes, error))?;
        let size = opened.size();
        options.admit(size)?;
        let geometry = Geometry::new(options, size)?;
        let picture = |made, extension, (width, height)| Picture {
            bytes: made,
            extension,
            width,
            height,
            original_width: size.0,
            original_height: size.1,
            exif: exif::record(bytes),
        };
        let is_kept = options.skip_reencode && (geometry.scaled, geometry.size()) == (size, size);
        let kept_extension = if is_kept { kept::extension(bytes) } else { None };
        if let Some(extension) = kept_extension
            && !options.decode_kept
            && is_complete_jpeg(bytes)
        {
            return Ok(picture(bytes.to_vec(), extension, size));
        }
        let shrink = if opened.is_scalable() && geometry.scaled != size { geometry.shrink(size) } else { 1 };
        let part = Part { shrink, ..Part::whole((size.0.div_ceil(shrink), size.1.div_ceil(shrink))) };
        let window = opened.decode(&part)?;
        if let Some(extension) = kept_extension {
            return Ok(picture(bytes.to_vec(), extension, size));
        }
        let (width, height) = geometry.scaled;
        let mut pixels = window.bytes;
        if (window.width, window.height) != (width, height) {
            resized.resize(width as usize * height as usize * CHANNELS, 0);
            if width <= window.width && height <= window.height {
                area::shrink(window.bytes, (window.width, window.height), resized, (width, height));
            } else {
                enlarge(resizer, window.bytes, (window.width, window.height), resized, (width, height));
            }
            pixels = resized;
        }
        if geometry.canvas.is_some() {
            geometry.place(pixels, canvas);
            pixels = canvas;
        }
        let made = encoder.encode(pixels, geometry.size())?;
        Ok(picture(made, options.encode_format.extension(), geometry.size()))
    }
}

fn enlarge(
    resizer: &mut Resizer,
    from: &[u8],
    (from_width, from_height): (u32, u32),
    to: &mut [u8],
    (width, height): (u32, u32),
) {
    // Typed: the other interface compiles every filter for thirteen kinds of pixels, which takes minutes.
    let from = TypedImageRef::<U8x3>::from_buffer(from_width, from_height, from)
        .expect("a window has all its pixels");
    let mut to = TypedImage::<U8x3>::from_buffer(width, height, to).expect("there is room for the pixels");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    resizer.resize_typed(&from, &mut to, &options).expect("neither side of an image is 0");
}

#[cfg(test)]
mod tests;
