use std::ops::Range;

use fastclip_shards::tar::{BLOCK_BYTES, Scanner};

/// A way to damage a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// One to sixteen bits are other than they were, anywhere.
    FlippedBits,
    /// It ends early, anywhere.
    Truncated,
    /// Two members have changed places.
    SwappedMembers,
    /// A header claims another size, absurd or merely wrong, with a checksum that is right.
    WrongSize,
    /// A header's size field is no number, or its checksum is wrong.
    BrokenHeader,
    /// Some blocks are zeros, as after a power cut.
    Zeroed,
    /// Some blocks are noise.
    Noise,
}

impl Mutation {
    /// All ways.
    pub const ALL: [Self; 7] = [
        Self::FlippedBits,
        Self::Truncated,
        Self::SwappedMembers,
        Self::WrongSize,
        Self::BrokenHeader,
        Self::Zeroed,
        Self::Noise,
    ];

    /// The damaged copy of a sound tar that belongs to a seed, and how it was damaged. Seeds take turns in the ways.
    ///
    /// # Panics
    /// If the tar is not sound or has fewer than two members.
    pub fn of(tar: &[u8], seed: u64) -> (Self, Vec<u8>) {
        let members: Vec<Range<usize>> = Scanner::new(tar)
            .map(|entry| {
                let entry = entry.expect("the tar is sound");
                entry.start as usize..entry.end as usize
            })
            .collect();
        let mutation = Self::ALL[seed as usize % Self::ALL.len()];
        let mut draws = Draws(seed);
        let mut changed = tar.to_vec();
        let member = members[draws.below(members.len())].clone();
        match mutation {
            Self::FlippedBits => {
                for _ in 0..=draws.below(16) {
                    changed[draws.below(tar.len())] ^= 1 << draws.below(8);
                }
            }
            Self::Truncated => changed.truncate(draws.below(tar.len())),
            Self::SwappedMembers => {
                let number = draws.below(members.len() - 1);
                let (first, second) =
                    (&members[number], &members[number + 1 + draws.below(members.len() - 1 - number)]);
                changed.truncate(first.start);
                for part in [second, &(first.end..second.start), first, &(second.end..tar.len())] {
                    changed.extend_from_slice(&tar[part.clone()]);
                }
            }
            Self::WrongSize => {
                let header = &mut changed[member.start..member.start + BLOCK_BYTES];
                let size = match draws.below(3) {
                    0 => draws.below(1 << 33),
                    1 => draws.below(tar.len()),
                    _ => 0o77_777_777_777,
                };
                header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            Self::BrokenHeader => {
                let field = member.start + if draws.below(2) == 0 { 124 } else { 148 };
                changed[field..field + 8].copy_from_slice(&draws.next().to_le_bytes());
            }
            Self::Zeroed | Self::Noise => {
                let start = draws.below(tar.len());
                let end = (start + 1 + draws.below(4 * BLOCK_BYTES)).min(tar.len());
                let noise = |_| draws.next() as u8;
                match mutation {
                    Self::Zeroed => changed[start..end].fill(0),
                    _ => changed[start..end].copy_from_slice(&(start..end).map(noise).collect::<Vec<_>>()),
                }
            }
        }
        (mutation, changed)
    }
}

/// SplitMix64: enough for damage, and the same for ever.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
