use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastclip_shards::Dataset;

use crate::buffer::{HostAllocator, PageableAllocator, Pool};
use crate::pipeline::{IndexCache, StreamSettings};
use crate::plan::{Part, Plan, PlanSizes, slots_of};
use crate::sample::SampleSettings;
use crate::text::MIN_CONTEXT_LENGTH;
use crate::{
    BadSampleBudget, Captions, Content, DecodeOptions, LoadError, Loader, Order, Output, Quality, Tail,
    Tokenizer, Transform, UnreadableShards, World,
};

/// Twice what the windows of all lanes hold by default: one half is being used, the other is being read.
const DEFAULT_MAX_BYTES_IN_FLIGHT: u64 = 512 << 20;
const DEFAULT_REQUESTS_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");
const DEFAULT_PREFETCH_BATCHES: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not 0");
const DEFAULT_GLOBAL_BATCH: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not 0");
/// Three times as long as a store's client retries a request by default.
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(600);
const DEFAULT_CONTEXT_LENGTH: usize = 77;
const DEFAULT_IMAGE_SIZE: u32 = 224;
/// Beyond these a factor is a slip of the pen.
const MIN_FACTOR: f64 = 1e-6;
const MAX_FACTOR: f64 = 1e6;
/// Longest row of tokens; no text tower comes near it.
const MAX_CONTEXT_LENGTH: usize = 1 << 16;

/// Describes a [`Loader`].
#[derive(Debug, Clone)]
#[must_use]
pub struct LoaderBuilder {
    dataset: Dataset,
    global_batch: NonZeroUsize,
    world: World,
    order: Order,
    tail: Tail,
    sizes: PlanSizes,
    upsampling_factors: Option<Vec<f64>>,
    transform: Transform,
    quality: Quality,
    decoding: DecodeOptions,
    output: Output,
    content: Content,
    tokenizer: Option<Tokenizer>,
    captions: Captions,
    context_length: usize,
    threads: Option<NonZeroUsize>,
    prefetch_batches: NonZeroUsize,
    requests_in_flight: NonZeroUsize,
    max_bytes_in_flight: u64,
    budget: BadSampleBudget,
    unreadable_shards: UnreadableShards,
    stall_timeout: Duration,
    report_every: Option<Duration>,
    allocator: Arc<dyn HostAllocator>,
}

impl LoaderBuilder {
    pub(crate) fn new(dataset: Dataset) -> Self {
        Self {
            dataset,
            global_batch: DEFAULT_GLOBAL_BATCH,
            world: World::single(),
            order: Order::Shuffled { seed: 0 },
            tail: Tail::Drop,
            sizes: PlanSizes::default(),
            upsampling_factors: None,
            transform: Transform::train(DEFAULT_IMAGE_SIZE),
            quality: Quality::default(),
            decoding: DecodeOptions::default(),
            output: Output::default(),
            content: Content::default(),
            tokenizer: None,
            captions: Captions::default(),
            context_length: DEFAULT_CONTEXT_LENGTH,
            threads: None,
            prefetch_batches: DEFAULT_PREFETCH_BATCHES,
            requests_in_flight: DEFAULT_REQUESTS_IN_FLIGHT,
            max_bytes_in_flight: DEFAULT_MAX_BYTES_IN_FLIGHT,
            budget: BadSampleBudget::default(),
            unreadable_shards: UnreadableShards::default(),
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            report_every: None,
            allocator: Arc::new(PageableAllocator),
        }
    }

    /// Samples of all ranks in a batch; 256 unless set. The world size must divide it.
    pub fn global_batch(mut self, samples: NonZeroUsize) -> Self {
        self.global_batch = samples;
        self
    }

    /// Which rank this is; the only one unless set.
    pub fn world(mut self, world: World) -> Self {
        self.world = world;
        self
    }

    /// In what order samples come; shuffled with seed 0 unless set.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// What becomes of the last, incomplete batch; dropped unless set.
    pub fn tail(mut self, tail: Tail) -> Self {
        self.tail = tail;
        self
    }

    /// Most samples that are kept together by the shuffle of an epoch. Part of the order; see [`plan`](crate::plan).
    pub fn segment_samples(mut self, samples: u32) -> Self {
        self.sizes.segment_samples = Some(samples);
        self
    }

    /// Samples of a lane that are mixed with one another. Part of the order; see [`plan`](crate::plan).
    pub fn window_samples(mut self, samples: u32) -> Self {
        self.sizes.window_samples = Some(samples);
        self
    }

