use memchr::memchr;

use super::NotOurs;

/// No block takes more: 64 coefficients of 31 bits each, and a restart that fills a byte.
const MAX_BLOCK_BYTES: usize = 256;
/// Zeros behind the last byte. Between two checks no more can be read than a unit takes, of six blocks.
const PADDING: usize = 8 * MAX_BLOCK_BYTES;

/// The bytes of a scan without what was stuffed between them.
///
/// A byte of all ones in the code is followed by a zero, to tell it from a marker. Without these zeros the decoder can take
/// eight bytes at a time without a look at them, and to remove them all beforehand costs next to nothing.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// All code, and [`PADDING`].
    pub(super) bytes: Vec<u8>,
    /// Where the code of each restart interval ends.
    pub(super) ends: Vec<usize>,
}

impl Scan {
    /// Takes a scan of so many blocks that is the last thing of its file.
    pub(super) fn fill(&mut self, mut stuffed: &[u8], num_blocks: usize) -> Result<(), NotOurs> {
        const END_OF_IMAGE: u8 = 0xd9;
        self.bytes.clear();
        self.ends.clear();
        // A file may be longer than an image can be.
        let max_bytes = num_blocks.saturating_mul(MAX_BLOCK_BYTES);
        self.bytes.reserve_exact(stuffed.len().min(max_bytes) + PADDING);
        loop {
            let at = memchr(0xff, stuffed).ok_or(NotOurs)?;
            if self.bytes.len() + at >= max_bytes {
                return Err(NotOurs);
            }
            self.bytes.extend_from_slice(&stuffed[..at]);
            let after = *stuffed.get(at + 1).ok_or(NotOurs)?;
            stuffed = &stuffed[at + 2..];
            match after {
                0 => self.bytes.push(0xff),
                // Restart markers are numbered from 0 to 7, over and over.
                0xd0..=0xd7 if usize::from(after - 0xd0) == self.ends.len() % 8 => {
                    self.ends.push(self.bytes.len());
                }
                END_OF_IMAGE => {
                    self.ends.push(self.bytes.len());
                    self.bytes.resize(self.bytes.len() + PADDING, 0);
                    return Ok(());
                }
                _ => return Err(NotOurs),
            }
        }
    }
}
