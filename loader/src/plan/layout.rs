use std::ops::Range;

use fastclip_schemas::Manifest;

use super::{Part, PlanSizes};
use crate::{LoadError, Order, Tail};

/// Most lanes: how many places of the dataset meet in a batch.
const MAX_LANES: u64 = 64;
/// Most samples of a segment. At 30 KB a sample it is read in one request of 8 MB.
const MAX_SEGMENT_SAMPLES: u64 = 256;
/// Fewer samples would make a request a sample; small datasets mix well enough with these.
const MIN_SEGMENT_SAMPLES: u64 = 8;
/// Segments that a lane should have. With one or two, samples that were packed together would stay in one lane in every
/// epoch, and never meet in a batch.
const SEGMENTS_PER_LANE: u64 = 16;
const MAX_WINDOW_SAMPLES: u64 = 512;
const MIN_WINDOW_SAMPLES: u64 = 16;
/// What the open windows of all lanes may hold, over all ranks.
const WINDOW_BYTES: u64 = 256 << 20;
/// Most visits of shards in an epoch. Half of the numbers that segments have.
const MAX_VISITS: u64 = u32::MAX as u64 / 2;
/// Sequential batches are cut for this many ranks, or the next number below that divides the batch.
const SEQUENTIAL_PARTS: u64 = 8;

/// How an epoch is cut into lanes, windows and steps. The same in every epoch, and on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    num_samples: u64,
    global_batch: u64,
    num_lanes: u64,
    segment_samples: u64,
    window_samples: u64,
    is_shuffled: bool,
    tail: Tail,
}

fn largest_divisor(number: u64, most: u64) -> u64 {
    (1..=most.min(number)).rev().find(|divisor| number.is_multiple_of(*divisor)).unwrap_or(1)
}

/// How many segments can still be numbered where each visit of a shard adds one that is not full.
fn segments_left(parts: &[Part]) -> Result<u64, LoadError> {
    let num_visits = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.num_visits()));
    if num_visits > MAX_VISITS {
        let factors: Vec<f64> = parts.iter().map(|part| part.factor).collect();
        return Err(LoadError::Setting {
            setting: "upsampling_factors",
            value: format!("{factors:?}"),
            rule: "an epoch would visit its shards more than two billion times",
        });
    }
    Ok(u64::from(u32::MAX) - num_visits)
}

