use fastclip_schemas::{Digest, SampleId, ShardEntry};
use fastclip_shards::ShardIndex;

use super::{RunState, RunStateError};

/// Ids of shards that were written without knowing how many samples come before them.
///
/// An index is the only file in which ids stand, so that other ids are a new index and nothing else. Records keep saying what was
/// written first. An index that has been renumbered since is known by going back: with the ids of the record, it is the very
/// bytes that were recorded. So a merge may be cut off anywhere and begun again.
impl RunState<'_> {
    /// Checks the size of a complete shard and the whole of its index but for the ids. Gives the entry as it is by now.
    pub(crate) async fn check_but_for_ids(&self, entry: &ShardEntry) -> Result<ShardEntry, RunStateError> {
        self.check_size(entry).await?;
        let index = self.index(entry).await?;
        let (first, index_digest) = (first_id(&index), digest_of(&index));
        let recorded = index.with_dense_ids(entry.first_sample_id);
        if digest_of(&recorded) != entry.index_digest {
            let problem = format!("has digest {index_digest}, {} was written", entry.index_digest);
            return Err(self.changed(&entry.index, problem));
        }
        Ok(ShardEntry { first_sample_id: first, index_digest, ..entry.clone() })
    }

    /// Gives the samples of a shard ids from `first` on.
    pub(crate) async fn renumber(
        &self,
        entry: ShardEntry,
        first: SampleId,
    ) -> Result<ShardEntry, RunStateError> {
        if entry.first_sample_id == first {
            return Ok(entry);
        }
        let index = self.index(&entry).await?.with_dense_ids(first);
        let index_digest = digest_of(&index);
        self.write(&entry.index, index.encode()).await?;
        Ok(ShardEntry { first_sample_id: first, index_digest, ..entry })
    }

    async fn index(&self, entry: &ShardEntry) -> Result<ShardIndex, RunStateError> {
        let bytes = self.store.get(&entry.index).await.map_err(self.gone(&entry.index))?;
        let index = ShardIndex::decode(&bytes);
        index.map_err(|error| self.changed(&entry.index, format!("is no index: {error}")))
    }
}

fn first_id(index: &ShardIndex) -> SampleId {
    index.sample_ids().next().unwrap_or(SampleId(0))
}

fn digest_of(index: &ShardIndex) -> Digest {
    Digest(*blake3::hash(&index.encode()).as_bytes())
}