    /// How often an epoch holds each of the [joined datasets](Dataset::join), in their order; once unless set. Part of the
    /// order; see [`plan`](crate::plan).
    pub fn upsampling_factors(mut self, factors: Vec<f64>) -> Self {
        self.upsampling_factors = Some(factors);
        self
    }

    /// What images become; [`Transform::train`] with 224 pixels unless set.
    pub fn transform(mut self, transform: Transform) -> Self {
        self.transform = transform;
        self
    }

    /// How close to Pillow's pixels images come; [`Quality::Fast`] unless set.
    pub fn quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// Which images are accepted, and how they are read.
    pub fn decoding(mut self, options: DecodeOptions) -> Self {
        self.decoding = options;
        self
    }

    /// What the images of a batch are made of; bytes in planes unless set.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// What a batch holds of each sample; its image unless set. Transform, quality, decoding and output are about images
    /// only.
    pub fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// Where the captions of a sample are, and which one is used; the member `txt` unless set.
    pub fn captions(mut self, captions: Captions) -> Self {
        self.captions = captions;
        self
    }

    /// A tokenizer to share. Without one, the loader builds CLIP's.
    pub fn tokenizer(mut self, tokenizer: Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Length of the rows of tokens; 77 unless set.
    pub fn context_length(mut self, tokens: usize) -> Self {
        self.context_length = tokens;
        self
    }

    /// Threads that decode; as many as the machine has processors unless set. Two more wait most of the time.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Batches that may be finished before they are asked for; 2 unless set. One more is being filled.
    pub fn prefetch_batches(mut self, batches: NonZeroUsize) -> Self {
        self.prefetch_batches = batches;
        self
    }

    /// Requests to the store at a time, for shards and as many for their indexes; 16 unless set. Of compressed shards, four are
    /// read at a time.
    pub fn requests_in_flight(mut self, requests: NonZeroUsize) -> Self {
        self.requests_in_flight = requests;
        self
    }

    /// Bytes of shards that a stream may hold at a time; 512 MiB unless set.
    ///
    /// Counted are the bytes of samples as they are stored, from before they are requested until they are decoded. What a
    /// stream takes in addition is in [`Loader::memory_bound`].
    pub fn max_bytes_in_flight(mut self, num_bytes: u64) -> Self {
        self.max_bytes_in_flight = num_bytes;
        self
    }

    /// How many samples may be lost; one in twenty unless set.
    pub fn bad_sample_budget(mut self, budget: BadSampleBudget) -> Self {
        self.budget = budget;
        self
    }

    /// What becomes of shards that cannot be read; they end the stream unless set.
    pub fn unreadable_shards(mut self, policy: UnreadableShards) -> Self {
        self.unreadable_shards = policy;
        self
    }

    /// How long nothing may move while a batch is waited for; ten minutes unless set.
    ///
    /// Every half a minute before that, a warning says which stage waits for what; then the stream ends with
    /// [`LoadError::Stalled`]. Retries of a store are not progress, so this should be longer than they take.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How often a stream logs its [`LoaderStats`](crate::LoaderStats) in one line, through `tracing` at level `info`;
    /// never unless set.
    pub fn report_every(mut self, interval: Duration) -> Self {
        self.report_every = Some(interval);
        self
    }

    /// Where the memory of images comes from; ordinary memory unless set.
    pub fn host_allocator(mut self, allocator: Arc<dyn HostAllocator>) -> Self {
        self.allocator = allocator;
        self
    }

    /// Checks the settings and plans the order. Reads nothing.
    ///
    /// # Errors
    /// When the settings contradict each other or the dataset; the message names both sides.
    pub fn build(self) -> Result<Loader, LoadError> {
        self.transform.check()?;
        self.check_settings()?;
        let global_batch = self.global_batch.get() as u64;
        let slots = slots_of(self.world, global_batch)?;
        let plan = self.plan(global_batch)?;
        let per_lane = plan.layout().per_lane();
        self.check_memory(&plan, slots.end.div_ceil(per_lane) - slots.start / per_lane)?;

        let num_slots = global_batch / self.world.world_size() as u64;
        let sample = SampleSettings {
            tokenizer: self.tokenizer.unwrap_or_else(Tokenizer::clip),
            captions: self.captions,
            content: self.content,
            transform: self.transform,
            quality: self.quality,
            decoding: self.decoding,
            output: self.output,
            context_length: self.context_length,
            seed: self.order.seed(),
        };
        let pool = Pool::new(
            self.allocator,
            usize::try_from(num_slots).expect("it is a part of a usize"),
            sample.num_bytes(),
            self.prefetch_batches.get() + 1,
        );
        let processors = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Loader::new(StreamSettings {
            indexes: Arc::new(IndexCache::new(self.dataset.clone())),
            dataset: self.dataset,
            plan: Arc::new(plan),
            slots,
            sample,
            pool: Arc::new(pool),
            meters: Arc::default(),
            bad_sample_log: Arc::default(),
            threads: self.threads.unwrap_or_else(processors),
            prefetch_batches: self.prefetch_batches,
            requests_in_flight: self.requests_in_flight,
            max_bytes_in_flight: self.max_bytes_in_flight,
            budget: self.budget,
            unreadable_shards: self.unreadable_shards,
            stall_timeout: self.stall_timeout,
            report_every: self.report_every,
        }))
    }

