//! Bicubic resizing with Pillow's results, bit for bit, at the speed of the memory.
//!
//! Pillow resizes in two passes, along the rows first, and rounds to bytes after each. Weights are normalised in floating point and
//! rounded to 22 bits after the point; products are summed in integers. All of this is part of the result, so all of it is
//! done here: pixels of a model that was trained behind Pillow are the same behind this.
//!
//! Pillow 13 takes the columns first where the height shrinks by more than twice as many pixels as the width, to save
//! time. Nothing is saved here, and models were trained with the order of the versions before; the difference is one grey
//! level in a tenth of the values of such images.
//!
//! What is different is how. The first pass takes four rows at a time and writes them as a *strip*: for each channel and
//! column the bytes of the four rows side by side. Four bytes are what the dot-product instructions of a processor consume,
//! so both passes consist of them: the first after shuffling four neighbouring pixels, the second as the strips lie in
//! memory. It also leaves each channel in a plane of its own, which is what batches want.
//!
//! A weight does not fit into the eight bits that these instructions multiply with. It is split into three signed digits
//! of eight bits ([`Kernel::Vnni`]) or two of sixteen and eight ([`Kernel::Avx2`]), whose sums are put together at the end. Integer
//! sums do not depend on their order, so every kernel gives the same bytes; [`Kernel::Portable`] is the definition.
//!
//! `fast_image_resize` was here before: it runs the passes in the other order with coarser weights, so that every sixth
//! value differs from Pillow's, and takes half as long again.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod axis;
mod kernel;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod weights;

pub(crate) use axis::{Axis, Taps};
pub(crate) use kernel::Kernel;

use std::ops::Range;

use fastclip_images::Window;
use weights::{TAPS, Weights};

/// Channels of a pixel.
const CHANNELS: usize = 3;
/// Rows of a strip: as many as a block has taps.
const STRIP_ROWS: usize = TAPS;
/// Columns that the second pass writes at a time.
const COLUMNS: usize = 16;
/// Bytes that kernels read at a time from a row.
const READ_BYTES: usize = 16;
/// Most bytes of strips at a time, unless one row of the result needs more. A tall and narrow image has more rows than its size
/// says.
const MAX_STRIP_BYTES: usize = 2 << 20;

/// Where resized pixels go: three planes with gaps.
#[derive(Debug)]
pub(crate) struct Planes<'a> {
    /// The planes.
    pub(crate) bytes: &'a mut [u8],
    /// Bytes from a plane to the next one.
    pub(crate) plane: usize,
    /// Bytes from a row to the next one.
    pub(crate) row: usize,
    /// Where the first pixel of the first plane goes.
    pub(crate) offset: usize,
}

/// Resizes one part of an image after another, keeping its memory between them.
#[derive(Debug)]
pub(crate) struct Resampler {
    kernel: Kernel,
    max_strip_bytes: usize,
    columns: Weights,
    rows: Weights,
    /// What the first pass makes: strips of four rows.
    strips: Vec<u8>,
    /// Rows at the end of an image, with room behind them to read beyond.
    last_rows: Vec<u8>,
}

impl Resampler {
    /// With the fastest kernel that this processor has.
    pub(crate) fn new() -> Self {
        Self::with_kernel(Kernel::best(), MAX_STRIP_BYTES)
    }

    fn with_kernel(kernel: Kernel, max_strip_bytes: usize) -> Self {
        Self {
            kernel,
            max_strip_bytes,
            columns: Weights::default(),
            rows: Weights::default(),
            strips: Vec::new(),
            last_rows: Vec::new(),
        }
    }

