use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use xxhash_rust::xxh3::xxh3_128;

/// Hashes that are sorted in memory: 32 MB.
const IN_MEMORY: usize = 1 << 20;

const RECORD_BYTES: usize = 24;

/// Repetitions that are kept to be named.
const NUM_NAMED: usize = 5;

/// Hash of a key.
pub(super) fn key_hash(key: &str) -> u128 {
    xxh3_128(key.as_bytes())
}

/// A sample of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) shard: u32,
    pub(super) position: u32,
}

/// Finds keys or images that occur more than once among any number, in memory for a million: sorted runs go to files without names in the
/// folder for temporary ones, 24 bytes each, and are merged at the end. By 128 bits of a hash, so two different ones
/// are never taken for one.
#[derive(Debug, Default)]
pub(super) struct RepetitionFinder {
    hashes: Vec<(u128, Place)>,
    runs: Vec<File>,
}

/// What occurs more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Repetitions {
    /// Samples that have what an earlier sample has.
    pub(super) num_repeated: u64,
    /// Some of them, behind the first that has it.
    pub(super) examples: Vec<(Place, Place)>,
}

impl RepetitionFinder {
    /// Takes the hashes of a shard's samples, with their positions.
    pub(super) fn add(
        &mut self,
        shard: u32,
        hashes: impl IntoIterator<Item = (u32, u128)>,
    ) -> io::Result<()> {
        let placed = hashes.into_iter().map(|(position, hash)| (hash, Place { shard, position }));
        self.hashes.extend(placed);
        if self.hashes.len() >= IN_MEMORY { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.hashes.sort_unstable();
        let mut file = BufWriter::new(tempfile::tempfile()?);
        for (hash, place) in self.hashes.drain(..) {
            file.write_all(&hash.to_le_bytes())?;
            file.write_all(&place.shard.to_le_bytes())?;
            file.write_all(&place.position.to_le_bytes())?;
        }
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        self.runs.push(file);
        Ok(())
    }

    /// Finds the repeated ones.
    pub(super) fn finish(mut self) -> io::Result<Repetitions> {
        self.hashes.sort_unstable();
        let mut runs: Vec<BufReader<File>> = self.runs.into_iter().map(BufReader::new).collect();
        let mut rest = self.hashes.into_iter();
        let in_memory = runs.len();
        let mut next = BinaryHeap::new();
        for (number, run) in runs.iter_mut().enumerate() {
            next.extend(read(run)?.map(|hashed| Reverse((hashed, number))));
        }
        next.extend(rest.next().map(|hashed| Reverse((hashed, in_memory))));
        let mut found = Repetitions::default();
        let mut before: Option<(u128, Place)> = None;
        while let Some(Reverse(((hash, place), number))) = next.pop() {
            match before {
                Some((same, first)) if same == hash => {
                    found.num_repeated += 1;
                    if found.examples.len() < NUM_NAMED {
                        found.examples.push((first, place));
                    }
                }
                _ => before = Some((hash, place)),
            }
            let following = if number == in_memory { rest.next() } else { read(&mut runs[number])? };
            next.extend(following.map(|hashed| Reverse((hashed, number))));
        }
        Ok(found)
    }
}

fn read(run: &mut BufReader<File>) -> io::Result<Option<(u128, Place)>> {
    let mut record = [0; RECORD_BYTES];
    match run.read_exact(&mut record) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let hash = u128::from_le_bytes(*record.first_chunk().expect("16 of 24 bytes"));
    let word = |at: usize| u32::from_le_bytes(*record[at..].first_chunk().expect("4 of the last 8 bytes"));
    Ok(Some((hash, Place { shard: word(16), position: word(20) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_occurs_again_is_found_in_memory_and_on_disk() {
        let hashes = |keys: &[&str]| (0..).zip(keys.iter().map(|key| key_hash(key))).collect::<Vec<_>>();
        let place = |shard, position| Place { shard, position };
        let mut finder = RepetitionFinder::default();
        finder.add(0, hashes(&["a", "b", "c"])).unwrap();
        finder.spill().unwrap();
        finder.add(1, hashes(&["d", "b"])).unwrap();
        finder.spill().unwrap();
        finder.add(2, hashes(&["e", "b", "e"])).unwrap();
        let found = finder.finish().unwrap();
        assert_eq!(found.num_repeated, 3);
        let mut examples = found.examples;
        examples.sort_unstable();
        let b = place(0, 1);
        assert_eq!(examples, [(b, place(1, 1)), (b, place(2, 1)), (place(2, 0), place(2, 2))]);
        assert_eq!(RepetitionFinder::default().finish().unwrap(), Repetitions::default());
    }
}
