use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fastclip_schemas::SampleId;

use crate::error::ReadError;
use crate::index::RunIndex;
use crate::tar::{self, Scanner};

/// Neighbouring samples of a shard in memory. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct SampleRun {
    shard: Arc<str>,
    index: RunIndex,
    bytes: Bytes,
}

impl SampleRun {
    /// `bytes` are those that the index names.
    pub(crate) fn new(shard: &str, index: RunIndex, bytes: Bytes) -> Self {
        Self { shard: shard.into(), index, bytes }
    }

    /// Name of the shard.
    pub fn shard_name(&self) -> &str {
        &self.shard
    }

    /// Positions in the shard that this run holds.
    pub fn samples(&self) -> Range<u32> {
        self.index.samples()
    }

    /// Memory that the run keeps alive.
    pub fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Finds the members of one sample. Its headers are read now, not when the run was fetched, so that damage costs
    /// the sample and not the run.
    ///
    /// # Errors
    /// When the bytes are not members of the sample that the index names. Each
    /// [costs one sample](ReadError::costs_one_sample).
    ///
    /// # Panics
    /// When the run does not hold that position.
    pub fn sample(&self, position: u32) -> Result<Sample<'_>, ReadError> {
        let samples = self.samples();
        assert!(samples.contains(&position), "the run holds samples {samples:?}, not {position}");
        let (index, place) = (self.index.index(), position - samples.start);
        let base = self.index.byte_range().start;
        let range = index.byte_range(place..place + 1);
        let bytes = &self.bytes[(range.start - base) as usize..(range.end - base) as usize];

        let mut key = None;
        let mut members = Vec::with_capacity(4);
        for entry in Scanner::at(bytes, range.start) {
            let entry = entry.map_err(|source| self.damaged(position, range.start, source))?;
            let Some((entry_key, extension)) = tar::split_name(&entry.name).filter(|_| entry.is_file) else {
                continue;
            };
            let key = key.get_or_insert_with(|| entry_key.to_owned());
            if key != entry_key {
                return Err(self.other_sample(position, range.start, Some(entry_key)));
            }
            let start = (entry.data_start - range.start) as usize;
            members.push((extension, &bytes[start..start + entry.num_bytes as usize]));
        }
        match key {
            Some(key) if index.has_key(place, &key) => {
                Ok(Sample { id: index.sample_id(place), key, members })
            }
            key => Err(self.other_sample(position, range.start, key.as_deref())),
        }
    }

    fn damaged(&self, sample: u32, offset: u64, source: tar::TarError) -> ReadError {
        ReadError::Sample { shard: self.shard.to_string(), sample, offset, source }
    }

    fn other_sample(&self, sample: u32, offset: u64, key: Option<&str>) -> ReadError {
        let found = key.map_or_else(|| "empty".to_owned(), |key| format!("`{key}`"));
        ReadError::SampleKey { shard: self.shard.to_string(), sample, offset, found }
    }
}

/// The members of one sample, where they lie in its run.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    id: SampleId,
    key: String,
    members: Vec<(String, &'a [u8])>,
}

impl<'a> Sample<'a> {
    /// Its id.
    pub fn id(&self) -> SampleId {
        self.id
    }

    /// Name that its members share, without extension.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Lower-case extension and data of each member, in the order of the tar.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a [u8])> {
        self.members.iter().map(|(extension, data)| (extension.as_str(), *data))
    }

    /// Data of the member with this lower-case extension.
    pub fn member(&self, extension: &str) -> Option<&'a [u8]> {
        self.members().find_map(|(name, data)| (name == extension).then_some(data))
    }
}
