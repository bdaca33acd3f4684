use super::{Kernel, Taps};

/// Taps of a block: what one instruction multiplies and adds.
pub(super) const TAPS: usize = 4;

/// Weights of one direction, cut into blocks of [`TAPS`] and packed as a kernel wants them.
///
/// All pixels of a result have the same number of blocks; where fewer weights are needed, the rest are zeros.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// First block of each pixel of the result, in units of the alignment.
    starts: Vec<u32>,
    num_blocks: usize,
    words_per_output: usize,
    words: Vec<i32>,
}

impl Weights {
    /// Packs weights for pixels that begin at `origin`, in blocks that begin at multiples of `alignment` after it.
    pub(super) fn pack(&mut self, taps: &Taps, origin: u32, alignment: u32, kernel: Kernel) {
        let start = |first: u32| (first - origin) / alignment;
        let lead = |first: u32| ((first - origin) % alignment) as usize;
        let lengths = (0..taps.len()).map(|output| {
            let (first, weights) = taps.of(output);
            lead(first) + weights.len()
        });
        self.num_blocks = lengths.max().unwrap_or(0).div_ceil(TAPS);
        self.words_per_output = self.num_blocks * kernel.words_per_block();
        self.starts.clear();
        self.words.clear();
        self.words.reserve(taps.len() * self.words_per_output);
        for output in 0..taps.len() {
            let (first, weights) = taps.of(output);
            self.starts.push(start(first));
            let lead = lead(first);
            for block in 0..self.num_blocks {
                let block = std::array::from_fn(|tap| {
                    let at = (block * TAPS + tap).checked_sub(lead);
                    at.and_then(|at| weights.get(at)).copied().unwrap_or(0)
                });
                kernel.pack(block, &mut self.words);
            }
        }
    }

    /// Pixels of the result.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Blocks of each pixel of the result.
    pub(super) fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Where the blocks of a pixel begin, in units of the alignment.
    pub(super) fn start(&self, output: usize) -> usize {
        self.starts[output] as usize
    }

    /// Weights of a pixel, one block after another.
    pub(super) fn words(&self, output: usize) -> &[i32] {
        &self.words[output * self.words_per_output..][..self.words_per_output]
    }

    /// Furthest pixel at which a block begins, where blocks begin anywhere.
    pub(super) fn reach(&self) -> usize {
        let last = self.starts.iter().copied().max().unwrap_or(0) as usize;
        last + self.num_blocks.saturating_sub(1) * TAPS
    }
}
