//! The order of the data: which sample stands in which slot of which global batch.
//!
//! It is a pure function of manifest, seed, epoch and global batch. Rank and world size only say who reads which part of
//! it, and no timing enters. Any slot can be looked up without replaying what comes before, so stopping and resuming
//! anywhere changes nothing that follows, and a position is two numbers.
//!
//! # From shards to batches
//!
//! ```text
//! shards     | 00000.tar          | 00001.tar     | 00002.tar             |
//! segments   |  a  |  b  |  c  |  d  |  e  |  f  |  g  |  h  |    runs of samples that lie together on disk
//! stream     |  f  |  b  |  h  |  a  |  d  |  g  |  c  |  e  |    shuffled by (seed, epoch)
//! lanes      | lane 0        | lane 1        | lane 2        |    equal parts of the stream
//! windows    |w0| w1  | w2 ..|w0 | w1  |   ..|w0  | w1  | .. |    each shuffled by (seed, epoch, lane, window)
//! batch s    .. b from lane 0 .. b from lane 1 .. b from lane 2     the next b = B/L positions of every lane
//! ```
//!
//! 1. Each shard is cut into *segments* of nearly equal length. Segments are shuffled; laid end to end they are the
//!    epoch's *stream* of `N` positions.
//! 2. The stream is cut into `L` *lanes* at `floor(l·N/L)`. `L` is the largest divisor of the global batch `B` that is
//!    not above 64: a function of `B` only.
//! 3. A lane is cut into *windows*, and the positions of each window are shuffled. The first window of lane `l` is
//!    shortened by `l/L` of its length: otherwise all lanes would need new windows at the same step, and reading would
//!    come in bursts.
//! 4. Global batch `s` takes positions `[s·b, (s+1)·b)` of every lane, lane after lane. Rank `r` of `W` owns the slots
//!    `[r·B/W, (r+1)·B/W)`, so `W` must divide `B`. Where `W` does not divide `L`, two ranks share a lane and both read
//!    its bytes.
//!
//! A batch thus mixes up to 64 places of the dataset, and what is read together is still a contiguous range of a shard.
//! The price: two samples of one segment always share a lane, so they meet in a batch less often than others do.
//!
//! Shuffling samples one by one over the whole dataset would mix better and cost one request a sample; a shuffle buffer
//! over streamed shards, as webdataset has it, reads well but makes the order depend on rank, workers and timing, and
//! cannot be resumed without replaying the epoch.
//!
//! [`Order::Sequential`] has one lane, unshuffled: batch `s` is samples `[s·B, (s+1)·B)`. Its
//! windows are the share of one rank in eight, so that ranks read little that is not theirs.
//!
//! # The tail
//!
//! [`Tail::Drop`]: an epoch has `floor(N/B)` steps, and each lane delivers the first `steps·b` of its
//! positions. [`Tail::Keep`]: lanes deliver all positions, an epoch has as many steps as the longest
//! lane needs, and slots beyond the end of a lane stay empty.
//!
//! # Mixtures
//!
//! Where several datasets are mixed, each has a factor `f`, and an epoch holds `c = round(f·n)` of its `n` samples. Each dataset
//! is an endless row of *passes*, every one of which visits each of its samples exactly once; epoch `e` takes the positions
//! `[e·c, (e+1)·c)` of that row. So after any number of epochs two samples of a dataset have come equally often, or one of
//! them once more (but for those that [`Tail::Drop`] leaves out), and every epoch has the same number of steps. A pass of which an epoch takes only a part has its segments
//! in an order of its own, by (seed, pass, dataset); what all datasets give to an epoch is then shuffled together as above.
//! The pass also takes the place of the epoch in what augmentation draws from, so a sample that comes twice in an epoch looks
//! different. Equal factors of 1 are the same order as one dataset with all shards.
//!
//! OpenCLIP's factors weight a draw of shards with replacement: what a sample's count is there on average, it is here.
//!
//! # Sizes
//!
//! Segments hold up to 256 samples, in small datasets so few that a lane still has about 16 of them. Windows hold up to
//! 512 samples, with large images so few that the windows of all lanes together hold at most 256 MiB; of joined datasets,
//! the one with the largest samples counts. Both follow from manifest, factors and global batch, and can be set by hand; they
//! are part of the order.
//!
//! # Stability
//!
//! Random numbers come from ChaCha with 8 rounds, keyed by the numbers that they may depend on; bounded draws and
//! shuffles are written out in `random`. None of this may change: a resumed run would silently see other data. A golden
//! test holds it.

mod epoch;
mod layout;
mod mixture;
mod random;
mod segments;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use fastclip_schemas::Manifest;

pub use epoch::{EpochPlan, Run, Window};
pub use layout::Layout;
use mixture::Mixture;
pub(crate) use random::{Draws, Purpose};
use segments::Segments;

use crate::{LoadError, Order, Tail, World};

/// Settings of the order that follow from manifest and global batch unless they are set.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanSizes {
    /// Most samples of a segment.
    pub segment_samples: Option<u32>,
    /// Samples of a window.
    pub window_samples: Option<u32>,
}

/// One of several datasets that are mixed.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its shards in the manifest.
    pub shards: Range<usize>,
    /// Samples in these.
    pub num_samples: u64,
    /// How often an epoch holds it.
    pub factor: f64,
}

