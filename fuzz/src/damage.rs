use crate::Target;

/// Endless damage to a target's seeds: the same for the same number, and what was damaged is damaged further.
#[derive(Debug)]
pub struct Damage {
    seeds: Vec<Vec<u8>>,
    state: u64,
}

/// Numbers at the edges of what fields hold.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'"'];
/// Longest input; what grows beyond it is cut.
const MAX_BYTES: usize = 1 << 14;

impl Damage {
    /// Damage that a number stands for.
    pub fn new(target: Target, number: u64) -> Self {
        Self { seeds: target.seeds(), state: number }
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(self.draw() as u8);
            return;
        }
        let at = self.below(bytes.len());
        // Most often short: fields are.
        let magnitude = 1 + self.below(9);
        let length = 1 + self.below(1 << magnitude);
        let end = (at + length).min(bytes.len());
        match self.below(8) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = EDGES[self.below(EDGES.len())],
            2 => bytes[at] = self.draw() as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            6 => {
                let value = EDGES[self.below(EDGES.len())];
                bytes[at..end].fill(value);
            }
            _ => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len().max(1)).min(self.seeds[other].len());
                let part = &self.seeds[other][from..(from + length).min(self.seeds[other].len())];
                bytes.splice(at..end, part.iter().copied());
            }
        }
        bytes.truncate(MAX_BYTES);
    }
}

impl Iterator for Damage {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let seed = self.below(self.seeds.len());
        let mut bytes = self.seeds[seed].clone();
        for _ in 0..1 << self.below(5) {
            self.change(&mut bytes);
        }
        Some(bytes)
    }
}
