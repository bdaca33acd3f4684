//! What a forward pass is for.

/// What a pass through the image tower is for. Batch norms ask; transformers do the same in every pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Features to use: normalised by what training has gathered.
    Evaluation,
    /// The forward half of a training step: normalised by the statistics of the batch, which are gathered.
    Training,
    /// That half once more, because its gradients are wanted now: the same result, and nothing is gathered twice.
    Repetition,
}
