use std::ops::Range;
use std::sync::Arc;

use fastclip_schemas::SampleId;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 4] = b"FCIX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 8;

/// Where each sample of a shard lies, and which id it has.
///
/// With it any run of samples is one ranged read, and nothing has to be listed or scanned before training starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    shard_bytes: u64,
    samples: Vec<Record>,
}

/// Where the samples of a run lie. It outlives the index of the shard, which can be many times its size; clones share it.
#[derive(Debug, Clone)]
pub struct RunIndex {
    /// Of these samples alone, which are counted from 0 there.
    index: Arc<ShardIndex>,
    samples: Range<u32>,
}

/// One sample in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    offset: u64,
    id: SampleId,
    length: u32,
    key_hash: u32,
}

impl Record {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// Why bytes are not an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// It does not start as every index does.
    #[error("it does not start with `FCIX`")]
    Magic,
    /// Written by a newer program.
    #[error("it has version {found}, this program reads version {VERSION}")]
    Version {
        /// Version found.
        found: u32,
    },
    /// The length does not fit the number of samples.
    #[error("it has {found} bytes, its {num_samples} samples need {needed}")]
    Length {
        /// Bytes found.
        found: u64,
        /// Samples it claims.
        num_samples: u32,
        /// Bytes that these need.
        needed: u64,
    },
    /// The bytes changed after they were written.
    #[error("it has checksum {said:016x}, its bytes give {counted:016x}")]
    Checksum {
        /// Checksum at its end.
        said: u64,
        /// Checksum of its bytes.
        counted: u64,
    },
    /// Something stands where this version has nothing.
    #[error("its reserved word is {found:08x}, this program knows 0 only")]
    Reserved {
        /// What stands there.
        found: u32,
    },
    /// A sample lies outside the shard or over its neighbour.
    #[error("its sample {sample} spans bytes {start}..{end}, outside {allowed_start}..{allowed_end}")]
    Span {
        /// Position of the sample.
        sample: u32,
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
        /// Least start allowed: the end of the sample before.
        allowed_start: u64,
        /// Largest end allowed: that of the shard.
        allowed_end: u64,
    },
}

impl ShardIndex {
    /// Number of samples.
    #[expect(clippy::len_without_is_empty, reason = "a shard without samples is refused when it is indexed")]
    pub fn len(&self) -> u32 {
        self.samples.len() as u32
    }

    /// Size of the tar that this index describes.
    pub fn shard_bytes(&self) -> u64 {
        self.shard_bytes
    }

    /// Counts ids from here. The manifest's total was added without overflow, but an index may hold larger ids than it says.
    pub(crate) fn shift_ids(&mut self, first: u64) {
        for sample in &mut self.samples {
            sample.id = SampleId(sample.id.0.saturating_add(first));
        }
    }

    /// The same index with ids that follow one by one from `first`.
    #[must_use]
    pub fn with_dense_ids(mut self, first: SampleId) -> Self {
        for (id, sample) in (first.0..).zip(&mut self.samples) {
            sample.id = SampleId(id);
        }
        self
    }

