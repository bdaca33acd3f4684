use super::block::ROOM;
use super::header::BLOCK;
use super::kernel::Kernel;
use super::transform::{self, Pair};

/// Blocks that wait to be transformed, two at a time: few enough to stay in the processor's fastest memory.
const NUM_BLOCKS: usize = 16;

/// Decoded coefficients on their way to samples.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    kernel: Kernel,
    /// By what coefficients of each component are multiplied, row after row.
    steps: [[i16; BLOCK]; 3],
    /// Room behind the last block, too, for what it may spill.
    coefficients: [i16; NUM_BLOCKS * BLOCK + ROOM],
    /// Where the blocks go.
    targets: [Target; NUM_BLOCKS],
    len: usize,
    samples: &'a mut [u8],
}

/// Where a block goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target {
    pub(super) component: usize,
    /// Of its first sample.
    pub(super) place: usize,
    /// From a row of samples to the next one.
    pub(super) pitch: usize,
    /// Samples of a row, and rows: 8, 4, 2 or 1.
    pub(super) side: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(kernel: Kernel, steps: [[i16; BLOCK]; 3], samples: &'a mut [u8]) -> Self {
        Self {
            kernel,
            steps,
            coefficients: [0; NUM_BLOCKS * BLOCK + ROOM],
            targets: [Target::default(); NUM_BLOCKS],
            len: 0,
            samples,
        }
    }

    pub(super) fn samples(&self) -> &[u8] {
        self.samples
    }

    /// Room to decode a block to, all zero where it counts.
    #[inline(always)]
    pub(super) fn room(&mut self) -> &mut [i16; ROOM] {
        let room = self.coefficients[self.len * BLOCK..]
            .first_chunk_mut()
            .expect("there is room for one block more");
        room[..BLOCK].fill(0);
        room
    }

    /// Takes the block that has been decoded to [`room`](Self::room).
    #[inline(always)]
    pub(super) fn push(&mut self, target: Target, has_details: bool) {
        if !has_details || target.side == 1 {
            let (mean, step) = (self.coefficients[self.len * BLOCK], self.steps[target.component][0]);
            return transform::fill(mean, step, &target, self.samples);
        }
        self.targets[self.len] = target;
        self.len += 1;
        if self.len == NUM_BLOCKS {
            self.flush();
        }
    }

    /// Transforms all that wait.
    pub(super) fn flush(&mut self) {
        let mut number = 0;
        while number < self.len {
            let first = self.targets[number];
            // Alone where the next one is of another size: it is computed twice then, and written last.
            let second = self.targets[..self.len].get(number + 1).filter(|target| target.side == first.side);
            let both = [first, *second.unwrap_or(&first)];
            let pair = Pair {
                coefficients: self.coefficients[number * BLOCK..]
                    .first_chunk()
                    .expect("there is room for one block more"),
                steps: both.map(|target| &self.steps[target.component]),
                places: both.map(|target| target.place),
                pitches: both.map(|target| target.pitch),
            };
            self.kernel.transform(&pair, first.side, self.samples);
            number += if second.is_some() { 2 } else { 1 };
        }
        self.len = 0;
    }
}
