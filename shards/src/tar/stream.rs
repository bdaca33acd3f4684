use super::decode::{Block, Decoder, Extension};
use super::scan::cut_member;
use super::{BLOCK_BYTES, Entry, TarError};

/// Lists the members of a tar that arrives in pieces of any size, in memory that does not grow with the tar.
///
/// A member is reported when its last byte has arrived, so a cut one is never reported.
#[derive(Debug)]
pub struct StreamScanner {
    decoder: Decoder,
    offset: u64,
    expected: Expected,
    num_left: u64,
    collected: Option<Vec<u8>>,
}

/// What the coming `num_left` bytes are.
#[derive(Debug)]
enum Expected {
    Header,
    Extension(Extension),
    Member(Entry),
    /// The end mark has been seen; what follows is padding.
    Nothing,
}

impl StreamScanner {
    /// Starts at the first byte of a tar.
    pub fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            offset: 0,
            expected: Expected::Header,
            num_left: BLOCK_BYTES as u64,
            collected: Some(Vec::with_capacity(BLOCK_BYTES)),
        }
    }

    /// Takes the next piece. `wants` chooses the members whose data is kept and handed to `visit`; choose small ones.
    ///
    /// # Errors
    /// The first damage. The scanner must not be used after it.
    pub fn push(
        &mut self,
        mut piece: &[u8],
        wants: impl Fn(&Entry) -> bool,
        mut visit: impl FnMut(&Entry, Option<&[u8]>),
    ) -> Result<(), TarError> {
        while !piece.is_empty() && !matches!(self.expected, Expected::Nothing) {
            let taken = piece.len().min(usize::try_from(self.num_left).unwrap_or(usize::MAX));
            let (now, later) = piece.split_at(taken);
            if let Some(collected) = &mut self.collected {
                collected.extend_from_slice(now);
            }
            piece = later;
            self.offset += taken as u64;
            self.num_left -= taken as u64;
            // A member without data is complete at once, hence the loop.
            while self.num_left == 0 && !matches!(self.expected, Expected::Nothing) {
                self.complete(&wants, &mut visit)?;
            }
        }
        Ok(())
    }

    /// Says that there are no more pieces.
    ///
    /// # Errors
    /// When the tar is cut, even where a cut leaves only whole members: its end mark is missing then.
    pub fn finish(self) -> Result<(), TarError> {
        let end = self.offset;
        match self.expected {
            Expected::Nothing => Ok(()),
            Expected::Header if self.num_left == BLOCK_BYTES as u64 => match self.decoder.is_waiting() {
                Some(offset) => Err(TarError::CutHeader { offset, end }),
                None => Err(TarError::MissingEnd { offset: end }),
            },
            Expected::Header => {
                let offset = end - (BLOCK_BYTES as u64 - self.num_left);
                Err(TarError::CutHeader { offset, end })
            }
            Expected::Extension(extension) => Err(TarError::CutHeader { offset: extension.offset, end }),
            Expected::Member(entry) => Err(cut_member(entry, end)),
        }
    }

    fn complete(
        &mut self,
        wants: &impl Fn(&Entry) -> bool,
        visit: &mut impl FnMut(&Entry, Option<&[u8]>),
    ) -> Result<(), TarError> {
        let collected = self.collected.take();
        match std::mem::replace(&mut self.expected, Expected::Header) {
            Expected::Header => {
                let block = collected.as_deref().and_then(|bytes| bytes.first_chunk());
                let block = block.expect("a header is collected until it is whole");
                match self.decoder.take_header(self.offset - BLOCK_BYTES as u64, block)? {
                    Block::End => self.expect(Expected::Nothing, 0, false),
                    Block::Extension(extension) => {
                        let num_bytes = extension.padded_bytes();
                        self.expect(Expected::Extension(extension), num_bytes, true);
                    }
                    Block::Member(entry) => {
                        let (num_bytes, is_wanted) = (entry.end - entry.data_start, wants(&entry));
                        self.expect(Expected::Member(entry), num_bytes, is_wanted);
                    }
                }
                return Ok(());
            }
            Expected::Extension(extension) => {
                let data = collected.as_deref().unwrap_or_default();
                self.decoder.take_extension(&extension, &data[..extension.num_bytes as usize])?;
            }
            Expected::Member(entry) => {
                visit(&entry, collected.as_deref().map(|data| &data[..entry.num_bytes as usize]));
            }
            Expected::Nothing => {}
        }
        self.expect(Expected::Header, BLOCK_BYTES as u64, true);
        Ok(())
    }

    fn expect(&mut self, expected: Expected, num_bytes: u64, is_collected: bool) {
        self.expected = expected;
        self.num_left = num_bytes;
        // Grows as bytes arrive, not by the size that a header claims.
        self.collected = is_collected.then(Vec::new);
    }
}

impl Default for StreamScanner {
    fn default() -> Self {
        Self::new()
    }
}
