use std::ops::Range;

use super::NotOurs;
use super::header::{Header, Sampling};
use crate::Part;

/// Side of a block in samples, at full size.
pub(super) const SIDE: usize = 8;
/// Samples that may be read beyond the last one of a row.
const SLACK: usize = 64;
/// Samples of a colour in a row that libjpeg repeats instead of interpolating between them.
const LEAST_INTERPOLATED: usize = 2;

/// The samples of one component that a part needs: as many rows of them as two rows of units have, which follow each other in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plane {
    /// Columns of blocks that are needed.
    pub(super) columns: Range<usize>,
    /// Rows of blocks that are needed.
    pub(super) rows: Range<usize>,
    /// Blocks of a unit, across and down.
    pub(super) factors: (usize, usize),
    /// Samples of a side of a block.
    pub(super) side: usize,
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
        (factors, side): ((usize, usize), usize),
        offset: usize,
    ) -> Self {
        let blocks = |range: Range<usize>| range.start / side..range.end.div_ceil(side);
        let (columns, rows) = (blocks(samples.0), blocks(samples.1));
        let pitch = columns.len() * side + SLACK;
        Self { columns, rows, factors, side, size, offset, pitch }
    }

    fn num_rows(&self) -> usize {
        2 * self.rows_of_unit()
    }

    /// Rows of samples in a row of units.
    pub(super) fn rows_of_unit(&self) -> usize {
        self.factors.1 * self.side
    }

    /// Where a plane behind this one may begin.
    fn end(&self) -> usize {
        self.offset + self.num_rows() * self.pitch
    }

    /// Where a sample lies, of a column and a row of the whole image.
    pub(super) fn place(&self, column: usize, row: usize) -> usize {
        self.offset + row % self.num_rows() * self.pitch + column - self.columns.start * self.side
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
    /// Samples of the colours for those of the brightness, at the size that is wanted.
    pub(super) sampling: Sampling,
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
    ///
    /// As libjpeg, colours with fewer samples lose them only where they would have more than the brightness: of a 4:2:0 image at half its
    /// size all samples of the colours are kept, one for each pixel.
    pub(super) fn new(header: &Header<'_>, wanted: &Part) -> Result<Self, NotOurs> {
        let side = SIDE / wanted.shrink as usize;
        let (sampling, colour_side) = match header.sampling {
            Sampling::Half if wanted.shrink > 1 => (Sampling::Full, 2 * side),
            sampling => (sampling, side),
        };
        let left = wanted.columns.start & !1;
        let part = Part { columns: left..wanted.columns.end, ..wanted.clone() };
        let range = |range: &Range<u32>| range.start as usize..range.end as usize;
        let (columns, rows) = (range(&part.columns), range(&part.rows));
        let shrunk = |length: u32| length.div_ceil(wanted.shrink) as usize;
        let (width, height) = (shrunk(header.width), shrunk(header.height));
        let factors = header.sampling.factors();
        let first = Plane::new((columns.clone(), rows.clone()), (width, height), (factors, side), 0);
        let mut components = vec![first];
        if sampling != Sampling::Grey {
            let ratio = sampling.factors();
            let size = (width.div_ceil(ratio.0), height.div_ceil(ratio.1));
            if ratio.0 > 1 && (size.0 <= LEAST_INTERPOLATED || colour_side == 1) {
                return Err(NotOurs);
            }
            let samples = (between(columns, ratio.0, size.0), between(rows, ratio.1, size.1));
            let second = Plane::new(samples.clone(), size, ((1, 1), colour_side), components[0].end());
            let third = Plane::new(samples, size, ((1, 1), colour_side), second.end());
            components.extend([second, third]);
        }
        let units = |length: u32, factor: usize| (length as usize).div_ceil(factor * SIDE);
        let (units_across, units_down) = (units(header.width, factors.0), units(header.height, factors.1));
        let unit_blocks: usize = components.iter().map(|plane| plane.factors.0 * plane.factors.1).sum();
        Ok(Self {
            part,
            sampling,
            units_across,
            units_down,
            num_blocks: units_across * units_down * unit_blocks,
            units_needed: components.iter().map(Plane::num_unit_rows).max().unwrap_or(0),
            num_bytes: components.last().map_or(0, Plane::end),
            components,
        })
    }
}

/// Samples between which those of a finer grid are interpolated.
fn between(range: Range<usize>, factor: usize, length: usize) -> Range<usize> {
    if factor == 1 {
        return range;
    }
    (range.start / factor).saturating_sub(1)..(range.end.div_ceil(factor) + 1).min(length)
}
