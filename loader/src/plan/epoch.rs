use std::ops::Range;
use std::sync::Arc;

use super::mixture::{Mixture, Pieces};
use super::random::{Draws, Purpose};
use super::{Layout, Segments};
use crate::Order;

/// The order of one epoch.
///
/// Holds twelve bytes a segment: 15 MB for 315 million samples.
#[derive(Debug)]
pub struct EpochPlan {
    layout: Layout,
    segments: Arc<Segments>,
    seed: u64,
    epoch: u64,
    pieces: Pieces,
    /// Piece at each place of the stream; empty when they stand in their own order.
    permutation: Vec<u32>,
    /// Position of the stream at which each place ends.
    ends: Vec<u64>,
}

/// Samples of one shard that lie together and fall into one window: what is read with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Number of the shard in the manifest.
    pub shard: usize,
    /// Samples of the shard.
    pub samples: Range<u32>,
    /// Which pass over its dataset it belongs to: the epoch, unless datasets are mixed.
    pub pass: u64,
}

/// One window of a lane in the order of its delivery.
#[derive(Debug, Clone)]
pub struct Window {
    /// Positions of the lane that it covers.
    pub positions: Range<u64>,
    /// The runs that hold its samples.
    pub runs: Vec<Run>,
    /// For each run, how many samples of the window end with it.
    ends: Vec<u32>,
    /// Which of its samples, counted through the runs, stands at each position.
    permutation: Vec<u32>,
}

impl Window {
    /// The sample at a position of the lane: which of the runs holds it, and its number in the shard.
    ///
    /// # Panics
    /// When the position is not in the window.
    pub fn sample(&self, position: u64) -> (usize, u32) {
        let sample = self.permutation[(position - self.positions.start) as usize];
        let run = self.ends.partition_point(|&end| end <= sample);
        let start = if run == 0 { 0 } else { self.ends[run - 1] };
        (run, self.runs[run].samples.start + (sample - start))
    }
}

impl EpochPlan {
    pub(super) fn new(
        layout: Layout,
        segments: Arc<Segments>,
        mixture: &Mixture,
        order: Order,
        epoch: u64,
    ) -> Self {
        let pieces = mixture.pieces(&segments, order.seed(), epoch);
        let mut permutation = Vec::new();
        if layout.is_shuffled() {
            permutation.extend(0..pieces.len());
            Draws::new(Purpose::Segments, order.seed(), epoch, 0).shuffle(&mut permutation);
        }
        let mut end = 0;
        let ends = (0..pieces.len())
            .map(|place| {
                let piece = permutation.get(place as usize).copied().unwrap_or(place);
                end += pieces.get(&segments, piece).0.samples.len() as u64;
                end
            })
            .collect();
        Self { layout, segments, seed: order.seed(), epoch, pieces, permutation, ends }
    }

    /// Number of the epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The shard and the sample in it that stand in a slot of a global batch; nothing where the epoch has ended.
    ///
    /// Costs a few microseconds, as it shuffles the window anew. A stream keeps its windows instead.
    ///
    /// # Panics
    /// When `slot` is not below the global batch.
    pub fn slot(&self, step: u64, slot: u64) -> Option<(usize, u32)> {
        assert!(
            slot < self.layout.global_batch(),
            "slot {slot} of a batch of {}",
            self.layout.global_batch()
        );
        let per_lane = self.layout.per_lane();
        let lane = slot / per_lane;
        let position = step * per_lane + slot % per_lane;
        if position >= self.layout.delivered(lane) {
            return None;
        }
        let window = self.window(lane, self.layout.window_at(lane, position));
        let (run, sample) = window.sample(position);
        Some((window.runs[run].shard, sample))
    }

    /// One window of a lane.
    pub fn window(&self, lane: u64, window: u64) -> Window {
        let positions = self.layout.window(lane, window);
        let start = self.layout.lane(lane).start;
        let runs = self.runs(start + positions.start..start + positions.end);
        let ends = runs
            .iter()
            .scan(0, |end, run| {
                *end += run.samples.len() as u32;
                Some(*end)
            })
            .collect();
        let mut permutation: Vec<u32> = (0..(positions.end - positions.start) as u32).collect();
        if self.layout.is_shuffled() {
            Draws::new(Purpose::Window, self.seed, self.epoch, lane << 32 | window).shuffle(&mut permutation);
        }
        Window { positions, runs, ends, permutation }
    }

    /// What lies at these positions of the stream, as runs.
    fn runs(&self, positions: Range<u64>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut place = self.ends.partition_point(|&end| end <= positions.start);
        let mut position = positions.start;
        while position < positions.end {
            let number = self.permutation.get(place).copied().unwrap_or(place as u32);
            let (segment, pass) = self.pieces.get(&self.segments, number);
            let segment_start = self.ends[place] - segment.samples.len() as u64;
            let end = self.ends[place].min(positions.end);
            // Differences within a segment, whose length fits.
            let samples = segment.samples.start + (position - segment_start) as u32
                ..segment.samples.start + (end - segment_start) as u32;
            match runs.last_mut() {
                // Neighbours in the stream that are neighbours in the shard too: one request.
                Some(last)
                    if last.shard == segment.shard
                        && last.samples.end == samples.start
                        && last.pass == pass =>
                {
                    last.samples.end = samples.end;
                }
                _ => runs.push(Run { shard: segment.shard, samples, pass }),
            }
            position = end;
            place += 1;
        }
        runs
    }
}