    /// Id of the sample at `position`.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn sample_id(&self, position: u32) -> SampleId {
        self.samples[position as usize].id
    }

    /// Ids of all samples, in order of position.
    pub fn sample_ids(&self) -> impl Iterator<Item = SampleId> + '_ {
        self.samples.iter().map(|sample| sample.id)
    }

    /// Where some neighbours lie.
    ///
    /// # Panics
    /// When there are no such samples.
    pub fn run(&self, samples: Range<u32>) -> RunIndex {
        let records = self.samples[samples.start as usize..samples.end as usize].to_vec();
        RunIndex { index: Arc::new(Self { shard_bytes: self.shard_bytes, samples: records }), samples }
    }

    /// Bytes of the shard that hold `samples`, from the first header of the first to the end of the last.
    ///
    /// # Panics
    /// When there are no such samples.
    pub fn byte_range(&self, samples: Range<u32>) -> Range<u64> {
        let samples = &self.samples[samples.start as usize..samples.end as usize];
        match (samples.first(), samples.last()) {
            (Some(first), Some(last)) => first.offset..last.end(),
            _ => 0..0,
        }
    }

    /// Whether the sample at `position` can have this key. One in four thousand million wrong keys passes.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn has_key(&self, position: u32, key: &str) -> bool {
        self.samples[position as usize].key_hash == key_hash(key)
    }

    /// Writes the index as `docs/dataset.md` describes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(encoded_bytes(self.len()) as usize);
        bytes.extend_from_slice(MAGIC);
        for word in [VERSION, self.len(), 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.shard_bytes.to_le_bytes());
        for sample in &self.samples {
            bytes.extend_from_slice(&sample.offset.to_le_bytes());
            bytes.extend_from_slice(&sample.id.0.to_le_bytes());
            bytes.extend_from_slice(&sample.length.to_le_bytes());
            bytes.extend_from_slice(&sample.key_hash.to_le_bytes());
        }
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads an index.
    ///
    /// # Errors
    /// When it is cut, changed, of another version, or places samples where none can be. What it returns can be used
    /// without further checks.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if !bytes.starts_with(MAGIC) {
            return Err(IndexError::Magic);
        }
        let cut = |num_samples| IndexError::Length {
            found: bytes.len() as u64,
            num_samples,
            needed: encoded_bytes(num_samples),
        };
        if bytes.len() < HEADER_BYTES {
            return Err(cut(0));
        }
        let found = u32_at(bytes, 4);
        if found != VERSION {
            return Err(IndexError::Version { found });
        }
        let num_samples = u32_at(bytes, 8);
        if bytes.len() as u64 != encoded_bytes(num_samples) {
            return Err(cut(num_samples));
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let (said, counted) = (u64_at(checksum, 0), xxh3_64(body));
        if said != counted {
            return Err(IndexError::Checksum { said, counted });
        }
        let found = u32_at(bytes, 12);
        if found != 0 {
            return Err(IndexError::Reserved { found });
        }
        let records = body[HEADER_BYTES..].chunks_exact(RECORD_BYTES).map(|record| Record {
            offset: u64_at(record, 0),
            id: SampleId(u64_at(record, 8)),
            length: u32_at(record, 16),
            key_hash: u32_at(record, 20),
        });
        let index = Self { shard_bytes: u64_at(bytes, 16), samples: records.collect() };
        index.check()?;
        Ok(index)
    }

    fn check(&self) -> Result<(), IndexError> {
        let mut allowed_start = 0;
        for (sample, record) in (0..).zip(&self.samples) {
            let (end, is_beyond) = record.offset.overflowing_add(u64::from(record.length));
            if record.offset < allowed_start || is_beyond || end > self.shard_bytes {
                let (start, allowed_end) = (record.offset, self.shard_bytes);
                return Err(IndexError::Span { sample, start, end, allowed_start, allowed_end });
            }
            allowed_start = end;
        }
        Ok(())
    }
}

impl RunIndex {
    /// Positions in the shard.
    pub fn samples(&self) -> Range<u32> {
        self.samples.clone()
    }

    /// Bytes of the shard that hold them.
    pub fn byte_range(&self) -> Range<u64> {
        self.index.byte_range(0..self.index.len())
    }

    /// Where they lie in the shard, counted from 0.
    pub(crate) fn index(&self) -> &ShardIndex {
        &self.index
    }
}

/// Collects the samples of a shard while it is written or scanned.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    samples: Vec<Record>,
}

