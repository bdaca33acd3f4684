use super::{Kernel, Taps};

/// Taps of a block: what one instruction multiplies and adds.
pub(super) const TAPS: usize = 4;

/// Pixels of a result that a kernel may make at once.
pub(super) const GROUP: usize = 4;

/// Weights of one direction, cut into blocks of [`TAPS`] and packed as a kernel wants them.
///
/// All pixels of a result have the same number of blocks; where fewer weights are needed, the rest are zeros.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Pixels of the result. What follows is there for some more, up to a multiple of [`GROUP`], with weights of zero.
    len: usize,
    /// First block of each, in units of the alignment.
    starts: Vec<u32>,
    num_blocks: usize,
    words_per_output: usize,
    words: Vec<i32>,
    padded: Vec<i32>,
}

impl Weights {
    /// Packs weights for pixels that begin at `origin`, in blocks that begin at multiples of `alignment` after it.
    pub(super) fn pack(&mut self, taps: &Taps, origin: u32, alignment: u32, kernel: Kernel) {
        let lead = |first: u32| ((first - origin) % alignment) as usize;
        let lengths = (0..taps.len()).map(|output| {
            let (first, weights) = taps.of(output);
            lead(first) + weights.len()
        });
        self.len = taps.len();
        self.num_blocks = lengths.max().unwrap_or(0).div_ceil(TAPS);
        self.words_per_output = self.num_blocks * kernel.words_per_block();
        self.starts.clear();
        self.words.clear();
        for output in 0..taps.len() {
            let (first, weights) = taps.of(output);
            self.starts.push((first - origin) / alignment);
            self.padded.clear();
            self.padded.resize(self.num_blocks * TAPS, 0);
            self.padded[lead(first)..][..weights.len()].copy_from_slice(weights);
            for &block in self.padded.as_chunks().0 {
                kernel.pack(block, &mut self.words);
            }
        }
        let num_outputs = self.len.next_multiple_of(GROUP);
        let last = self.starts.last().copied().unwrap_or(0);
        self.starts.resize(num_outputs, last);
        self.words.resize(num_outputs * self.words_per_output, 0);
    }

    /// Pixels of the result.
    pub(super) fn len(&self) -> usize {
        self.len
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

    /// Where the blocks of all pixels begin, and the words of all, in groups of which the last is filled up.
    pub(super) fn groups(&self) -> (&[[u32; GROUP]], &[i32]) {
        (self.starts.as_chunks().0, &self.words)
    }

    /// Furthest pixel at which a block begins, where blocks begin anywhere.
    pub(super) fn reach(&self) -> usize {
        // None begins before the one before it.
        let last = self.starts.last().copied().unwrap_or(0) as usize;
        last + self.num_blocks.saturating_sub(1) * TAPS
    }
}
