//! JPEGs of the usual kind, in less time than libjpeg-turbo takes and with its pixels, bit for bit.
//!
//! The usual kind is a sequential JPEG in a single scan, of 8 bits, grey or in the usual colours, with colours at full size or halved
//! in one or both directions, whose every byte is as it should be. Everything else is [`NotOurs`]: whatever is unusual, damaged
//! or could be, TurboJPEG is given from the beginning. So there is one place that knows what to say of it, and nothing here has to be lenient.
//!
//! Most of the time goes into reading codes, one bit after another as they depend on each other; [`codes`] says what is done
//! about it. Blocks that a part does not need are read but not transformed, and those below it not even read. At a half, a quarter or
//! an eighth of the size a block becomes so many fewer samples, which spares all else.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod batch;
mod bits;
mod block;
mod codes;
mod header;
mod kernel;
mod plane;
mod rows;
mod scan;
#[cfg(test)]
mod tests;
mod transform;
mod units;
mod writer;

use batch::Batch;
use block::PLACES;
use codes::{AcCodes, DcCodes};
use header::BLOCK;
pub(crate) use header::Header;
use kernel::Kernel;
use plane::Planes;
use scan::Scan;
use units::{Progress, UnitRow};
use writer::RowWriter;

use crate::{Part, RgbImage};

/// Fractions of the size at which an image is decoded.
const SHRINKS: [u32; 4] = [1, 2, 4, 8];

/// A JPEG is of another kind than is decoded here, or not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotOurs;

/// Decodes one image after another, keeping tables and memory between them.
#[derive(Debug)]
pub(crate) struct BaselineDecoder {
    kernel: Kernel,
    dc: [DcCodes; 2],
    ac: [AcCodes; 2],
    scan: Scan,
    samples: Vec<u8>,
    /// Sums over rows of blue and red.
    sums: [Vec<u16>; 2],
}

impl BaselineDecoder {
    /// With the fastest kernel that this processor has.
    pub(crate) fn new() -> Self {
        Self::with_kernel(Kernel::available().next().expect("the portable kernel is always there"))
    }

    fn with_kernel(kernel: Kernel) -> Self {
        Self {
            kernel,
            dc: [DcCodes::new(), DcCodes::new()],
            ac: [AcCodes::new(), AcCodes::new()],
            scan: Scan::default(),
            samples: Vec::new(),
            sums: [Vec::new(), Vec::new()],
        }
    }

    /// Decodes a part, or a column more. Returns which, or nothing where the image is none of the usual kind.
    pub(crate) fn decode(
        &mut self,
        header: &Header<'_>,
        wanted: &Part,
        image: &mut RgbImage,
    ) -> Option<Part> {
        self.decode_usual(header, wanted, image).ok()
    }

    fn decode_usual(
        &mut self,
        header: &Header<'_>,
        wanted: &Part,
        image: &mut RgbImage,
    ) -> Result<Part, NotOurs> {
        if !SHRINKS.contains(&wanted.shrink) || wanted.columns.is_empty() || wanted.rows.is_empty() {
            return Err(NotOurs);
        }
        // Both colours have the same codes in all but strange files.
        let [luma, blue, red] = header.components;
        if (blue.dc, blue.ac) != (red.dc, red.ac) {
            return Err(NotOurs);
        }
        for (at, component) in [luma, blue].iter().enumerate() {
            self.dc[at].prepare(component.dc)?;
            self.ac[at].prepare(component.ac)?;
        }
        let planes = Planes::new(header, wanted)?;
        self.scan.fill(header.scan, planes.num_blocks)?;
        let mut progress =
            Progress::new(&self.scan, header.restart_interval, planes.units_across * planes.units_down)?;
        if self.samples.len() < planes.num_bytes {
            self.samples.resize(planes.num_bytes, 0);
        }
        let part = planes.part.clone();
        let [across, down] = [&part.columns, &part.rows].map(|range| range.len());
        let pixels = image.resize(across as u32, down as u32);
        let luma = (&self.dc[0], &self.ac[0]);
        let colour = (&self.dc[1], &self.ac[1]);
        let codes = [luma, colour, colour];
        let steps = header.components.map(|component| {
            let mut steps = [0; BLOCK];
            for (&place, &step) in PLACES.iter().zip(component.steps) {
                steps[usize::from(place)] = i16::from(step);
            }
            steps
        });
        let mut batch = Batch::new(self.kernel, steps, &mut self.samples);
        let mut writer = RowWriter::new(self.kernel, &planes, &mut self.sums, pixels);
        for number in 0..planes.units_needed {
            let row = UnitRow { planes: &planes, codes, progress: &mut progress, number };
            self.kernel.decode_units(row, &mut batch)?;
            batch.flush();
            writer.write_above(number + 1, batch.samples());
        }
        if planes.units_needed == planes.units_down {
            progress.check_end()?;
        }
        Ok(part)
    }
}