impl IndexBuilder {
    /// Samples so far.
    pub fn len(&self) -> u32 {
        self.samples.len() as u32
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Adds the sample that spans `bytes` of the shard. Samples come in the order of the shard.
    ///
    /// Returns whether it fits: a sample of 4 GiB or more does not, nor does one after the last of 2³² − 1.
    #[must_use]
    pub fn push(&mut self, id: SampleId, key: &str, bytes: Range<u64>) -> bool {
        let Ok(length) = u32::try_from(bytes.end - bytes.start) else { return false };
        if self.len() == u32::MAX {
            return false;
        }
        self.samples.push(Record { offset: bytes.start, id, length, key_hash: key_hash(key) });
        true
    }

    /// Ends the index of a shard of this size.
    pub fn finish(self, shard_bytes: u64) -> ShardIndex {
        ShardIndex { shard_bytes, samples: self.samples }
    }
}

fn key_hash(key: &str) -> u32 {
    // Half the hash is enough to notice that index and shard belong to different datasets.
    xxh3_64(key.as_bytes()) as u32
}

/// Size of an index of so many samples.
pub(crate) fn encoded_bytes(num_samples: u32) -> u64 {
    (HEADER_BYTES + CHECKSUM_BYTES) as u64 + RECORD_BYTES as u64 * u64::from(num_samples)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..].first_chunk().expect("lengths were compared with the layout");
    u32::from_le_bytes(*word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..].first_chunk().expect("lengths were compared with the layout");
    u64::from_le_bytes(*word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index() -> ShardIndex {
        let mut builder = IndexBuilder::default();
        assert!(builder.push(SampleId(7), "000000000", 0..2048));
        assert!(builder.push(SampleId(9), "000000001", 2560..4096));
        builder.finish(10_240)
    }

    #[test]
    fn a_sample_that_ends_beyond_all_numbers_is_refused() {
        let sample = Record { offset: u64::MAX, id: SampleId(0), length: 7, key_hash: 0 };
        let index = ShardIndex { shard_bytes: u64::MAX, samples: vec![sample] };
        let error = ShardIndex::decode(&index.encode()).unwrap_err();
        assert!(matches!(error, IndexError::Span { sample: 0, .. }), "{error}");
    }

    #[test]
    fn an_index_survives_writing_and_reading() {
        let index = index();
        assert_eq!(ShardIndex::decode(&index.encode()).unwrap(), index);
        assert_eq!(index.byte_range(0..2), 0..4096);
        assert_eq!(index.byte_range(1..2), 2560..4096);
        assert_eq!(index.byte_range(1..1), 0..0);
        assert!(index.has_key(1, "000000001") && !index.has_key(1, "000000000"));
    }

    #[test]
    fn dense_ids_go_and_come_back_to_the_very_bytes() {
        let mut builder = IndexBuilder::default();
        assert!(builder.push(SampleId(7), "a", 0..512) && builder.push(SampleId(8), "b", 512..1024));
        let before = builder.finish(1024);
        let after = before.clone().with_dense_ids(SampleId(100));
        assert_eq!(after.sample_ids().collect::<Vec<_>>(), [SampleId(100), SampleId(101)]);
        assert_eq!(after.with_dense_ids(SampleId(7)).encode(), before.encode());
    }

    #[test]
    fn the_bytes_are_those_of_version_1() {
        let bytes = index().encode();
        assert_eq!(&bytes[..16], b"FCIX\x01\0\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(bytes.len(), 24 + 2 * 24 + 8);
        // Computed once; changes only with the version.
        assert_eq!(u64_at(&bytes, bytes.len() - 8), 5_547_769_180_080_876_570);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let bytes = index().encode();
        for length in 0..bytes.len() {
            assert!(ShardIndex::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(ShardIndex::decode(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn samples_outside_the_shard_or_over_each_other_are_refused() {
        let mut builder = IndexBuilder::default();
        assert!(builder.push(SampleId(0), "a", 0..1024));
        let small = builder.finish(512);
        let message = ShardIndex::decode(&small.encode()).unwrap_err().to_string();
        assert_eq!(message, "its sample 0 spans bytes 0..1024, outside 0..512");
        let mut builder = IndexBuilder::default();
        assert!(builder.push(SampleId(0), "a", 0..1024));
        assert!(builder.push(SampleId(1), "b", 512..1024));
        assert!(matches!(
            ShardIndex::decode(&builder.finish(4096).encode()),
            Err(IndexError::Span { sample: 1, .. })
        ));
    }

    #[test]
    fn a_sample_above_4_gib_does_not_fit() {
        assert!(!IndexBuilder::default().push(SampleId(0), "a", 0..1 << 32));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_index_or_an_error(mut bytes: Vec<u8>, is_marked: bool) {
            if is_marked {
                bytes.splice(0..bytes.len().min(8), *b"FCIX\x01\0\0\0");
            }
            let _ = ShardIndex::decode(&bytes);
        }
    }
}
