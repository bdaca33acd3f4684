use super::decode::{Block, Decoder};
use super::{BLOCK_BYTES, Entry, TarError};

/// Lists the members of a tar, or of a run of whole members cut out of one, that lies in memory.
///
/// It reads headers only, never panics and never allocates by a size that it found. After an error it ends. Bytes that
/// end after a whole member are a valid end, since a run has no end mark; [`StreamScanner`](super::StreamScanner)
/// insists on one.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    base: u64,
    position: usize,
    decoder: Decoder,
    is_finished: bool,
}

impl<'a> Scanner<'a> {
    /// Scans a whole tar.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::at(bytes, 0)
    }

    /// Scans bytes that start at `base` of their tar. Entries and errors carry offsets in the tar.
    pub fn at(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, base, position: 0, decoder: Decoder::default(), is_finished: false }
    }

    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn read(&mut self) -> Result<Option<Entry>, TarError> {
        loop {
            let offset = self.base + self.position as u64;
            let rest = &self.bytes[self.position..];
            if rest.is_empty() {
                return match self.decoder.is_waiting() {
                    Some(offset) => Err(TarError::Extension { offset, reason: "no member follows it" }),
                    None => Ok(None),
                };
            }
            let Some((block, data)) = rest.split_first_chunk::<BLOCK_BYTES>() else {
                return Err(TarError::CutHeader { offset, end: self.end() });
            };
            match self.decoder.take_header(offset, block)? {
                Block::End => return Ok(None),
                Block::Extension(extension) => {
                    let padded = extension.padded_bytes() as usize;
                    if padded > data.len() {
                        return Err(TarError::CutHeader { offset, end: self.end() });
                    }
                    self.decoder.take_extension(&extension, &data[..extension.num_bytes as usize])?;
                    self.position += BLOCK_BYTES + padded;
                }
                Block::Member(entry) if entry.end > self.end() => {
                    return Err(cut_member(entry, self.end()));
                }
                Block::Member(entry) => {
                    self.position = (entry.end - self.base) as usize;
                    return Ok(Some(entry));
                }
            }
        }
    }
}

pub(super) fn cut_member(entry: Entry, end: u64) -> TarError {
    TarError::CutMember { offset: entry.start, name: entry.name, needed: entry.end, end }
}

impl Iterator for Scanner<'_> {
    type Item = Result<Entry, TarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_finished {
            return None;
        }
        let item = self.read().transpose();
        self.is_finished = !matches!(item, Some(Ok(_)));
        item
    }
}

impl std::iter::FusedIterator for Scanner<'_> {}