    /// Resizes a window that holds all pixels that the taps of both directions touch.
    ///
    /// # Panics
    /// When it does not hold them, or the planes have no room.
    pub(crate) fn resample(
        &mut self,
        window: Window<'_>,
        columns: &Taps,
        rows: &Taps,
        mut planes: Planes<'_>,
    ) {
        let (across, down) = (columns.touched(), rows.touched());
        assert!(
            window.left <= across.start && across.end <= window.left + window.width,
            "columns {across:?} lie in {window:?}"
        );
        assert!(
            window.top <= down.start && down.end <= window.top + window.height,
            "rows {down:?} lie in {window:?}"
        );
        assert_eq!(window.bytes.len(), window.width as usize * window.height as usize * CHANNELS);
        self.columns.pack(columns, window.left, 1, self.kernel);
        // Strips begin with the first row that counts.
        self.rows.pack(rows, down.start, STRIP_ROWS as u32, self.kernel);
        let width = columns.len().next_multiple_of(COLUMNS);
        let most = self.max_strip_bytes / (CHANNELS * width * STRIP_ROWS);
        let rows = down.start - window.top..down.end - window.top;
        let mut start = 0;
        while start < self.rows.len() {
            // As many rows of the result as there is room for their strips, and one at least.
            let first = self.rows.start(start);
            let strips_of = |row: usize| self.rows.start(row) + self.rows.num_blocks() - first;
            let end =
                (start + 1..self.rows.len()).find(|&row| strips_of(row) > most).unwrap_or(self.rows.len());
            let strips = first..first + strips_of(end - 1);
            self.fill_strips(window, rows.clone(), strips, width);
            self.finish_rows(start..end, columns.len(), width, &mut planes);
            start = end;
        }
    }

    /// The first pass: rows of the window to some of the strips, of `width` columns.
    fn fill_strips(&mut self, window: Window<'_>, rows: Range<u32>, strips: Range<usize>, width: usize) {
        let strip = CHANNELS * width * STRIP_ROWS;
        let needed = strips.len() * strip;
        if self.strips.len() < needed {
            self.strips.resize(needed, 0);
        }
        let pitch = window.width as usize * CHANNELS;
        let reach = self.columns.reach() * CHANNELS + READ_BYTES;
        let last = rows.end as usize - 1;
        // Blocks of the second pass may reach beyond the last strip, with weights of zero: there is room, and no more.
        let strips = strips.start..strips.end.min(rows.len().div_ceil(STRIP_ROWS));
        for (number, strip) in strips.zip(self.strips.chunks_exact_mut(strip)) {
            let first = rows.start as usize + number * STRIP_ROWS;
            // Rows that are missing in the last strip have no weight: any will do.
            let rows: [usize; STRIP_ROWS] = std::array::from_fn(|row| (first + row).min(last));
            let end = rows[STRIP_ROWS - 1] * pitch + reach;
            let rows = if end <= window.bytes.len() {
                rows.map(|row| &window.bytes[row * pitch..])
            } else {
                self.last_rows.clear();
                for row in rows {
                    self.last_rows.extend_from_slice(&window.bytes[row * pitch..][..pitch]);
                    self.last_rows.resize(self.last_rows.len() + reach, 0);
                }
                std::array::from_fn(|row| &self.last_rows[row * (pitch + reach)..][..pitch + reach])
            };
            self.kernel.across(rows, &self.columns, strip, width);
        }
    }

    /// The second pass: strips of `width` columns, of which `kept` count, to some rows of planes. The first strip is the first
    /// that these rows need.
    fn finish_rows(&self, rows: Range<usize>, kept: usize, width: usize, planes: &mut Planes<'_>) {
        let plane = width * STRIP_ROWS;
        let first = self.rows.start(rows.start);
        for row in rows {
            let strips = &self.strips[(self.rows.start(row) - first) * CHANNELS * plane..];
            for channel in 0..CHANNELS {
                let at = planes.offset + channel * planes.plane + row * planes.row;
                let output = &mut planes.bytes[at..][..kept];
                self.kernel.down(&strips[channel * plane..], CHANNELS * plane, self.rows.words(row), output);
            }
        }
    }
}
