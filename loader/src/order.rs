/// In what order an epoch visits the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A new order each epoch, determined by the seed. For training.
    Shuffled {
        /// Two runs with one seed see the same batches.
        seed: u64,
    },
    /// As they lie in the dataset, the same in every epoch. For evaluation.
    Sequential,
}

impl Order {
    /// The seed of everything random; `Sequential` has the seed 0, for transforms that draw.
    pub(crate) const fn seed(self) -> u64 {
        match self {
            Self::Shuffled { seed } => seed,
            Self::Sequential => 0,
        }
    }
}

/// What becomes of the samples that do not fill a last global batch.
///
/// It also decides what becomes of a slot whose sample cannot be used, since both are the same question: must batches
/// be full, or must every sample come exactly once?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The last, incomplete global batch of an epoch is left out; every batch is full, unless
    /// [`UnreadableShards::LeaveOut`](crate::UnreadableShards) leaves out what the store does not give. Which samples miss an
    /// epoch is random, and different in the next one. The place of a bad sample goes to another sample, which then comes
    /// twice.
    Drop,
    /// Every good sample is delivered exactly once. The last batches may be short, or empty on a rank; all ranks still
    /// have the same number of steps. A bad sample makes its batch shorter.
    Keep,
}
