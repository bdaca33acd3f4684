//! Streams image–text shards into batches in reusable host buffers, in an exact order. No torch inside.
//!
//! A [`Loader`] is built over a [`Dataset`](fastclip_shards::Dataset) and gives streams of [`Batch`]es: pixels as bytes,
//! ready for a tensor, token ids with their lengths, sample ids and classes.
//!
//! ```no_run
//! use std::num::NonZeroUsize;
//!
//! use fastclip_loader::{Loader, Order, Transform, World};
//! use fastclip_schemas::Position;
//! use fastclip_shards::Dataset;
//!
//! # async fn load() -> Result<(), Box<dyn std::error::Error>> {
//! let dataset = Dataset::open("data/toy").await?;
//! let loader = Loader::builder(dataset)
//!     .global_batch(NonZeroUsize::new(512).expect("not 0"))
//!     .world(World::new(0, 2)?)
//!     .order(Order::Shuffled { seed: 1 })
//!     .transform(Transform::train(224))
//!     .build()?;
//! // Three epochs; a run that was stopped goes on by `Loader::resume` from what `Batches::state` said.
//! for batch in loader.stream(Position::default(), Position::start_of(3))? {
//!     let batch = batch?;
//!     println!("{:?}: {} images, {} bytes", batch.position(), batch.len(), batch.images().len());
//! }
//! println!("{}", loader.stats());
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! * Over all ranks an epoch covers each sample exactly once; [`Tail`] says what becomes of those that do not fill a
//!   batch. Every rank has the same number of steps.
//! * The global batches are a function of manifest, seed, epoch and global batch, explained in [`plan`]. Number of
//!   ranks, threads and timing change nothing, and neither does stopping and resuming at any batch.
//! * What a sample looks like in an epoch depends on seed, epoch and its [`SampleId`](fastclip_schemas::SampleId) only; where
//!   datasets are mixed, the pass over its dataset takes the place of the epoch.
//! * Bytes in flight stay below [`max_bytes_in_flight`](LoaderBuilder::max_bytes_in_flight).
//! * A bad sample is counted by its [`BadReason`], logged once for each reason and shard, twenty of them a minute, and
//!   replaced by the next good one of the same run, or left out under [`Tail::Keep`]. [`BadSampleBudget`] bounds how many may
//!   be lost.
//! * Dropping [`Batches`] at any moment joins its threads, which finish the image that they are at, and returns its memory.
//!
//! # Modules
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | which sample stands in which slot of which batch |
//! | `pipeline` | threads and channels between store and caller |
//! | [`ImageDecoder`] | image files to pixels; the crate `fastclip-images` |
//! | [`transform`] | pixels to squares of one size |
//! | `resample` | the arithmetic of resizing |
//! | `output` | squares to what a batch holds |
//! | `text` | captions to token ids |
//! | `content` | samples that are no images |
//! | [`buffer`] | memory that many threads fill at once |
//! | `memory` | how much of it there can be |
//!
//! # Watching it
//!
//! [`Loader::stats`] tells at any time how long each stage and each wait between stages takes, on average and for 99 of 100,
//! and which stage holds the others up; [`LoaderBuilder::report_every`] logs that through `tracing`. The same figures go to
//! the recorder of the `metrics` crate, if one was installed before the loader was built:
//!
//! | metric | labels | is |
//! |---|---|---|
//! | `fastclip_loader_stage_seconds` | `stage`: fetch, decode, transform, tokenize | histogram |
//! | `fastclip_loader_wait_seconds` | `edge`: reader_for_index, reader_for_room, dispatcher_for_run, dispatcher_for_decoder, decoder_for_work, caller_for_batch | histogram |
//! | `fastclip_loader_caller_seconds` | | histogram: what the caller takes between batches |
//! | `fastclip_loader_batches_total`, `…_samples_total`, `…_bytes_read_total` | | counters |
//! | `fastclip_loader_bad_samples_total` | `reason` | counter |
//! | `fastclip_loader_bytes_in_flight` | | gauge |
//!
//! # Features
//!
//! | feature | adds | pulls in |
//! |---|---|---|
//! | `avif` (default) | images in AVIF | `libaom`, which takes three minutes of a processor to compile |
//! | `tokenizer-json` (default) | `Tokenizer::from_file` | `tokenizers`, some thirty crates |
//! | `cuda` | `buffer::PinnedAllocator` | `libloading`; no CUDA to build |
//!
//! # Threads
//!
//! A stream has one thread for each decoder, one that waits for the store and decompresses shards, and one that hands out
//! work; where files are local or cached, a few more wait for the disk, and two of the process serve remote stores. All block
//! when there is nothing to do. The loader must not be used from within an asynchronous task: waiting for a batch blocks.

mod bad_sample;
mod batch;
pub mod buffer;
mod builder;
mod content;
mod error;
mod loader;
mod memory;
mod meter;
mod normalise;
mod order;
mod output;
mod pipeline;
pub mod plan;
mod resample;
mod sample;
mod state;
mod stats;
mod text;
pub mod transform;
mod world;

pub use bad_sample::{BadReason, BadSample, BadSampleBudget, UnreadableShards};
pub use batch::Batch;
pub use builder::LoaderBuilder;
pub use content::{Content, Members, SampleDecoder};
pub use error::LoadError;
pub use fastclip_images::{DecodeError, DecodeOptions, DecoderError, ImageDecoder, RgbImage, decode_rgb};
pub use loader::Loader;
pub use memory::MemoryBound;
pub use meter::Timing;
pub use normalise::Normalisation;
pub use order::{Order, Tail};
pub use output::{Layout, Output, Values};
pub use pipeline::Batches;
pub use state::StreamState;
pub use stats::{Bottleneck, LoaderStats, Stage};
pub use text::{CaptionSource, Captions, Tokenizer};
#[cfg(feature = "tokenizer-json")]
pub use text::{Cleaning, TokenizerError, TokenizerFile};
pub use transform::{
    Augmentation, ColourJitter, EvalTransform, ImageTransformer, Quality, RandomErasing, ResizeMode,
    TrainTransform, Transform,
};
pub use world::World;
