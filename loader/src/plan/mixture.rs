use std::ops::Range;

use super::Part;
use super::random::{Draws, Purpose};
use super::segments::{Segment, Segments};

/// How much of each part of a dataset an epoch holds.
#[derive(Debug)]
pub(super) struct Mixture {
    shares: Vec<Share>,
}

#[derive(Debug)]
struct Share {
    segments: Range<u32>,
    /// Samples of the part.
    num_samples: u64,
    /// Samples of it in an epoch.
    per_epoch: u64,
}

/// What an epoch consists of, before it is shuffled: segments, whole or cut, numbered through.
#[derive(Debug)]
pub(super) struct Pieces {
    groups: Vec<Group>,
    len: u32,
}

#[derive(Debug)]
struct Group {
    /// Number of the first piece.
    first: u32,
    /// Which pass over its part it belongs to.
    pass: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Segments one by one, from this one on: nothing has to be stored for a whole pass.
    Whole {
        first_segment: u32,
    },
    Some(Vec<Segment>),
}

impl Mixture {
    pub(super) fn new(parts: &[Part], segments: &Segments) -> Self {
        let shares = parts.iter().map(|part| {
            let segments = segments.of_shards(part.shards.clone());
            Share { segments, num_samples: part.num_samples, per_epoch: part.per_epoch() }
        });
        Self { shares: shares.filter(|share| share.num_samples > 0).collect() }
    }

    /// The pieces of an epoch.
    pub(super) fn pieces(&self, segments: &Segments, seed: u64, epoch: u64) -> Pieces {
        let mut pieces = Pieces { groups: Vec::new(), len: 0 };
        for (number, share) in (0..).zip(&self.shares) {
            let num_samples = u128::from(share.num_samples);
            let mut position = u128::from(epoch) * u128::from(share.per_epoch);
            let end = position + u128::from(share.per_epoch);
            while position < end {
                // Fits, as a pass holds at least one sample and epochs are numbered by 64 bits.
                let (pass, start) = (position / num_samples, position % num_samples);
                let stop = num_samples.min(start + end - position);
                position += stop - start;
                let pass = u64::try_from(pass).unwrap_or(u64::MAX);
                if start == 0 && stop == num_samples {
                    let content = Content::Whole { first_segment: share.segments.start };
                    pieces.push(pass, content, share.segments.len() as u32);
                } else {
                    let some = share.part_of_pass(segments, (seed, pass, number), start as u64..stop as u64);
                    let len = some.len() as u32;
                    pieces.push(pass, Content::Some(some), len);
                }
            }
        }
        pieces
    }
}

impl Share {
    /// What lies at these positions of a pass, whose segments have an order of their own.
    fn part_of_pass(
        &self,
        segments: &Segments,
        (seed, pass, number): (u64, u64, u64),
        positions: Range<u64>,
    ) -> Vec<Segment> {
        let mut order: Vec<u32> = self.segments.clone().collect();
        Draws::new(Purpose::Pass, seed, pass, number).shuffle(&mut order);
        let mut part = Vec::new();
        let mut start = 0;
        for segment in order {
            let Segment { shard, samples } = segments.get(segment);
            let end = start + u64::from(samples.end - samples.start);
            let (from, to) = (positions.start.max(start), positions.end.min(end));
            if from < to {
                // Differences within a segment, whose length fits.
                let samples = samples.start + (from - start) as u32..samples.start + (to - start) as u32;
                part.push(Segment { shard, samples });
            }
            start = end;
        }
        part
    }
}

impl Pieces {
    fn push(&mut self, pass: u64, content: Content, len: u32) {
        self.groups.push(Group { first: self.len, pass, content });
        self.len = self.len.checked_add(len).expect("`Layout` keeps segments below 2^32");
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// A piece and the pass that it belongs to.
    pub(super) fn get(&self, segments: &Segments, piece: u32) -> (Segment, u64) {
        // Groups without pieces start at the same one as their successor; the last one that starts there holds it.
        let group = &self.groups[self.groups.partition_point(|group| group.first <= piece) - 1];
        let place = piece - group.first;
        let segment = match &group.content {
            Content::Whole { first_segment } => segments.get(first_segment + place),
            Content::Some(pieces) => pieces[place as usize].clone(),
        };
        (segment, group.pass)
    }
}