impl Layout {
    pub(super) fn new(
        manifest: &Manifest,
        parts: &[Part],
        global_batch: u64,
        order: Order,
        tail: Tail,
        sizes: PlanSizes,
    ) -> Result<Self, LoadError> {
        let num_samples = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.per_epoch()));
        if num_samples == 0 {
            return Err(LoadError::NoSamples);
        }
        if tail == Tail::Drop && num_samples < global_batch {
            return Err(LoadError::TooFewSamples { num_samples, global_batch });
        }
        let is_shuffled = matches!(order, Order::Shuffled { .. });
        let num_lanes = if is_shuffled { largest_divisor(global_batch, MAX_LANES) } else { 1 };

        let segment_samples = sizes.segment_samples.map_or_else(
            || {
                (num_samples / (num_lanes * SEGMENTS_PER_LANE))
                    .clamp(MIN_SEGMENT_SAMPLES, MAX_SEGMENT_SAMPLES)
            },
            u64::from,
        );
        // Both the dataset and what an epoch takes of it have their segments numbered by u32.
        let most_samples = num_samples.max(manifest.num_samples);
        let segment_samples = segment_samples.max(most_samples.div_ceil(segments_left(parts)?)).max(1);

        let window_samples = match sizes.window_samples {
            Some(samples) => u64::from(samples).max(1),
            None if is_shuffled => {
                // Those of the dataset with the largest ones: a window may fall into it as a whole.
                let sample_bytes =
                    parts.iter().map(|part| part.sample_bytes(manifest)).max().unwrap_or(0).max(1);
                (WINDOW_BYTES / (num_lanes * sample_bytes)).clamp(MIN_WINDOW_SAMPLES, MAX_WINDOW_SAMPLES)
            }
            None => global_batch / largest_divisor(global_batch, SEQUENTIAL_PARTS),
        };
        Ok(Self { num_samples, global_batch, num_lanes, segment_samples, window_samples, is_shuffled, tail })
    }

    /// Samples of an epoch: those of the dataset, unless several are mixed.
    pub fn num_samples(&self) -> u64 {
        self.num_samples
    }

    /// Slots of a global batch.
    pub fn global_batch(&self) -> u64 {
        self.global_batch
    }

    /// Lanes that a batch draws from.
    pub fn num_lanes(&self) -> u64 {
        self.num_lanes
    }

    /// Most samples of a segment.
    pub fn segment_samples(&self) -> u64 {
        self.segment_samples
    }

    /// Positions of a full window.
    pub fn window_samples(&self) -> u64 {
        self.window_samples
    }

    /// What becomes of the last, incomplete batch.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// Positions of each lane in one batch.
    pub fn per_lane(&self) -> u64 {
        self.global_batch / self.num_lanes
    }

    /// Steps of an epoch, on every rank.
    pub fn num_steps(&self) -> u64 {
        match self.tail {
            Tail::Drop => self.num_samples / self.global_batch,
            // Lanes differ by one position at most, and one of them has the quotient rounded up.
            Tail::Keep => self.num_samples.div_ceil(self.num_lanes).div_ceil(self.per_lane()),
        }
    }

    /// Positions of the stream in a lane.
    pub fn lane(&self, lane: u64) -> Range<u64> {
        // In 128 bits the product cannot overflow, and the quotient is at most `num_samples`.
        let cut =
            |lane: u64| (u128::from(lane) * u128::from(self.num_samples) / u128::from(self.num_lanes)) as u64;
        cut(lane)..cut(lane + 1)
    }

    /// How many positions of a lane are delivered.
    pub fn delivered(&self, lane: u64) -> u64 {
        let lane = self.lane(lane);
        match self.tail {
            Tail::Drop => self.num_steps() * self.per_lane(),
            Tail::Keep => lane.end - lane.start,
        }
    }

    /// The lanes that have these slots of the global batch, and which of their positions in each step are of them.
    pub(crate) fn lanes_of(&self, slots: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
        let (per_lane, Range { start, end }) = (self.per_lane(), slots.clone());
        (start / per_lane..end.div_ceil(per_lane)).map(move |lane| {
            let first = lane * per_lane;
            (lane, start.max(first) - first..end.min(first + per_lane) - first)
        })
    }

    /// How many positions of an epoch are delivered in these slots of the global batch.
    pub(crate) fn delivered_in(&self, slots: &Range<u64>) -> u64 {
        let per_lane = self.per_lane();
        self.lanes_of(slots)
            .map(|(lane, part)| {
                let (full, rest) = (self.delivered(lane) / per_lane, self.delivered(lane) % per_lane);
                full * (part.end - part.start) + rest.clamp(part.start, part.end) - part.start
            })
            .sum()
    }

    /// Length of the first window of a lane, shortened so that lanes turn to new windows at different steps.
    fn first_window(&self, lane: u64) -> u64 {
        let phase = lane * self.window_samples / self.num_lanes;
        self.window_samples - phase
    }

    /// The window that holds a position of a lane.
    pub fn window_at(&self, lane: u64, position: u64) -> u64 {
        match position.checked_sub(self.first_window(lane)) {
            None => 0,
            Some(beyond) => 1 + beyond / self.window_samples,
        }
    }

    /// Positions of a lane in a window.
    pub fn window(&self, lane: u64, window: u64) -> Range<u64> {
        let lane_positions = self.lane(lane);
        let length = lane_positions.end - lane_positions.start;
        let first = self.first_window(lane);
        let end = first + window * self.window_samples;
        let start = if window == 0 { 0 } else { end - self.window_samples };
        start.min(length)..end.min(length)
    }

    pub(super) fn is_shuffled(&self) -> bool {
        self.is_shuffled
    }
}
