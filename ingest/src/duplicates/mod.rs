//! Rows that show what another one has shown already. The first in the order of the rows stays.
//!
//! Two pictures are the same if a host sent the same bytes, of which 64 bits of a BLAKE3 hash are kept: among 300 million, one in
//! four hundred runs takes some two for the same that are not. They are nearly the same if their perceptual hashes differ in few bits
//! ([`picture_hash`]). What was seen is kept beside the record of each shard, so that a resumed run decides as an uninterrupted
//! one does.

mod exact;
mod fingerprint;
mod near;
mod picture_hash;

use serde::Serialize;

pub(crate) use exact::ExactSet;
pub(crate) use fingerprint::{Fingerprint, FingerprintMaker, content_hash};
use near::NearSet;

/// Bytes of an entry in what is kept of a shard: number, content, picture.
const ENTRY_BYTES: usize = 24;

/// Which rows are left out because of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DuplicateOptions {
    /// Leaves out images whose bytes are those of an earlier one.
    pub drop_duplicates: bool,
    /// Leaves out images whose perceptual hash, of 64 bits, differs from that of an earlier one in at most so many.
    pub drop_near_duplicates: Option<u32>,
}

impl DuplicateOptions {
    /// Largest distance that is looked for. Beyond it, different pictures pass for the same.
    pub const MAX_DISTANCE: u32 = 7;

    fn is_any(&self) -> bool {
        self.drop_duplicates || self.drop_near_duplicates.is_some()
    }
}

/// What was found to be seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// The same bytes.
    Exact { first: u64 },
    /// Hashes that differ in so many bits.
    Near { first: u64, distance: u32 },
}

/// All pictures so far, by the number that the caller gives them.
#[derive(Debug)]
pub(crate) struct Duplicates {
    exact: Option<ExactSet>,
    near: Option<NearSet>,
    /// Entries since they were last taken.
    open: Vec<u8>,
}

impl Duplicates {
    pub(crate) fn new(options: DuplicateOptions) -> Self {
        Self {
            exact: options.drop_duplicates.then(ExactSet::default),
            near: options.drop_near_duplicates.map(NearSet::new),
            open: Vec::new(),
        }
    }

    /// Whether anything is looked for.
    pub(crate) fn is_active(&self) -> bool {
        self.exact.is_some() || self.near.is_some()
    }

    /// The first picture that this one repeats. If there is none, it is remembered under its number.
    pub(crate) fn check(&mut self, fingerprint: Fingerprint, number: u64) -> Option<Duplicate> {
        let Fingerprint { content, picture } = fingerprint;
        if let Some(first) = self.exact.as_ref().and_then(|exact| exact.get(content)) {
            return Some(Duplicate::Exact { first });
        }
        if let (Some(near), Some(picture)) = (&self.near, picture)
            && let Some((first, distance)) = near.find(picture)
        {
            return Some(Duplicate::Near { first, distance });
        }
        self.add(fingerprint, number);
        for word in [number, content, picture.unwrap_or(0)] {
            self.open.extend_from_slice(&word.to_le_bytes());
        }
        None
    }

    fn add(&mut self, Fingerprint { content, picture }: Fingerprint, number: u64) {
        if let Some(exact) = &mut self.exact {
            exact.insert(content, number);
        }
        if let (Some(near), Some(picture)) = (&mut self.near, picture) {
            near.insert(picture, number);
        }
    }

    /// What was remembered since this was last asked for, of the pictures before number `end`.
    pub(crate) fn take_open(&mut self, end: u64) -> Vec<u8> {
        let is_later =
            |entry: &[u8]| entry.first_chunk().is_some_and(|number| u64::from_le_bytes(*number) >= end);
        let num_before = self.open.chunks_exact(ENTRY_BYTES).take_while(|entry| !is_later(entry)).count();
        let later = self.open.split_off(num_before * ENTRY_BYTES);
        std::mem::replace(&mut self.open, later)
    }

    /// Remembers what [`take_open`](Self::take_open) gave. False if it cannot be that.
    pub(crate) fn restore(&mut self, entries: &[u8]) -> bool {
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let word = |at: usize| {
                u64::from_le_bytes(*entry[at * 8..].first_chunk().expect("an entry has three words"))
            };
            // No picture has the hash 0: half of its bits are set.
            let picture = Some(word(2)).filter(|picture| *picture != 0);
            self.add(Fingerprint { content: word(1), picture }, word(0));
        }
        entries.len().is_multiple_of(ENTRY_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> DuplicateOptions {
        DuplicateOptions { drop_duplicates: true, drop_near_duplicates: Some(2) }
    }

    fn print(content: u64, picture: u64) -> Fingerprint {
        Fingerprint { content, picture: Some(picture) }
    }

    #[test]
    fn the_first_stays_and_is_named() {
        let mut seen = Duplicates::new(options());
        assert_eq!(seen.check(print(1, 0xff00), 10), None);
        assert_eq!(seen.check(print(1, 0x00ff), 11), Some(Duplicate::Exact { first: 10 }));
        assert_eq!(seen.check(print(2, 0xff01), 12), Some(Duplicate::Near { first: 10, distance: 1 }));
        // What was left out is no first: this is three bits from the picture that stayed.
        assert_eq!(seen.check(print(3, 0xff07), 13), None);
        assert_eq!(seen.check(Fingerprint { content: 4, picture: None }, 14), None);
    }

    #[test]
    fn what_is_restored_decides_as_what_was_seen() {
        let mut seen = Duplicates::new(options());
        for number in 0..50_u64 {
            seen.check(print(number * 7, (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), number);
        }
        assert_eq!(seen.take_open(0).len(), 0);
        let mut entries = seen.take_open(20);
        assert_eq!(entries.len(), 20 * ENTRY_BYTES);
        entries.extend(seen.take_open(u64::MAX));
        assert_eq!(entries.len(), 50 * ENTRY_BYTES);
        let mut again = Duplicates::new(options());
        assert!(again.restore(&entries));
        assert!(!again.restore(&entries[..10]));
        for number in 0..100_u64 {
            let print = print(number * 7, (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 1);
            assert_eq!(again.check(print, number), seen.check(print, number), "{number}");
        }
    }
}
