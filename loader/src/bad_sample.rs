use std::fmt;

use fastclip_schemas::Position;

/// A sample that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    /// Name of its shard.
    pub shard: String,
    /// Its number in the shard.
    pub sample: u32,
    /// Its key, where that could be read.
    pub key: Option<String>,
    /// Batch that it belonged to.
    pub position: Position,
    /// What is wrong with it, in a word.
    pub reason: BadReason,
    /// What is wrong with it, in full.
    pub detail: String,
}

impl fmt::Display for BadSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sample {} of shard `{}`", self.sample, self.shard)?;
        if let Some(key) = &self.key {
            write!(f, " (key `{key}`)")?;
        }
        write!(f, ": {}: {}", self.reason, self.detail)
    }
}

/// Why samples are lost; what they are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BadReason {
    /// The archive is damaged here, or does not agree with its index.
    Archive,
    /// There is no image among the members.
    MissingImage,
    /// The image ends too early.
    TruncatedImage,
    /// The image is larger than the decoder accepts.
    OversizedImage,
    /// The image cannot be decoded, for any other reason.
    UndecodableImage,
    /// There is neither a caption nor a class.
    MissingCaption,
    /// The caption is not UTF-8.
    CaptionNotUtf8,
    /// The caption's JSON cannot be read, or holds something else in its place.
    MalformedCaption,
    /// The class is not a number.
    Class,
    /// A [`SampleDecoder`](crate::SampleDecoder) refused it.
    Content,
    /// Its shard or index cannot be read. Only under [`UnreadableShards::LeaveOut`].
    UnreadableShard,
}

impl BadReason {
    /// All reasons, in the order in which statistics list them.
    pub const ALL: [Self; 11] = [
        Self::Archive,
        Self::MissingImage,
        Self::TruncatedImage,
        Self::OversizedImage,
        Self::UndecodableImage,
        Self::MissingCaption,
        Self::CaptionNotUtf8,
        Self::MalformedCaption,
        Self::Class,
        Self::Content,
        Self::UnreadableShard,
    ];
}

impl fmt::Display for BadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Archive => "damaged archive",
            Self::MissingImage => "no image",
            Self::TruncatedImage => "truncated image",
            Self::OversizedImage => "image too large",
            Self::UndecodableImage => "undecodable image",
            Self::MissingCaption => "no caption",
            Self::CaptionNotUtf8 => "caption not UTF-8",
            Self::MalformedCaption => "malformed caption",
            Self::Content => "unusable content",
            Self::Class => "class not a number",
            Self::UnreadableShard => "unreadable shard",
        })
    }
}

/// What becomes of samples that the store does not give, after all its retries, or whose index is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnreadableShards {
    /// The stream ends with [`LoadError::Read`](crate::LoadError::Read).
    #[default]
    Fail,
    /// They count as bad, as [`BadReason::UnreadableShard`], and are left out. Nothing stands in for them, since what
    /// does must not depend on what else is at hand; so even under [`Tail::Drop`](crate::Tail::Drop) batches may be short,
    /// and differ in length between ranks. The budget of bad samples bounds how many.
    LeaveOut,
}

/// How many samples a stream may lose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BadSampleBudget {
    /// Largest fraction of bad samples. A stream with more ends with [`LoadError::BadSamples`](crate::LoadError).
    pub max_fraction: f64,
    /// Samples before the fraction means something. Where an epoch of this rank has fewer, that is enough.
    pub min_samples: u64,
}

impl BadSampleBudget {
    /// Ends the stream at the first bad sample.
    pub const NONE: Self = Self { max_fraction: 0.0, min_samples: 0 };
    /// Loses any number of samples. Under [`Tail::Drop`](crate::Tail::Drop) another one of those that were read with it, eight at
    /// least unless windows are smaller, must be good nevertheless; [`LoadError::NoGoodSample`](crate::LoadError::NoGoodSample) otherwise.
    pub const UNLIMITED: Self = Self { max_fraction: 1.0, min_samples: 0 };

    pub(crate) fn is_exceeded(&self, num_bad: u64, num_samples: u64, epoch_samples: u64) -> bool {
        num_bad > 0
            && num_samples >= self.min_samples.min(epoch_samples)
            && num_bad as f64 > self.max_fraction * num_samples as f64
    }
}

impl Default for BadSampleBudget {
    /// One in twenty, judged after a thousand.
    fn default() -> Self {
        Self { max_fraction: 0.05, min_samples: 1000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_judged_only_after_enough_samples() {
        let budget = BadSampleBudget::default();
        assert!(!budget.is_exceeded(900, 999, 1 << 20));
        assert!(!budget.is_exceeded(50, 1000, 1 << 20));
        assert!(budget.is_exceeded(51, 1000, 1 << 20));
        assert!(budget.is_exceeded(6, 100, 100), "an epoch of 100 samples is enough");
        assert!(BadSampleBudget::NONE.is_exceeded(1, 1, 100));
        assert!(!BadSampleBudget::NONE.is_exceeded(0, 1, 100));
        assert!(!BadSampleBudget::UNLIMITED.is_exceeded(1000, 1000, 100));
    }
}