    fn plan(&self, global_batch: u64) -> Result<Plan, LoadError> {
        let manifest = self.dataset.manifest();
        let shards = self.dataset.parts().iter().map(|part| part.shards.clone());
        let factors = self.factors()?;
        let parts: Vec<Part> =
            shards.zip(factors).map(|(shards, factor)| Part::new(manifest, shards, factor)).collect();
        Plan::mixed(manifest, &parts, global_batch, self.order, self.tail, self.sizes)
    }

    /// How often an epoch holds each of the joined datasets.
    fn factors(&self) -> Result<Vec<f64>, LoadError> {
        let num_parts = self.dataset.parts().len();
        let Some(factors) = &self.upsampling_factors else { return Ok(vec![1.0; num_parts]) };
        let refuse = |rule| {
            let (setting, value) = ("upsampling_factors", format!("{factors:?}"));
            Err(LoadError::Setting { setting, value, rule })
        };
        if factors.len() != num_parts {
            return refuse("there must be one for each dataset");
        }
        if !factors.iter().all(|factor| (MIN_FACTOR..=MAX_FACTOR).contains(factor)) {
            return refuse("each must lie between 0.000001 and 1,000,000");
        }
        if self.order == Order::Sequential && factors.iter().any(|&factor| factor != 1.0) {
            return refuse("the sequential order gives every sample once");
        }
        Ok(factors.clone())
    }

    fn check_settings(&self) -> Result<(), LoadError> {
        let refuse = |setting, value: String, rule| Err(LoadError::Setting { setting, value, rule });
        if !(MIN_CONTEXT_LENGTH..=MAX_CONTEXT_LENGTH).contains(&self.context_length) {
            let value = self.context_length.to_string();
            return refuse("context_length", value, "it must lie between 2 and 65,536");
        }
        if let Some(rule) = self.captions.refusal() {
            return refuse("captions", format!("{:?}", self.captions), rule);
        }
        if !(0.0..=1.0).contains(&self.budget.max_fraction) {
            let value = self.budget.max_fraction.to_string();
            return refuse("bad_sample_budget.max_fraction", value, "it must lie between 0 and 1");
        }
        if self.stall_timeout.is_zero() {
            return refuse("stall_timeout", "0 s".to_owned(), "it must be longer");
        }
        for (setting, samples) in
            [("segment_samples", self.sizes.segment_samples), ("window_samples", self.sizes.window_samples)]
        {
            if samples == Some(0) {
                return refuse(setting, "0".to_owned(), "it must be at least 1");
            }
        }
        Ok(())
    }

    /// Refuses a budget that the open windows will most likely exceed: better now than after an hour of reading.
    fn check_memory(&self, plan: &Plan, num_lanes: u64) -> Result<(), LoadError> {
        let shards = &self.dataset.manifest().shards;
        // A shard of which an epoch takes several passes may be open several times.
        let of_part = |part: &Part| {
            let num_bytes: u64 = shards[part.shards.clone()].iter().map(|shard| shard.num_bytes).sum();
            num_bytes.saturating_mul(part.passes())
        };
        let total = plan.parts().iter().map(of_part).fold(0, u64::saturating_add);
        let largest_mean = shards
            .iter()
            .filter(|shard| shard.num_samples > 0)
            .map(|shard| shard.num_bytes / u64::from(shard.num_samples))
            .max()
            .unwrap_or(0);
        let window_samples = plan.layout().window_samples();
        let needed = num_lanes.saturating_mul(window_samples).saturating_mul(largest_mean).min(total);
        let bound = self.max_bytes_in_flight;
        if needed > bound {
            return Err(LoadError::MemoryBound { bound, needed, num_lanes, window_samples });
        }
        Ok(())
    }
}
