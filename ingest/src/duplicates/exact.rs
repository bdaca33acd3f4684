use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Tables that grow one after another, so that no more than this part of them is in memory twice at a time.
const NUM_TABLES: usize = 256;

/// Bytes of a number: of 2^40 rows, which is more than anybody has.
const NUMBER_BYTES: usize = 5;

/// Numbers by a hash of 64 bits, in 16 to 32 bytes of memory each.
#[derive(Debug)]
pub(crate) struct ExactSet {
    tables: Vec<HashMap<Key, [u8; NUMBER_BYTES], BuildHasherDefault<KeyHasher>>>,
}

/// Bytes instead of a number, so that key and value take no more than what they need.
#[derive(Debug, PartialEq, Eq)]
struct Key([u8; 8]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_le_bytes(self.0));
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Default for ExactSet {
    fn default() -> Self {
        Self { tables: std::iter::repeat_with(HashMap::default).take(NUM_TABLES).collect() }
    }
}

impl ExactSet {
    pub(crate) fn get(&self, hash: u64) -> Option<u64> {
        let number = self.tables[table(hash)].get(&Key(hash.to_le_bytes()))?;
        let mut bytes = [0; 8];
        bytes[..NUMBER_BYTES].copy_from_slice(number);
        Some(u64::from_le_bytes(bytes))
    }

    /// Keeps the first number of a hash.
    pub(crate) fn insert(&mut self, hash: u64, number: u64) {
        let mut bytes = [0; NUMBER_BYTES];
        bytes.copy_from_slice(&number.to_le_bytes()[..NUMBER_BYTES]);
        self.tables[table(hash)].entry(Key(hash.to_le_bytes())).or_insert(bytes);
    }
}

/// By bits from the middle: the tables themselves look at those of both ends.
fn table(hash: u64) -> usize {
    (hash >> 28) as usize % NUM_TABLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_a_hash_is_kept() {
        let mut set = ExactSet::default();
        for number in 0..10_000_u64 {
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(set.get(hash), None);
            set.insert(hash, number << 20);
            set.insert(hash, 1);
            assert_eq!(set.get(hash), Some(number << 20));
        }
    }

    #[test]
    fn an_entry_takes_thirteen_bytes() {
        assert_eq!(size_of::<(Key, [u8; NUMBER_BYTES])>(), 13);
    }
}
