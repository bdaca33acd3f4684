use std::collections::BTreeMap;
use std::num::NonZeroU32;

use fastclip_schemas::{MANIFEST_FILE, Manifest, SampleId, ShardEntry};

use crate::error::WriteError;
use crate::shard_writer::{MIN_SHARD_DIGITS, ShardWriter, refused};
use crate::store::Store;
use crate::tar;

/// Keys have at least this many digits for the position in the shard.
const MIN_POSITION_DIGITS: usize = 4;

/// How a [`DatasetWriter`] cuts and names what it is given.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Samples in each shard but the last.
    pub samples_per_shard: NonZeroU32,
    /// Bytes of a shard, beyond which no sample is added. A sample that is larger has a shard of its own.
    pub max_shard_bytes: Option<u64>,
    /// Number of the first shard, for a dataset that is written in parts.
    pub first_shard: u32,
    /// Id of the first sample.
    pub first_sample_id: SampleId,
    /// Program and version, for the manifest.
    pub created_by: String,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            samples_per_shard: NonZeroU32::new(10_000).expect("ten thousand is not zero"),
            max_shard_bytes: None,
            first_shard: 0,
            first_sample_id: SampleId(0),
            created_by: concat!("fastclip-shards ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Writes shards one after another, each with its index, and the manifest last.
///
/// A shard appears under its name when it is complete, its index after it. Until [`finish`](Self::finish) returns there
/// is no manifest, so nobody takes a part for the whole. A dropped writer leaves the complete shards; handing their
/// entries to [`resume`](Self::resume) goes on after them.
#[derive(Debug)]
pub struct DatasetWriter {
    store: Store,
    options: WriterOptions,
    done: Vec<ShardEntry>,
    open: Option<ShardWriter>,
    next_id: SampleId,
}

/// What [`DatasetWriter::append`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Id that the sample got.
    pub sample_id: SampleId,
    /// The shard that this sample filled. It is stored when this is returned.
    pub completed: Option<ShardEntry>,
}

impl DatasetWriter {
    /// Starts a dataset. Whether something else lies there already is for the caller to find out.
    pub fn new(store: Store, options: WriterOptions) -> Self {
        Self::resume(store, options, Vec::new())
    }

    /// Goes on after complete shards that a writer with the same options left.
    pub fn resume(store: Store, options: WriterOptions, done: Vec<ShardEntry>) -> Self {
        let num_done: u64 = done.iter().map(|shard| u64::from(shard.num_samples)).sum();
        let next_id = SampleId(options.first_sample_id.0 + num_done);
        Self { store, options, done, open: None, next_id }
    }

    /// Key that the next sample will get: number of the shard, then position in it.
    pub fn next_key(&self) -> String {
        let position = self.open.as_ref().map_or(0, |shard| shard.num_samples());
        self.key(self.shard_number(), u64::from(position))
    }

    /// Id that the next sample will get.
    pub fn next_sample_id(&self) -> SampleId {
        self.next_id
    }

    /// Key of a sample that was appended, by this writer or by the one that it resumes.
    pub fn key_of(&self, id: SampleId) -> String {
        let after = self.done.partition_point(|shard| shard.first_sample_id <= id);
        let done = after.checked_sub(1).map(|number| (number, &self.done[number]));
        let (number, first_id) = match done {
            Some((number, shard)) if id.0 < shard.first_sample_id.0 + u64::from(shard.num_samples) => {
                (number, shard.first_sample_id)
            }
            Some((number, shard)) => {
                (number + 1, SampleId(shard.first_sample_id.0 + u64::from(shard.num_samples)))
            }
            None => (0, self.options.first_sample_id),
        };
        self.key(u64::from(self.options.first_shard) + number as u64, id.0 - first_id.0)
    }

    fn key(&self, shard: u64, position: u64) -> String {
        let per_shard = self.options.samples_per_shard.get();
        let position_digits = (per_shard - 1).max(1).ilog10() as usize + 1;
        let width = position_digits.max(MIN_POSITION_DIGITS);
        format!("{shard:0MIN_SHARD_DIGITS$}{position:0width$}")
    }

    /// Closes the open shard if it would be too large with a sample whose members have so many bytes, and returns its entry.
    /// The next sample then has another key.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn make_room(
        &mut self,
        members: impl IntoIterator<Item = u64>,
    ) -> Result<Option<ShardEntry>, WriteError> {
        let (Some(max_bytes), Some(open)) = (self.options.max_shard_bytes, &self.open) else {
            return Ok(None);
        };
        let sample_bytes: u64 = members.into_iter().map(tar::member_bytes).sum();
        if tar::closed_bytes(open.num_bytes() + sample_bytes) <= max_bytes {
            return Ok(None);
        }
        self.close_shard().await
    }

    fn shard_number(&self) -> u64 {
        u64::from(self.options.first_shard) + self.done.len() as u64
    }

    /// Appends a sample: extension and data of each member.
    ///
    /// # Errors
    /// When the store refuses, or the sample cannot be a tar member. After an error the writer must be dropped.
    pub async fn append(&mut self, members: &[(&str, &[u8])]) -> Result<Appended, WriteError> {
        let key = self.next_key();
        let mut shard = match self.open.take() {
            Some(shard) => shard,
            None => ShardWriter::new(&self.store, self.shard_number(), self.next_id)?,
        };
        let sample_id = shard.append(&key, members).await?;
        self.next_id.0 += 1;
        let is_full = shard.num_samples() == self.options.samples_per_shard.get();
        self.open = Some(shard);
        let completed = if is_full { self.close_shard().await? } else { None };
        Ok(Appended { sample_id, completed })
    }

    /// Closes the shard that is being written, full or not, and returns its entry. The next sample starts another.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn close_shard(&mut self) -> Result<Option<ShardEntry>, WriteError> {
        let Some(shard) = self.open.take() else { return Ok(None) };
        let entry = shard.finish().await?;
        self.done.push(entry.clone());
        Ok(Some(entry))
    }

    /// Shards that are stored.
    pub fn shards(&self) -> &[ShardEntry] {
        &self.done
    }

    /// Closes the last shard and writes the manifest, with these facts about the source.
    ///
    /// # Errors
    /// When the store refuses, or there are no samples.
    pub async fn finish(
        mut self,
        source: BTreeMap<String, serde_json::Value>,
    ) -> Result<Manifest, WriteError> {
        self.close_shard().await?;
        if self.done.is_empty() {
            return Err(WriteError::Empty { location: self.store.location().to_owned() });
        }
        let manifest = Manifest::of_shards(self.options.created_by, self.done, source);
        let refused = refused(&self.store, MANIFEST_FILE);
        self.store.put(MANIFEST_FILE, manifest.to_json()).await.map_err(refused)?;
        Ok(manifest)
    }

    /// Gives up: removes what was uploaded of the open shard. Complete shards stay.
    ///
    /// # Errors
    /// When the store refuses to forget.
    pub async fn abort(mut self) -> Result<(), WriteError> {
        match self.open.take() {
            Some(shard) => shard.abort().await,
            None => Ok(()),
        }
    }
}
