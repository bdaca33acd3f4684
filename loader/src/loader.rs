use std::ops::Range;

use fastclip_schemas::{Digest, Position};
use fastclip_shards::Dataset;

use crate::pipeline::StreamSettings;
use crate::plan::Plan;
use crate::{Batches, LoadError, LoaderBuilder, LoaderStats, MemoryBound, Order, StreamState, Tail};

/// Turns a dataset into streams of batches.
///
/// A loader only holds settings, the plan and memory for reuse. Threads belong to the streams, of which there may be any
/// number, each with its own budget of bytes.
#[derive(Debug)]
pub struct Loader {
    settings: StreamSettings,
}

impl Loader {
    /// Starts describing a loader.
    pub fn builder(dataset: Dataset) -> LoaderBuilder {
        LoaderBuilder::new(dataset)
    }

    pub(crate) fn new(settings: StreamSettings) -> Self {
        Self { settings }
    }

    /// Steps of an epoch: batches of each rank, the same for all.
    pub fn steps_per_epoch(&self) -> u64 {
        self.plan().layout().num_steps()
    }

    /// Samples of an epoch: those of the dataset, unless several are mixed.
    pub fn num_samples(&self) -> u64 {
        self.plan().layout().num_samples()
    }

    /// Slots of this rank in a global batch: the most samples that a batch can have.
    pub fn batch_size(&self) -> usize {
        // Was a `usize` before it was divided by the world size.
        (self.slots().end - self.slots().start) as usize
    }

    /// What it reads.
    pub fn dataset(&self) -> &Dataset {
        &self.settings.dataset
    }

    /// In what order it reads.
    pub fn plan(&self) -> &Plan {
        &self.settings.plan
    }

    pub(crate) fn settings(&self) -> &StreamSettings {
        &self.settings
    }

    fn slots(&self) -> &Range<u64> {
        &self.settings.slots
    }

    /// Starts to read the batches from one position, inclusive, to another, exclusive, across epochs where need be.
    ///
    /// A stream from a position where another one was stopped goes on with the very same batches.
    ///
    /// # Errors
    /// When a position is beyond its epoch, the end lies before the start, or threads cannot be started.
    pub fn stream(&self, from: Position, until: Position) -> Result<Batches, LoadError> {
        let (from, until) = (self.normal(from)?, self.normal(until)?);
        if until < from {
            return Err(LoadError::Backwards { from, until });
        }
        Batches::start(self.settings.clone(), self.order_digest(), from, until)
    }

    /// Goes on where a stream stood: with the very same batches where what becomes of samples (transform, captions) is the same.
    ///
    /// # Errors
    /// When the state belongs to another order, and those of [`stream`](Self::stream).
    pub fn resume(&self, state: StreamState, until: Position) -> Result<Batches, LoadError> {
        let (stored, now) = (state.order, self.order_digest());
        if stored != now {
            return Err(LoadError::OtherOrder { stored, now });
        }
        self.stream(state.next, until)
    }

    /// Where one is after so many batches from the very beginning. After the last of an epoch that is the start of the next.
    pub fn position_after(&self, num_batches: u64) -> Position {
        let num_steps = self.steps_per_epoch();
        Position { epoch: num_batches / num_steps, step: num_batches % num_steps }
    }

    /// Gives the end of an epoch its other name, the start of the next one.
    fn normal(&self, position: Position) -> Result<Position, LoadError> {
        let num_steps = self.steps_per_epoch();
        match position.step {
            step if step < num_steps => Ok(position),
            step if step == num_steps => Ok(Position::start_of(position.epoch + 1)),
            _ => Err(LoadError::Position { position, num_steps }),
        }
    }

    /// What all streams of this loader have done so far.
    pub fn stats(&self) -> LoaderStats {
        self.settings.meters.read(self.settings.pool.num_lent())
    }

    /// The most memory that reading takes, where no image has more pixels than this.
    pub fn memory_bound(&self, max_pixels: u64) -> MemoryBound {
        MemoryBound::new(self, max_pixels)
    }

    /// Digest of all that determines which samples a global batch holds: the manifest, and the settings of the order.
    ///
    /// Runs with equal digests see the same global batches. Who stores a [`Position`] stores this beside it, and refuses
    /// to go on with another one, as [`resume`](Self::resume) does. Rank and world size are not part of it, and neither is the
    /// transform, nor what makes a sample bad, for which another one stands in.
    pub fn order_digest(&self) -> Digest {
        let layout = self.plan().layout();
        let order = match self.plan().order() {
            Order::Shuffled { seed } => format!("shuffled {seed}"),
            Order::Sequential => "sequential".to_owned(),
        };
        let tail = match layout.tail() {
            Tail::Drop => "drop",
            Tail::Keep => "keep",
        };
        let factors: Vec<f64> = self.plan().parts().iter().map(|part| part.factor).collect();
        // Not where nothing is mixed: such orders have had their digests for longer than there are factors.
        let factors = match factors.iter().all(|&factor| factor == 1.0) {
            true => String::new(),
            false => format!("upsampling_factors {factors:?}\n"),
        };
        let text = format!(
            "fastclip order 1\nmanifest {}\norder {order}\ntail {tail}\nglobal_batch {}\nsegment_samples {}\n\
             window_samples {}\n{factors}",
            self.dataset().manifest_digest(),
            layout.global_batch(),
            layout.segment_samples(),
            layout.window_samples(),
        );
        Digest(*blake3::hash(text.as_bytes()).as_bytes())
    }
}
