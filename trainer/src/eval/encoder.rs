//! What evaluation asks of a model.

use tch::{Device, Tensor};

use crate::model::{Clip, Pass};

/// Maps images and captions to unit rows of one space.
pub trait Encoder {
    /// Returns where tensors must lie.
    fn device(&self) -> Device;

    /// Returns the width of a row.
    fn dim(&self) -> i64;

    /// Maps `u8` images, `[samples, 3, size, size]`, to rows of any floating point kind.
    fn encode_image(&self, images: &Tensor) -> Tensor;

    /// Maps `i32` token ids, `[samples, context]`, to rows of any floating point kind.
    fn encode_text(&self, tokens: &Tensor) -> Tensor;
}

impl Encoder for Clip {
    fn device(&self) -> Device {
        self.device()
    }

    fn dim(&self) -> i64 {
        self.config().embed_dim
    }

    fn encode_image(&self, images: &Tensor) -> Tensor {
        self.encode_image(images, Pass::Evaluation)
    }

    fn encode_text(&self, tokens: &Tensor) -> Tensor {
        // Padding included: how long the longest caption of a batch is, would decide how a kernel sums.
        self.encode_trimmed_text(tokens)
    }
}
