//! Decoded images to squares of one size.
//!
//! Both transforms are OpenCLIP's. Resizing is antialiased bicubic with a = −0.5, as Pillow's; the results differ from
//! Pillow's by rounding only, since the passes run in another order.
//!
//! [`Transform::Train`] is torchvision's `RandomResizedCrop`: ten tries to draw an area and a ratio that fit, then the
//! largest central crop of an allowed ratio. The crop is cut out before it is resized, so that nothing outside shows.
//! Random numbers depend on seed, epoch and [`SampleId`](fastclip_schemas::SampleId) only: neither threads nor batches
//! nor ranks change what a sample looks like in an epoch.
//!
//! [`Transform::Eval`] resizes the shorter side to the size and cuts the square from the centre.

mod crop;
mod resize;

pub use resize::{Augmentation, ImageTransformer};

use crate::LoadError;

/// How a decoded image becomes a square.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Transform {
    /// A random part of the image, stretched to the square.
    #[non_exhaustive]
    Train {
        /// Side of the square.
        size: u32,
        /// Least and largest fraction of the image's area.
        scale: (f32, f32),
        /// Least and largest ratio of width to height, of the part.
        ratio: (f32, f32),
    },
    /// The central square.
    #[non_exhaustive]
    Eval {
        /// Side of the square.
        size: u32,
    },
}

impl Transform {
    /// OpenCLIP's augmentation for training: 90 to 100 % of the area, ratios from 3/4 to 4/3.
    pub const fn train(size: u32) -> Self {
        Self::Train { size, scale: (0.9, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) }
    }

    /// Like [`train`](Self::train), with other parts of the image.
    pub const fn train_with(size: u32, scale: (f32, f32), ratio: (f32, f32)) -> Self {
        Self::Train { size, scale, ratio }
    }

    /// OpenCLIP's transform for evaluation.
    pub const fn eval(size: u32) -> Self {
        Self::Eval { size }
    }

    /// Side of the square.
    pub const fn size(&self) -> u32 {
        match *self {
            Self::Train { size, .. } | Self::Eval { size } => size,
        }
    }

    /// Bytes of a transformed image: three planes.
    pub const fn image_bytes(&self) -> usize {
        let size = self.size() as usize;
        3 * size * size
    }

    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let refuse = |setting, value: String, rule| Err(LoadError::Setting { setting, value, rule });
        if !(1..=4096).contains(&self.size()) {
            return refuse("transform.size", self.size().to_string(), "it must lie between 1 and 4096");
        }
        if let Self::Train { scale, ratio, .. } = *self {
            if !(0.0 < scale.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
                let value = format!("{} to {}", scale.0, scale.1);
                return refuse("transform.scale", value, "it must rise within (0, 1]");
            }
            if !(0.0 < ratio.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
                let value = format!("{} to {}", ratio.0, ratio.1);
                return refuse("transform.ratio", value, "it must rise above 0");
            }
        }
        Ok(())
    }
}
