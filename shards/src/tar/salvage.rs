use std::ops::Range;

use super::header::{Header, USTAR_MAGIC, field};
use super::{BLOCK_BYTES, Entry, Scanner, TarError};

/// What stands next in a damaged tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Salvaged {
    /// A member whose headers are whole.
    Member(Entry),
    /// Bytes that belong to no such member.
    Damage {
        /// From the first header that is no good to the next one that is.
        bytes: Range<u64>,
        /// What is wrong with the first of them.
        cause: TarError,
    },
}

/// Lists what is left of a damaged tar that lies in memory, whole.
///
/// After damage it goes on at the next block that looks like a header: with the magic word of ustar or GNU tar, a right
/// checksum, and a size. A member within which such a header lies has a damaged size, and what it would swallow is listed
/// instead; a tar within a tar, which shards have no use for, is taken apart by that. An end mark counts only if no header
/// follows, since a hole of zeros looks the same.
///
/// Members and damage together cover the bytes, in order and without overlap, up to the end mark. The data of a member is
/// not looked at: tar has no checksum for it.
#[derive(Debug)]
pub struct Salvager<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Salvager<'a> {
    /// Starts at the first byte of a tar.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn block(&self, at: usize) -> Option<&'a [u8; BLOCK_BYTES]> {
        self.bytes.get(at..)?.first_chunk()
    }

    /// The first header within these bytes, whose start is a multiple of the block.
    fn header_within(&self, bytes: Range<usize>) -> Option<usize> {
        let mut blocks = bytes.step_by(BLOCK_BYTES);
        blocks.find(|&at| self.block(at).is_some_and(|block| is_header(block, at as u64)))
    }

    /// Gives up the bytes from the present position to the next header after `searched_from`.
    fn lose(&mut self, searched_from: usize, cause: TarError) -> Salvaged {
        let end = self.header_within(searched_from..self.bytes.len()).unwrap_or(self.bytes.len());
        let bytes = self.position as u64..end as u64;
        self.position = end;
        Salvaged::Damage { bytes, cause }
    }

    fn read(&mut self) -> Option<Salvaged> {
        let start = self.position;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let after = start + BLOCK_BYTES;
        let entry = match Scanner::at(rest, start as u64).next() {
            Some(Ok(entry)) => entry,
            Some(Err(cause)) => return Some(self.lose(after, cause)),
            None => {
                self.header_within(after..self.bytes.len())?;
                return Some(self.lose(after, TarError::NotAHeader { offset: start as u64 }));
            }
        };
        // The scanner has compared the end with the length of the bytes.
        let (data_start, end) = (entry.data_start as usize, entry.end as usize);
        if self.header_within(data_start..end).is_some() {
            let offset = entry.data_start - BLOCK_BYTES as u64;
            return Some(self.lose(data_start, TarError::Size { offset }));
        }
        self.position = end;
        Some(Salvaged::Member(entry))
    }
}

impl Iterator for Salvager<'_> {
    type Item = Salvaged;

    fn next(&mut self) -> Option<Salvaged> {
        let item = self.read();
        if item.is_none() {
            self.position = self.bytes.len();
        }
        item
    }
}

impl std::iter::FusedIterator for Salvager<'_> {}

/// Whether a block in the middle of nowhere is a header. Stricter than reading: the magic word is asked for, since the
/// checksum of a block with few bytes is easily right by chance.
fn is_header(block: &[u8; BLOCK_BYTES], offset: u64) -> bool {
    if !block[field::MAGIC].starts_with(&USTAR_MAGIC[..5]) {
        return false;
    }
    match Header::parse(block, offset) {
        Ok(Some(header)) => {
            matches!(header.kind(), 0 | b'0'..=b'7' | b'x' | b'g' | b'L' | b'K') && header.size().is_ok()
        }
        Ok(None) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tar::{append_end, append_member};

    /// Five members of 700 bytes and the end mark: 1,536 bytes each.
    fn tar() -> Vec<u8> {
        let mut tar = Vec::new();
        for number in 0..5_u8 {
            append_member(&mut tar, &format!("{number}.jpg"), &[number; 700]).unwrap();
        }
        let num_bytes = tar.len() as u64;
        append_end(&mut tar, num_bytes);
        tar
    }

    /// Names of members, and damage as its range.
    fn salvaged(bytes: &[u8]) -> Vec<String> {
        let shown = |item| match item {
            Salvaged::Member(entry) => entry.name,
            Salvaged::Damage { bytes, .. } => format!("{bytes:?}"),
        };
        Salvager::new(bytes).map(shown).collect()
    }

    #[test]
    fn a_sound_tar_has_members_only() {
        assert_eq!(salvaged(&tar()), ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]);
        assert!(salvaged(&[]).is_empty() && salvaged(&[0; 10_240]).is_empty());
    }

    #[test]
    fn a_damaged_header_costs_its_member() {
        let mut tar = tar();
        tar[2 * 1536 + 3] ^= 0x40;
        assert_eq!(salvaged(&tar), ["0.jpg", "1.jpg", "3072..4608", "3.jpg", "4.jpg"]);
    }

    #[test]
    fn a_size_that_swallows_members_is_not_believed() {
        for size in [&b"00000003000"[..], b"00077777777", b"00000000010"] {
            let mut tar = tar();
            tar[1536 + 124..1536 + 135].copy_from_slice(size);
            let block: &[u8; BLOCK_BYTES] = tar[1536..].first_chunk().unwrap();
            let sum = format!("{:06o}\0 ", crate::tar::header::checksum(block));
            tar[1536 + 148..1536 + 156].copy_from_slice(sum.as_bytes());
            let found = salvaged(&tar);
            assert!(found.ends_with(&["2.jpg", "3.jpg", "4.jpg"].map(String::from)), "{found:?}");
            assert!(found.iter().any(|item| item.ends_with("..3072")), "{found:?}");
        }
    }

    #[test]
    fn a_hole_of_zeros_is_no_end() {
        let mut tar = tar();
        tar[1536..1536 + 1024].fill(0);
        assert_eq!(salvaged(&tar), ["0.jpg", "1536..3072", "2.jpg", "3.jpg", "4.jpg"]);
    }

    #[test]
    fn a_cut_costs_the_member_that_it_goes_through() {
        let tar = tar();
        assert_eq!(salvaged(&tar[..1536 + 600]), ["0.jpg", "1536..2136"]);
        assert_eq!(salvaged(&tar[..1536 + 100]), ["0.jpg", "1536..1636"]);
        assert_eq!(salvaged(&tar[..1536]), ["0.jpg"]);
    }

    proptest! {
        #[test]
        fn members_and_damage_cover_any_bytes_in_order(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut tar = tar();
            for (at, byte) in changes {
                let at = at.index(tar.len());
                tar[at] = byte;
            }
            tar.truncate(cut.index(tar.len() + 1));
            let mut position = 0;
            for item in Salvager::new(&tar) {
                let (start, end) = match item {
                    Salvaged::Member(entry) => (entry.start, entry.end),
                    Salvaged::Damage { bytes, .. } => (bytes.start, bytes.end),
                };
                prop_assert_eq!(start, position);
                prop_assert!(end > start && end <= tar.len() as u64);
                position = end;
            }
        }
    }
}
