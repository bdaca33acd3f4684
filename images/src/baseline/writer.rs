use super::header::Sampling;
use super::kernel::Kernel;
use super::plane::{Plane, Planes};
use super::rows::{Colours, Interpolation, PIXELS};

const CHANNELS: usize = 3;

/// Makes rows of pixels as soon as their samples are there.
#[derive(Debug)]
pub(super) struct RowWriter<'a> {
    kernel: Kernel,
    planes: &'a Planes,
    /// Sums over rows of blue and red.
    sums: &'a mut [Vec<u16>; 2],
    /// The rows that are still to be written.
    pixels: &'a mut [u8],
    /// The next row, from the top of the image.
    next: usize,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(
        kernel: Kernel,
        planes: &'a Planes,
        sums: &'a mut [Vec<u16>; 2],
        pixels: &'a mut [u8],
    ) -> Self {
        let width = planes.part.columns.len().next_multiple_of(PIXELS);
        // One before, one behind, and what is read beyond.
        sums.iter_mut().for_each(|sums| sums.resize(width / 2 + 2, 0));
        Self { kernel, planes, sums, pixels, next: planes.part.rows.start as usize }
    }

    /// Writes all rows whose samples lie above a row of units.
    pub(super) fn write_above(&mut self, unit_row: usize, samples: &[u8]) {
        let width = self.planes.part.columns.len() * CHANNELS;
        let end = self.planes.part.rows.end as usize;
        while self.next < end {
            let are_there = |plane: &Plane, row: usize| row < unit_row * plane.rows_of_unit();
            let (first, others) =
                self.planes.components.split_first().expect("there is one component, or more");
            let has_samples = are_there(first, self.next)
                && others.iter().all(|plane| {
                    colour_rows(self.planes.sampling, plane, self.next)
                        .iter()
                        .all(|&row| are_there(plane, row))
                });
            if !has_samples {
                return;
            }
            let (row, rest) = std::mem::take(&mut self.pixels).split_at_mut(width);
            self.write(row, samples);
            self.pixels = rest;
            self.next += 1;
        }
    }

    fn write(&mut self, pixels: &mut [u8], samples: &[u8]) {
        let left = self.planes.part.columns.start as usize;
        let luma = &samples[self.planes.components[0].place(left, self.next)..];
        let colours = match (self.planes.sampling, &self.planes.components[..]) {
            (Sampling::Full, [_, blue, red]) => {
                Colours::Full([blue, red].map(|plane| &samples[plane.place(left, self.next)..]))
            }
            (Sampling::HalfWidth | Sampling::Half, [_, blue, red]) => {
                self.sum(blue, 0, samples);
                self.sum(red, 1, samples);
                let interpolation = if self.planes.sampling == Sampling::Half {
                    Interpolation::InBoth
                } else {
                    Interpolation::InRows
                };
                Colours::Half([&self.sums[0], &self.sums[1]], interpolation)
            }
            _ => Colours::Grey,
        };
        self.kernel.rgb(luma, colours, pixels);
    }

    /// Sums the rows of a colour around the next row.
    fn sum(&mut self, plane: &Plane, colour: usize, samples: &[u8]) {
        let columns = &self.planes.part.columns;
        let (first, end) = (columns.start as usize / 2, (columns.end as usize).div_ceil(2));
        let (before, behind) = (first.saturating_sub(1), (end + 1).min(plane.size.0));
        let sums = &mut self.sums[colour];
        let target = &mut sums[before + 1 - first..][..behind - before];
        let [nearer, farther] = colour_rows(self.planes.sampling, plane, self.next)
            .map(|row| &samples[plane.place(before, row)..]);
        match self.planes.sampling {
            Sampling::Half => self.kernel.nearer_and_farther(nearer, farther, target),
            _ => self.kernel.widen(nearer, target),
        }
        if first == 0 {
            sums[0] = sums[1];
        }
        if end == plane.size.0 {
            let last = end - first;
            sums[last + 1] = sums[last];
        }
    }
}

/// The rows of a colour that a row of pixels lies between: the nearer one and the farther one.
fn colour_rows(sampling: Sampling, plane: &Plane, row: usize) -> [usize; 2] {
    if sampling != Sampling::Half {
        return [row; 2];
    }
    let nearer = row / 2;
    let farther =
        if row.is_multiple_of(2) { nearer.saturating_sub(1) } else { (nearer + 1).min(plane.size.1 - 1) };
    [nearer, farther]
}
