use std::ops::Range;

use super::header::{Header, Sampling};
use crate::Part;

/// Side of a block in samples.
pub(super) const SIDE: usize = 8;
/// Samples that may be read beyond the last one of a row.
const SLACK: usize = 64;

/// The samples of one component that a part needs: as many rows of them as two rows of units have, which follow each other in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plane {
    /// Columns of blocks that are needed.
    pub(super) columns: Range<usize>,
    /// Rows of blocks that are needed.
    pub(super) rows: Range<usize>,
    /// Blocks of a unit, across and down.
    pub(super) factors: (usize, usize),
    /// Samples of a row of the whole image, and its rows.
    pub(super) size: (usize, usize),
    /// Where the first sample lies.
    offset: usize,
    /// From a row to the next one.
    pub(super) pitch: usize,
}

impl Plane {
    /// Room for the samples at these places, of which there are `size` in the whole image.
    fn new(
        samples: (Range<usize>, Range<usize>),
        size: (usize, usize),
        factors: (usize, usize),
        offset: usize,
    ) -> Self {
        let blocks = |range: Range<usize>| range.start / SIDE..range.end.div_ceil(SIDE);
        let (columns, rows) = (blocks(samples.0), blocks(samples.1));
        let pitch = columns.len() * SIDE + SLACK;
        Self { columns, rows, factors, size, offset, pitch }
    }

    fn num_rows(&self) -> usize {
        2 * self.factors.1 * SIDE
    }

    /// Where a plane behind this one may begin.
    fn end(&self) -> usize {
        self.offset + self.num_rows() * self.pitch
    }

    /// Where a sample lies, of a column and a row of the whole image.
    pub(super) fn place(&self, column: usize, row: usize) -> usize {
        self.offset + row % self.num_rows() * self.pitch + column - self.columns.start * SIDE
    }

    /// Rows of units down to the last one that is needed.
    fn num_unit_rows(&self) -> usize {
        self.rows.end.div_ceil(self.factors.1)
    }
}

/// What of an image is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planes {
    /// One, or three.
    pub(super) components: Vec<Plane>,
    /// What comes of it.
    pub(super) part: Part,
    /// Units of a row.
    pub(super) units_across: usize,
    /// Rows of units.
    pub(super) units_down: usize,
    /// Rows of units that have to be decoded.
    pub(super) units_needed: usize,
    /// Blocks of the whole image.
    pub(super) num_blocks: usize,
    /// Bytes for all planes.
    pub(super) num_bytes: usize,
}

impl Planes {
    /// What is decoded for a part, which is made larger by a column where it begins with an odd one.
    pub(super) fn new(header: &Header<'_>, wanted: &Part) -> Self {
        let left = wanted.columns.start & !1;
        let part = Part { columns: left..wanted.columns.end, ..wanted.clone() };
        let range = |range: &Range<u32>| range.start as usize..range.end as usize;
        let (columns, rows) = (range(&part.columns), range(&part.rows));
        let (width, height) = (header.width as usize, header.height as usize);
        let (across, down) = header.sampling.factors();
        let factors = (across as usize, down as usize);
        let first = Plane::new((columns.clone(), rows.clone()), (width, height), factors, 0);
        let mut components = vec![first];
        if header.sampling != Sampling::Grey {
            let size = (width.div_ceil(factors.0), height.div_ceil(factors.1));
            let samples = (between(columns, factors.0, size.0), between(rows, factors.1, size.1));
            let second = Plane::new(samples.clone(), size, (1, 1), components[0].end());
            let third = Plane::new(samples, size, (1, 1), second.end());
            components.extend([second, third]);
        }
        let (units_across, units_down) =
            (width.div_ceil(factors.0 * SIDE), height.div_ceil(factors.1 * SIDE));
        let unit_blocks: usize = components.iter().map(|plane| plane.factors.0 * plane.factors.1).sum();
        Self {
            part,
            units_across,
            units_down,
            num_blocks: units_across * units_down * unit_blocks,
            units_needed: components.iter().map(Plane::num_unit_rows).max().unwrap_or(0),
            num_bytes: components.last().map_or(0, Plane::end),
            components,
        }
    }
}

/// Samples between which those of a finer grid are interpolated.
fn between(range: Range<usize>, factor: usize, length: usize) -> Range<usize> {
    if factor == 1 {
        return range;
    }
    (range.start / factor).saturating_sub(1)..(range.end.div_ceil(factor) + 1).min(length)
}
