use fastclip_schemas::{Digest, SampleId, ShardEntry};
use fastclip_shards::{IndexBuilder, ShardIndex};
use roaring::RoaringTreemap;

use super::memory::IndexRecord;
use super::{IdSource, IndexError};
use crate::scan::{Damage, ScannedSample, ScannedShard};

/// The dataset so far.
pub(super) struct Indexed {
    ids: IdSource,
    skip_damaged: bool,
    /// Where they come from elsewhere, and thus may be there twice.
    seen_ids: RoaringTreemap,
    pub(super) shards: Vec<ShardEntry>,
    pub(super) num_samples: u64,
    pub(super) num_sample_ids: u64,
    pub(super) num_without_image: u64,
    pub(super) num_without_text: u64,
    pub(super) left_out: Vec<String>,
}

impl Indexed {
    pub(super) fn new(ids: IdSource, skip_damaged: bool) -> Self {
        Self {
            ids,
            skip_damaged,
            seen_ids: RoaringTreemap::new(),
            shards: Vec::new(),
            num_samples: 0,
            num_sample_ids: 0,
            num_without_image: 0,
            num_without_text: 0,
            left_out: Vec::new(),
        }
    }

    /// Makes the index of the next shard, and what is to be remembered of it.
    pub(super) fn index(
        &self,
        name: &str,
        shard: &ScannedShard,
    ) -> Result<(IndexRecord, Option<ShardIndex>), IndexError> {
        let mut record = IndexRecord { left_out: self.problem(name, shard)?, ..IndexRecord::default() };
        if shard.samples.is_empty() {
            return Ok((record, None));
        }
        let mut index = IndexBuilder::default();
        let mut first_sample_id = SampleId(u64::MAX);
        for sample in &shard.samples {
            let id = self.id(name, sample, u64::from(index.len()))?;
            let span = &sample.span;
            if !index.push(id, &span.key, span.start..span.end) {
                let (shard, key, offset) = (name.to_owned(), span.key.clone(), span.start);
                return Err(IndexError::SampleSize { shard, key, offset });
            }
            first_sample_id = first_sample_id.min(id);
            record.num_without_image += u64::from(!sample.has_image());
            record.num_without_text += u64::from(!sample.has_text_or_class());
        }
        let num_samples = index.len();
        let index = index.finish(shard.tar_bytes);
        record.entry = Some(ShardEntry {
            name: name.to_owned(),
            index: format!("{}.idx", name.strip_suffix(".tar").unwrap_or(name)),
            num_samples,
            num_bytes: shard.num_bytes,
            digest: shard.digest,
            index_digest: Digest(*blake3::hash(&index.encode()).as_bytes()),
            first_sample_id,
        });
        Ok((record, Some(index)))
    }

    /// Whether the ids in an index that was made before go on where the shards before it end.
    pub(super) fn goes_on(&self, record: &IndexRecord) -> bool {
        let first = record.entry.as_ref().map_or(self.num_samples, |entry| entry.first_sample_id.0);
        self.ids == IdSource::JsonKey || first == self.num_samples
    }

    /// Adds a shard whose index is made. Its samples serve to name one, where they are known.
    pub(super) fn add(
        &mut self,
        record: IndexRecord,
        index: Option<&ShardIndex>,
        samples: &[ScannedSample],
    ) -> Result<(), IndexError> {
        self.left_out.extend(record.left_out);
        let (Some(entry), Some(index)) = (record.entry, index) else { return Ok(()) };
        for (position, id) in index.sample_ids().enumerate() {
            if self.ids == IdSource::JsonKey && !self.seen_ids.insert(id.0) {
                let key = samples.get(position).map(|sample| sample.span.key.clone());
                let key = key.unwrap_or_else(|| format!("number {position}"));
                let position = position as u32;
                let offset = index.byte_range(position..position + 1).start;
                return Err(IndexError::DuplicateId { shard: entry.name, key, offset, id });
            }
            self.num_sample_ids = self.num_sample_ids.max(id.0 + 1);
        }
        self.num_samples += u64::from(entry.num_samples);
        self.num_without_image += record.num_without_image;
        self.num_without_text += record.num_without_text;
        self.shards.push(entry);
        Ok(())
    }

    /// What keeps a shard from being used as it is, where that is tolerated.
    fn problem(&self, name: &str, shard: &ScannedShard) -> Result<Option<String>, IndexError> {
        let num_samples = shard.samples.len();
        let problem = match &shard.damage {
            // A file without a single byte is called empty, not cut.
            Some(damage) if shard.num_bytes > 0 => {
                let (shard, num_samples) = (name.to_owned(), damage.num_before);
                IndexError::Damaged { shard, num_samples, source: damage.cause.clone() }
            }
            _ if num_samples == 0 => IndexError::Empty { shard: name.to_owned(), num_bytes: shard.num_bytes },
            _ => return Ok(None),
        };
        if !self.skip_damaged {
            return Err(problem);
        }
        let more = shard.damage.as_ref().map(|Damage { cause, num_after, .. }| match num_after {
            0 => format!(": {cause}"),
            _ => format!(": {cause}; {num_after} whole samples follow it"),
        });
        Ok(Some(format!("{problem}{}", more.unwrap_or_default())))
    }

    fn id(&self, shard: &str, sample: &ScannedSample, position: u64) -> Result<SampleId, IndexError> {
        if self.ids == IdSource::Dense {
            return Ok(SampleId(self.num_samples + position));
        }
        let id = match &sample.json_key {
            Some(Ok(u64::MAX)) => Err(format!("its `key` is {}, which leaves no room for another", u64::MAX)),
            Some(found) => found.clone(),
            None => Err("it has no JSON member".to_owned()),
        };
        id.map(SampleId).map_err(|problem| {
            let (shard, key, offset) = (shard.to_owned(), sample.span.key.clone(), sample.span.start);
            IndexError::JsonKey { shard, key, offset, problem }
        })
    }
}
