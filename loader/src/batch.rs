use std::fmt;
use std::sync::Arc;

use fastclip_schemas::{Position, SampleId};

use crate::Members;
use crate::buffer::{Frames, Pool};

/// One rank's part of a global batch.
///
/// Its memory goes back to the loader when it is dropped, and is used for a later batch.
pub struct Batch {
    pub(crate) position: Position,
    pub(crate) image_bytes: usize,
    pub(crate) context_length: usize,
    pub(crate) tokens: Vec<i32>,
    pub(crate) lengths: Vec<i32>,
    pub(crate) sample_ids: Vec<SampleId>,
    pub(crate) keys: Vec<Box<str>>,
    pub(crate) classes: Vec<i32>,
    pub(crate) members: Vec<Members>,
    pub(crate) images: Lent,
}

impl Batch {
    /// Which global batch it is part of.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Samples in this rank's part. All its slots under [`Tail::Drop`](crate::Tail); fewer, or none, where
    /// [`Tail::Keep`](crate::Tail) ends an epoch or leaves out bad samples, or
    /// [`UnreadableShards::LeaveOut`](crate::UnreadableShards) leaves out what the store does not give.
    pub fn len(&self) -> usize {
        self.sample_ids.len()
    }

    /// Whether it has no sample.
    pub fn is_empty(&self) -> bool {
        self.sample_ids.is_empty()
    }

    /// Pixels, of shape (len, 3, size, size) and in bytes, unless another [`Output`](crate::Output) was asked for. Values of
    /// several bytes are in the order of this machine, and begin at a multiple of their size.
    ///
    /// With [`Content::Decoded`](crate::Content), what the decoder has written; with [`Content::Members`](crate::Content),
    /// nothing.
    pub fn images(&self) -> &[u8] {
        &self.images.frames().bytes()[..self.len() * self.image_bytes]
    }

    /// Token ids, of shape (len, context length), filled up as the [`Tokenizer`](crate::Tokenizer) does it.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// Tokens of each sample that are not padding; start and end count.
    pub fn lengths(&self) -> &[i32] {
        &self.lengths
    }

    /// Row of each sample in tables over the dataset.
    ///
    /// Where a bad sample was replaced, this is the id of the one that stands in for it.
    pub fn sample_ids(&self) -> &[SampleId] {
        &self.sample_ids
    }

    /// What the names of each sample's members have in common; beside the id, that by which people find a sample.
    pub fn keys(&self) -> &[Box<str>] {
        &self.keys
    }

    /// The members of each sample, only with [`Content::Members`](crate::Content).
    pub fn members(&self) -> &[Members] {
        &self.members
    }

    /// Class of each sample; −1 where it has none.
    pub fn classes(&self) -> &[i32] {
        &self.classes
    }

    /// Length of the rows of [`tokens`](Self::tokens).
    pub fn context_length(&self) -> usize {
        self.context_length
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("position", &self.position)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Frames that find their way home.
#[derive(Debug)]
pub(crate) struct Lent {
    pool: Arc<Pool>,
    frames: Option<Frames>,
}

impl Lent {
    pub(crate) fn new(pool: Arc<Pool>, frames: Frames) -> Self {
        Self { pool, frames: Some(frames) }
    }

    pub(crate) fn frames(&self) -> &Frames {
        self.frames.as_ref().expect("frames are taken by `drop` only")
    }

    pub(crate) fn frames_mut(&mut self) -> &mut Frames {
        self.frames.as_mut().expect("frames are taken by `drop` only")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(frames) = self.frames.take() {
            self.pool.put_back(frames);
        }
    }
}
