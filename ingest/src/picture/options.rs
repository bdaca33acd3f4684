use std::fmt;

use serde::{Deserialize, Serialize};

use super::{PictureFailure, PictureReason};

/// What becomes of an image's size. Names and meanings are img2dataset's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The longer side becomes the size; white on both ends makes a square of it.
    Border,
    /// The shorter side becomes the size.
    KeepRatio,
    /// The longer side becomes the size.
    KeepRatioLargest,
    /// The shorter side becomes the size, and the middle square is taken.
    CenterCrop,
    /// It stays.
    No,
}

/// How images are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodeFormat {
    /// JPEG, with colour at half the resolution.
    Jpg,
    /// PNG, without loss.
    Png,
    /// WebP, with loss.
    Webp,
}

impl EncodeFormat {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }
}

impl fmt::Display for EncodeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// Which images are taken, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PictureOptions {
    /// The size that `resize_mode` means, in pixels.
    pub image_size: u32,
    /// What becomes of the size.
    pub resize_mode: ResizeMode,
    /// Leaves smaller images as small as they are.
    pub resize_only_if_bigger: bool,
    /// How the result is stored.
    pub encode_format: EncodeFormat,
    /// From 1 to 100; PNG has none.
    pub encode_quality: u8,
    /// Keeps the bytes of images that need no resizing, whatever their format.
    pub skip_reencode: bool,
    /// Decodes JPEGs whose bytes are kept too, and refuses damaged ones. Otherwise it is enough that they have a header and an end.
    pub decode_kept: bool,
    /// Least pixels of the shorter side.
    pub min_image_size: u32,
    /// Most pixels of an image, resized or not.
    pub max_image_area: Option<u64>,
    /// Most times that the longer side is longer than the shorter one.
    pub max_aspect_ratio: Option<f64>,
    /// Most pixels of an image by its header, before anything is decoded, and of what is made of it.
    pub max_image_pixels: u64,
}

impl Default for PictureOptions {
    fn default() -> Self {
        Self {
            image_size: 256,
            resize_mode: ResizeMode::Border,
            resize_only_if_bigger: false,
            encode_format: EncodeFormat::Jpg,
            encode_quality: 95,
            skip_reencode: false,
            decode_kept: false,
            min_image_size: 0,
            max_image_area: None,
            max_aspect_ratio: None,
            // The pixels at which Pillow warns of a decompression bomb.
            max_image_pixels: 89_478_485,
        }
    }
}

impl PictureOptions {
    /// Refuses by the size alone.
    pub(super) fn admit(&self, (width, height): (u32, u32)) -> Result<(), PictureFailure> {
        let (short, long) = (width.min(height), width.max(height));
        if short < self.min_image_size {
            let message =
                format!("{width}×{height} pixels, the shorter side has less than {}", self.min_image_size);
            return Err(PictureFailure::new(PictureReason::TooSmall, message));
        }
        let area = u64::from(width) * u64::from(height);
        if let Some(max_area) = self.max_image_area.filter(|max_area| area > *max_area) {
            let message = format!("{width}×{height} pixels are more than {max_area}");
            return Err(PictureFailure::new(PictureReason::TooLarge, message));
        }
        let ratio = f64::from(long) / f64::from(short);
        match self.max_aspect_ratio {
            Some(max_ratio) if ratio > max_ratio => {
                let message = format!("{width}×{height} is {ratio:.2} to 1, the limit is {max_ratio}");
                Err(PictureFailure::new(PictureReason::TooLong, message))
            }
            _ => Ok(()),
        }
    }
}
