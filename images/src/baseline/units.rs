use std::ops::Range;

use super::NotOurs;
use super::batch::{Batch, Target};
use super::bits::Bits;
use super::block;
use super::codes::{AcCodes, DcCodes};
use super::plane::Planes;
use super::scan::Scan;

/// Where decoding stands between two units.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    scan: &'a Scan,
    bits: Bits<'a>,
    /// Of the last block of each component.
    means: [i32; 3],
    /// Restart intervals before this one.
    interval: usize,
    /// Units that are left of this one.
    units_left: usize,
    units_per_interval: usize,
}

impl<'a> Progress<'a> {
    /// Begins a scan of so many units, if it has as many intervals as it should.
    pub(super) fn new(scan: &'a Scan, restart_interval: u32, num_units: usize) -> Result<Self, NotOurs> {
        let units_per_interval = if restart_interval == 0 { num_units } else { restart_interval as usize };
        if scan.ends.len() != num_units.div_ceil(units_per_interval) {
            return Err(NotOurs);
        }
        let bits = Bits::new(&scan.bytes, 0);
        Ok(Self {
            scan,
            bits,
            means: [0; 3],
            interval: 0,
            units_left: units_per_interval,
            units_per_interval,
        })
    }

    /// Makes sure that no more has been read than there is.
    #[inline(always)]
    fn check(&self) -> Result<(), NotOurs> {
        if self.bits.position() <= self.scan.ends[self.interval] * 8 { Ok(()) } else { Err(NotOurs) }
    }

    /// Makes sure that an interval ends with its last unit, but for bits that fill a byte.
    pub(super) fn check_end(&self) -> Result<(), NotOurs> {
        let end = self.scan.ends[self.interval] * 8;
        if (end.saturating_sub(7)..=end).contains(&self.bits.position()) { Ok(()) } else { Err(NotOurs) }
    }

    /// Goes on to the next interval where this one is over.
    #[inline(always)]
    fn begin_unit(&mut self) -> Result<(), NotOurs> {
        if self.units_left == 0 {
            self.restart()?;
        }
        self.units_left -= 1;
        Ok(())
    }

    #[cold]
    fn restart(&mut self) -> Result<(), NotOurs> {
        self.check_end()?;
        self.bits = Bits::new(&self.scan.bytes, self.scan.ends[self.interval]);
        self.means = [0; 3];
        self.interval += 1;
        self.units_left = self.units_per_interval;
        Ok(())
    }
}

/// What a row of units is decoded with.
#[derive(Debug)]
pub(super) struct UnitRow<'a, 'b> {
    pub(super) planes: &'a Planes,
    pub(super) codes: [(&'a DcCodes, &'a AcCodes); 3],
    pub(super) progress: &'a mut Progress<'b>,
    /// Its number, from the top.
    pub(super) number: usize,
}

/// A block of every unit of a row.
#[derive(Debug, Clone, Default)]
struct UnitBlock {
    component: usize,
    /// Its column in the first unit.
    column: usize,
    /// From its column in one unit to that in the next.
    step: usize,
    /// Columns that are needed.
    needed: Range<usize>,
    /// Where the first of these goes.
    place: usize,
    pitch: usize,
    /// Samples of its side.
    side: usize,
}

/// Blocks of a unit: four of brightness and two of colours.
const MAX_UNIT_BLOCKS: usize = 6;

impl UnitBlock {
    /// Those of a row of units, and how many they are.
    fn of_row(planes: &Planes, number: usize) -> ([Self; MAX_UNIT_BLOCKS], usize) {
        let (mut blocks, mut num_blocks) = (<[Self; MAX_UNIT_BLOCKS]>::default(), 0);
        for (component, plane) in planes.components.iter().enumerate() {
            let (step, rows) = plane.factors;
            for (row, column) in (0..rows).flat_map(|row| (0..step).map(move |column| (row, column))) {
                let row = number * rows + row;
                let needed = if plane.rows.contains(&row) { plane.columns.clone() } else { 0..0 };
                let (pitch, side) = (plane.pitch, plane.side);
                let place = plane.place(plane.columns.start * side, row * side);
                blocks[num_blocks] = Self { component, column, step, needed, place, pitch, side };
                num_blocks += 1;
            }
        }
        (blocks, num_blocks)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
pub(super) fn decode_with_bmi2(row: UnitRow<'_, '_>, batch: &mut Batch<'_>) -> Result<(), NotOurs> {
    decode(row, batch)
}

/// Decodes a row of units, of which a batch gets those blocks that are needed.
#[inline(always)]
pub(super) fn decode(row: UnitRow<'_, '_>, batch: &mut Batch<'_>) -> Result<(), NotOurs> {
    let UnitRow { planes, codes, progress, number } = row;
    let (blocks, num_blocks) = UnitBlock::of_row(planes, number);
    for unit in 0..planes.units_across {
        progress.begin_unit()?;
        let mut bits = progress.bits;
        for block in &blocks[..num_blocks] {
            let component = block.component;
            let (dc, ac) = codes[component];
            let mean = &mut progress.means[component];
            let has_details = block::decode(&mut bits, dc, ac, mean, batch.room())?;
            let column = unit * block.step + block.column;
            if block.needed.contains(&column) {
                let place = block.place + (column - block.needed.start) * block.side;
                batch.push(Target { component, place, pitch: block.pitch, side: block.side }, has_details);
            }
        }
        progress.bits = bits;
        progress.check()?;
    }
    Ok(())
}
