use std::collections::BTreeSet;

use fastclip_schemas::{Digest, ShardEntry};
use fastclip_shards::{ShardIndex, Store, StoreError, StoredObject};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{IdSource, IndexOptions};

/// Folder beside the shards that exists while their dataset is unfinished.
const FOLDER: &str = "index-state";

/// Files that are removed at the same time.
const REMOVED_AT_ONCE: usize = 32;

/// What is remembered of a shard, so that it need not be read again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexRecord {
    /// Tells whether the shard has changed since.
    pub(super) version: String,
    /// Where its ids came from; nothing in a record that was never stored.
    pub(super) ids: Option<IdSource>,
    /// Nothing where it has no samples.
    pub(super) entry: Option<ShardEntry>,
    pub(super) num_without_image: u64,
    pub(super) num_without_text: u64,
    /// What is wrong with it, where that was tolerated.
    pub(super) left_out: Option<String>,
}

/// What is remembered beside the shards until there is a manifest: a file for each that is complete. A record is found by
/// the name of its shard, and holds as long as the shard is the same file.
#[derive(Debug)]
pub(super) struct IndexMemory<'a> {
    store: &'a Store,
    ids: IdSource,
    skip_damaged: bool,
    there: BTreeSet<String>,
}

impl<'a> IndexMemory<'a> {
    /// Finds what an earlier run left among the files of the store.
    pub(super) fn new(options: &'a IndexOptions, objects: &[StoredObject]) -> Self {
        let prefix = format!("{FOLDER}/");
        let names = objects.iter().filter(|object| object.name.starts_with(&prefix));
        Self {
            store: &options.location,
            ids: options.ids,
            skip_damaged: options.skip_damaged,
            there: names.map(|object| object.name.clone()).collect(),
        }
    }

    /// What is remembered of a shard, with its index. Nothing if that is no longer true, or was made in another way.
    pub(super) async fn recall(
        &self,
        shard: &StoredObject,
    ) -> Result<Option<(IndexRecord, Option<ShardIndex>)>, StoreError> {
        let name = record_name(&shard.name);
        if !self.there.contains(&name) {
            return Ok(None);
        }
        let Some(text) = self.store.get_if_there(&name).await? else { return Ok(None) };
        // One that a newer or older program wrote is as good as none.
        let Ok(record) = serde_json::from_slice::<IndexRecord>(&text) else { return Ok(None) };
        let is_tolerated = record.left_out.is_none() || self.skip_damaged;
        if record.version != shard.version || record.ids != Some(self.ids) || !is_tolerated {
            return Ok(None);
        }
        let Some(entry) = &record.entry else { return Ok(Some((record, None))) };
        let Some(index) = self.store.get_if_there(&entry.index).await? else { return Ok(None) };
        if Digest(*blake3::hash(&index).as_bytes()) != entry.index_digest {
            return Ok(None);
        }
        let index = ShardIndex::decode(&index).ok();
        Ok(index.map(|index| (record, Some(index))))
    }

    /// Remembers a shard whose index is stored.
    pub(super) async fn remember(&self, shard: &StoredObject, record: IndexRecord) -> Result<(), StoreError> {
        let record = IndexRecord { version: shard.version.clone(), ids: Some(self.ids), ..record };
        let text = serde_json::to_vec(&record).expect("a record is text and numbers");
        self.store.put(&record_name(&shard.name), text).await
    }

    /// Forgets these shards and everything else, once the manifest says it all.
    pub(super) async fn forget(self, shards: &[StoredObject]) -> Result<(), StoreError> {
        let mut names = self.there;
        names.extend(shards.iter().map(|shard| record_name(&shard.name)));
        let store = self.store;
        let removed = stream::iter(names).map(|name| async move { store.delete(&name).await });
        removed.buffer_unordered(REMOVED_AT_ONCE).try_collect().await
    }
}

fn record_name(shard: &str) -> String {
    format!("{FOLDER}/{shard}.json")
}
