use std::fmt;

use crate::Loader;

/// Bytes that decoding an image takes for each of its pixels, at most. A TIFF of floating-point numbers takes most: twice its 16
/// bytes while it is read. A 16-bit image takes twice its 8, 4 for its copy of 8 bits, 3 for what is kept; a progressive JPEG 11.
const BYTES_PER_PIXEL: u64 = 32;
/// Memory of a thread beside pixels: its stack, and tables of decoder and resizer.
const BYTES_PER_THREAD: u64 = 4 << 20;
/// What is kept of a sample beside its pixels and tokens, until its batch is complete and in it.
const BYTES_PER_SAMPLE: u64 = 512;
/// An entry of an index: as it is read, as it is decoded then, and as another is kept.
const BYTES_PER_INDEX_ENTRY: u64 = 3 * 24;
/// What a request is longer by with a cache, which fetches whole blocks of 1 MiB: most of one at either end.
const BYTES_PER_CACHED_REQUEST: u64 = 2 << 20;
/// The tokenizer's vocabulary and the programs' own memory.
const BYTES_OF_LIBRARIES: u64 = 48 << 20;

/// The most memory that a loader takes while one of its streams is read, in bytes, by what takes it.
///
/// Of each further stream of the loader, all but decompression, indexes and what is fixed comes on top. It holds for callers
/// who drop a batch before they ask for the next; who keeps batches pays for them. Not counted are the manifest and the plan,
/// which belong to the dataset and grow with its shards, not with its samples (15 MB for 31,500 shards), and samples held as
/// [`Members`](crate::Members).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBound {
    /// Shards: [`max_bytes_in_flight`](crate::LoaderBuilder::max_bytes_in_flight).
    pub bytes_in_flight: u64,
    /// Ends of blocks around what was asked for, where there is a [cache](fastclip_shards::Dataset::with_cache).
    pub blocks: u64,
    /// Batches that wait, are filled, or are the caller's: `prefetch_batches` and two more.
    pub batches: u64,
    /// [Decoders of compressed shards](fastclip_shards::Dataset::decompression_bound), where there are any.
    pub decompression: u64,
    /// Images while they are decoded, one for each thread.
    pub decoding: u64,
    /// Indexes of shards, of which a loader keeps those of two million samples, and reads those of as many at a time.
    pub indexes: u64,
    /// What does not depend on settings.
    pub fixed: u64,
}

impl MemoryBound {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { bytes_in_flight, blocks, decompression, batches, decoding, indexes, fixed } = self;
        bytes_in_flight + blocks + decompression + batches + decoding + indexes + fixed
    }

    /// The bound of a loader where no image has more pixels than this.
    pub(crate) fn new(loader: &Loader, max_pixels: u64) -> Self {
        let settings = loader.settings();
        let (sample, threads) = (&settings.sample, settings.threads.get() as u64);
        let content_bytes = sample.num_bytes() as u64;
        // Tokens are copied when the batch is complete.
        let token_bytes = 2 * 4 * sample.context_length as u64;
        let num_slots = (settings.prefetch_batches.get() as u64 + 2) * loader.batch_size() as u64;
        let max_pixels = max_pixels.min(sample.decoding.max_pixels);
        Self {
            bytes_in_flight: settings.max_bytes_in_flight,
            blocks: loader
                .dataset()
                .cache()
                .map_or(0, |_| settings.requests_in_flight.get() as u64 * BYTES_PER_CACHED_REQUEST),
            decompression: loader.dataset().decompression_bound(),
            batches: num_slots * (content_bytes + token_bytes + BYTES_PER_SAMPLE),
            // Normalised values are made from a whole image of bytes.
            decoding: threads * (max_pixels * BYTES_PER_PIXEL + 2 * content_bytes + BYTES_PER_THREAD),
            indexes: settings.indexes.max_samples() * BYTES_PER_INDEX_ENTRY,
            fixed: BYTES_OF_LIBRARIES,
        }
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB: {} of shards, {} of batches, {} of images being decoded, {} of indexes, {} besides",
            mebibytes(self.total()),
            mebibytes(self.bytes_in_flight + self.blocks + self.decompression),
            mebibytes(self.batches),
            mebibytes(self.decoding),
            mebibytes(self.indexes),
            mebibytes(self.fixed),
        )
    }
}
