use std::io;
use std::ops::Range;
use std::time::Duration;

use fastclip_images::DecoderError;
use fastclip_schemas::{Digest, Position};
use fastclip_shards::ReadError;

use crate::{BadSample, Stage};

/// Why a loader could not be built, or its stream ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The rank is not in the world.
    #[error("rank {rank} is not in a world of {world_size}")]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Number of ranks.
        world_size: usize,
    },
    /// Ranks would get batches of different sizes.
    #[error("a global batch of {global_batch} cannot be shared equally by {world_size} ranks")]
    WorldSize {
        /// Slots of a global batch.
        global_batch: u64,
        /// Number of ranks.
        world_size: u64,
    },
    /// The manifest has no sample.
    #[error("the dataset holds no sample")]
    NoSamples,
    /// Not one batch could be filled.
    #[error("an epoch holds {num_samples} samples, fewer than one global batch of {global_batch}")]
    TooFewSamples {
        /// Samples of the dataset, or of all by their factors.
        num_samples: u64,
        /// Slots of a global batch.
        global_batch: u64,
    },
    /// A setting that no loader can work with.
    #[error("{setting} cannot be {value}: {rule}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The bound is below what the open windows need.
    #[error(
        "max_bytes_in_flight is {bound}, but the open windows of {num_lanes} lanes with {window_samples} samples each \
         take {needed} bytes: raise it, or lower window_samples"
    )]
    MemoryBound {
        /// The bound.
        bound: u64,
        /// Bytes that must be held at once; an estimate from the manifest when the loader is built, exact later.
        needed: u64,
        /// Lanes that this rank reads.
        num_lanes: u64,
        /// Samples of a window.
        window_samples: u64,
    },
    /// There is no such batch.
    #[error("there is no step {} in epoch {}: an epoch has {num_steps} steps", position.step, position.epoch)]
    Position {
        /// Where the stream should have begun or ended.
        position: Position,
        /// Steps of an epoch.
        num_steps: u64,
    },
    /// What was stored counts batches of another order.
    #[error(
        "the stored position belongs to the order {stored}, but dataset and settings (seed, tail, global batch, \
         segments, windows, upsampling factors) now make the order {now}: use those of then, or begin anew"
    )]
    OtherOrder {
        /// The order that it belongs to.
        stored: Digest,
        /// That of the loader.
        now: Digest,
    },
    /// The stream would end before it begins.
    #[error(
        "the stream cannot end at step {} of epoch {}, before its start at step {} of epoch {}",
        until.step, until.epoch, from.step, from.epoch
    )]
    Backwards {
        /// Start of the stream.
        from: Position,
        /// Its end.
        until: Position,
    },
    /// The store gave up on a shard or its index.
    #[error("could not read samples {} to {} of shard `{shard}`", samples.start, samples.end - 1)]
    Read {
        /// Name of the shard.
        shard: String,
        /// What should have been read.
        samples: Range<u32>,
        /// Why not.
        #[source]
        source: Box<ReadError>,
    },
    /// More samples are bad than the budget allows.
    #[error(
        "{num_bad} of the first {num_samples} samples are bad, the budget allows {:.2} %; the last one is {last}",
        max_fraction * 100.0
    )]
    BadSamples {
        /// Bad samples so far.
        num_bad: u64,
        /// Samples so far.
        num_samples: u64,
        /// Fraction that the budget allows.
        max_fraction: f64,
        /// The sample that went beyond it.
        last: Box<BadSample>,
    },
    /// A bad sample has no neighbour that could stand in for it.
    #[error("samples {} to {} of shard `{shard}` are all bad; the first asked for is {first}", samples.start, samples.end - 1)]
    NoGoodSample {
        /// Name of the shard.
        shard: String,
        /// Samples that were tried.
        samples: Range<u32>,
        /// The sample whose place it was.
        first: Box<BadSample>,
    },
    /// The JPEG library could not be set up.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// The system refused a thread or the reader's event loop.
    #[error("could not start the {stage} stage")]
    Start {
        /// What should have been started.
        stage: Stage,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Memory for a batch could not be had.
    #[error("could not allocate {num_bytes} bytes for a batch")]
    Memory {
        /// Size of the batch.
        num_bytes: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing moved for as long as the builder allows.
    #[error("no batch and no progress for {:.1} s: {waits}", still_for.as_secs_f64())]
    Stalled {
        /// How long nothing moved.
        still_for: Duration,
        /// Which stage waits for what.
        waits: String,
    },
    /// A thread of the loader panicked: a bug of the loader, or of the caller's [`SampleDecoder`](crate::SampleDecoder).
    #[error("the {stage} stage panicked: {message}")]
    Panicked {
        /// What the thread was doing.
        stage: Stage,
        /// Its last words.
        message: String,
    },
}
