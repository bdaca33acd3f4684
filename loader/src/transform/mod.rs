//! Images to squares of one size.
//!
//! Both transforms are OpenCLIP's, with all their options; what they do to pixels is torchvision's and Pillow's arithmetic.
//! Resizing is antialiased bicubic with a = −0.5, with Pillow's result bit for bit; [`Quality`] says from which pixels.
//!
//! [`TrainTransform`] begins with torchvision's `RandomResizedCrop`: ten tries to draw an area and a ratio that fit, then the
//! largest central crop of an allowed ratio. The crop is cut out before it is resized, so that nothing outside shows.
//! Random numbers depend on seed, epoch and [`SampleId`](fastclip_schemas::SampleId) only: neither threads nor batches
//! nor ranks change what a sample looks like in an epoch.
//!
//! [`EvalTransform`] resizes the shorter side to the size and cuts the square from the centre, unless told otherwise.
//!
//! One thing differs from OpenCLIP's order: images become RGB before they are resized, not after. Pillow resizes palette
//! images by picking pixels and CMYK by ink, which shows.

mod check;
mod colour;
mod crop;
mod erasing;
mod eval;
mod frame;
mod jitter;
#[cfg(test)]
mod pillow;
mod quality;
mod train;
mod transformer;

pub use erasing::RandomErasing;
pub use eval::{EvalTransform, ResizeMode};
pub use jitter::ColourJitter;
pub use quality::Quality;
pub use train::TrainTransform;
pub use transformer::{Augmentation, ImageTransformer};

use check::refuse;

use crate::LoadError;

/// How an image becomes a square.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Transform {
    /// A random part of the image, stretched to the square, perhaps changed further.
    Train(TrainTransform),
    /// The image as it is, as far as it fits.
    Eval(EvalTransform),
}

impl Transform {
    /// OpenCLIP's augmentation for training: 90 to 100 % of the area, ratios from 3/4 to 4/3.
    pub const fn train(size: u32) -> Self {
        Self::Train(TrainTransform::new(size))
    }

    /// Like [`train`](Self::train), with other parts of the image.
    pub const fn train_with(size: u32, scale: (f32, f32), ratio: (f32, f32)) -> Self {
        Self::Train(TrainTransform { scale, ratio, ..TrainTransform::new(size) })
    }

    /// OpenCLIP's transform for evaluation.
    pub const fn eval(size: u32) -> Self {
        Self::Eval(EvalTransform::new(size))
    }

    /// Side of the square.
    pub const fn size(&self) -> u32 {
        match self {
            Self::Train(transform) => transform.size,
            Self::Eval(transform) => transform.size,
        }
    }

    /// Bytes of a transformed image: three planes.
    pub const fn image_bytes(&self) -> usize {
        let size = self.size() as usize;
        3 * size * size
    }

    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if !(1..=4096).contains(&self.size()) {
            return refuse("transform.size", self.size(), "it must lie between 1 and 4096");
        }
        match self {
            Self::Train(transform) => transform.check(),
            Self::Eval(_) => Ok(()),
        }
    }
}

impl From<TrainTransform> for Transform {
    fn from(transform: TrainTransform) -> Self {
        Self::Train(transform)
    }
}

impl From<EvalTransform> for Transform {
    fn from(transform: EvalTransform) -> Self {
        Self::Eval(transform)
    }
}