impl Part {
    /// Some shards of a manifest, with their factor.
    ///
    /// # Panics
    /// When the manifest has no such shards.
    pub fn new(manifest: &Manifest, shards: Range<usize>, factor: f64) -> Self {
        let num_samples =
            manifest.shards[shards.clone()].iter().map(|shard| u64::from(shard.num_samples)).sum();
        Self { shards, num_samples, factor }
    }

    /// Samples of it in an epoch: the nearest whole number, and at least one if it has any.
    pub fn per_epoch(&self) -> u64 {
        if self.factor == 1.0 {
            return self.num_samples;
        }
        let exact = self.num_samples as f64 * self.factor;
        (exact.round() as u64).max(self.num_samples.min(1))
    }

    /// Passes that an epoch takes something of, at most.
    pub(crate) fn passes(&self) -> u64 {
        if self.factor == 1.0 || self.num_samples == 0 {
            return 1;
        }
        // An epoch that holds `q` passes and a bit may begin and end within one.
        (self.per_epoch() / self.num_samples).saturating_add(2)
    }

    /// How often an epoch comes to a shard, at most. Where it comes into the middle of a pass or leaves it there, it cuts a
    /// segment.
    fn num_visits(&self) -> u64 {
        let num_cuts = if self.factor == 1.0 { 0 } else { 4 };
        (self.shards.len() as u64).saturating_mul(self.passes()).saturating_add(num_cuts)
    }

    /// Mean size of its samples as they are stored.
    fn sample_bytes(&self, manifest: &Manifest) -> u64 {
        let num_bytes: u64 = manifest.shards[self.shards.clone()].iter().map(|shard| shard.num_bytes).sum();
        num_bytes / self.num_samples.max(1)
    }
}

/// The order of all epochs.
#[derive(Debug)]
pub struct Plan {
    layout: Layout,
    segments: Arc<Segments>,
    parts: Vec<Part>,
    mixture: Mixture,
    order: Order,
    /// A stream that crosses from one epoch to the next stands in both, with its reader ahead of its dispatcher.
    recent: Mutex<VecDeque<Arc<EpochPlan>>>,
}

const RECENT_EPOCHS: usize = 2;
/// Samples that are read with a run at least, unless windows are smaller, for one of them to be good. Were one in twenty bad, eight
/// in a row would be so once in 25 thousand million times.
const LEAST_REACH: u64 = 8;

impl Plan {
    /// Plans all epochs from the manifest alone.
    ///
    /// # Errors
    /// When the dataset has no sample, or fewer than one global batch under [`Tail::Drop`].
    pub fn new(
        manifest: &Manifest,
        global_batch: u64,
        order: Order,
        tail: Tail,
        sizes: PlanSizes,
    ) -> Result<Self, LoadError> {
        let whole = Part { shards: 0..manifest.shards.len(), num_samples: manifest.num_samples, factor: 1.0 };
        Self::mixed(manifest, &[whole], global_batch, order, tail, sizes)
    }

    /// Plans epochs that hold each part of a dataset as often as its factor says. With the factor 1 for all of it, this is
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// As [`new`](Self::new), where the samples of an epoch count.
    pub fn mixed(
        manifest: &Manifest,
        parts: &[Part],
        global_batch: u64,
        order: Order,
        tail: Tail,
        sizes: PlanSizes,
    ) -> Result<Self, LoadError> {
        let layout = Layout::new(manifest, parts, global_batch, order, tail, sizes)?;
        let segments = Segments::new(
            manifest.shards.iter().map(|shard| shard.num_samples),
            u32::try_from(layout.segment_samples()).unwrap_or(u32::MAX),
        );
        let mixture = Mixture::new(parts, &segments);
        let (parts, segments) = (parts.to_vec(), Arc::new(segments));
        Ok(Self { layout, segments, parts, mixture, order, recent: Mutex::default() })
    }

    /// Lanes, windows and steps.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The datasets that are mixed.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// In what order epochs visit the samples.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Samples of the shard that are read for a run. Where a bad sample needs another one in its place, a short run is not read
    /// alone: it may be one sample that a window has cut off. Depends on the run and the size of its shard.
    pub(crate) fn reach(&self, run: &Run) -> Range<u32> {
        let Range { start, end } = run.samples;
        if self.layout.tail() == Tail::Keep {
            return start..end;
        }
        let least = LEAST_REACH.min(self.layout.window_samples()) as u32;
        let num_samples = self.segments.shard_samples(run.shard);
        let end = start.saturating_add(least).min(num_samples).max(end);
        end.saturating_sub(least).min(start)..end
    }

    /// The order of one epoch.
    pub fn epoch(&self, epoch: u64) -> Arc<EpochPlan> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = recent.iter().find(|plan| plan.epoch() == epoch) {
            return Arc::clone(plan);
        }
        let plan = Arc::new(EpochPlan::new(
            self.layout,
            Arc::clone(&self.segments),
            &self.mixture,
            self.order,
            epoch,
        ));
        if recent.len() == RECENT_EPOCHS {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&plan));
        plan
    }
}

/// Slots of a global batch that a rank owns.
///
/// # Errors
/// When the world size does not divide the global batch.
pub fn slots_of(world: World, global_batch: u64) -> Result<Range<u64>, LoadError> {
    let world_size = world.world_size() as u64;
    if !global_batch.is_multiple_of(world_size) {
        return Err(LoadError::WorldSize { global_batch, world_size });
    }
    let share = global_batch / world_size;
    let first = world.rank() as u64 * share;
    Ok(first..first + share)
}
