use std::fmt;
use std::sync::Arc;

use fastclip_shards::Sample;

use crate::Augmentation;

/// What a batch holds of each sample, beside caption, id and class.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Content {
    /// The image, transformed, in [`Batch::images`](crate::Batch::images).
    #[default]
    Images,
    /// Whatever a decoder makes of the members, in place of the image. Captions may be missing then.
    Decoded(Arc<dyn SampleDecoder>),
    /// The members as they are, in [`Batch::members`](crate::Batch::members). Captions may be missing then.
    ///
    /// Their bytes are copied for the batch, and count with it instead of as bytes in flight.
    Members,
}

/// Makes what a batch shall hold of a sample: sound, depth, features, anything of a fixed size.
///
/// # Threads
/// Called from all decoding threads at once. What a call needs to remember belongs into a `thread_local`.
pub trait SampleDecoder: fmt::Debug + Send + Sync {
    /// Bytes that a sample takes in a batch, the same for all.
    fn num_bytes(&self) -> usize;

    /// Fills the sample's bytes in the batch, which hold anything at all before.
    ///
    /// Chance should come from `augmentation` only: then epochs are the same however many threads or ranks there are.
    /// An error makes the sample a bad one, by [`BadReason::Content`](crate::BadReason). It may be asked for the same
    /// sample more than once, when that replaces a bad one.
    ///
    /// # Errors
    /// When the sample cannot be used, and why.
    fn decode(
        &self,
        sample: &Sample<'_>,
        augmentation: Augmentation,
        out: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// The members of a sample as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    key: String,
    members: Vec<(String, Box<[u8]>)>,
}

impl Members {
    pub(crate) fn of(sample: &Sample<'_>) -> Self {
        let members =
            sample.members().map(|(extension, bytes)| (extension.to_owned(), bytes.into())).collect();
        Self { key: sample.key().to_owned(), members }
    }

    /// What the names of the members have in common.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Extensions and contents, in the order of the shard.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.members.iter().map(|(extension, bytes)| (&extension[..], &bytes[..]))
    }

    /// The content of the member with this extension.
    pub fn get(&self, extension: &str) -> Option<&[u8]> {
        self.iter().find_map(|(known, bytes)| (known == extension).then_some(bytes))
    }
}
