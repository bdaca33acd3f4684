//! From tars of other programs to a dataset: `ingest index`.

mod error;
mod indexed;
mod memory;
mod report;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use fastclip_schemas::{MANIFEST_FILE, MANIFEST_FORMAT_VERSION, Manifest};
use fastclip_shards::{Compression, ShardIndex, Store, StoreError, StoredObject};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::IndexError;
pub use report::IndexReport;

use indexed::Indexed;
use memory::{IndexMemory, IndexRecord};

use crate::progress::Progress;
use crate::runtime::runtime;
use crate::scan::{JsonKeys, ScannedShard, scan};
use crate::stop::Stop;

/// Where the sample ids came from, among the manifest's facts about the source.
const IDS: &str = "ids";

/// How many shards were taken or left out in spite of damage, among the same.
pub(crate) const DAMAGED: &str = "damaged-shards";

/// Which tars to index, and how.
#[derive(Debug, Clone)]
pub struct IndexOptions {
    /// Folder with the tars; indexes and manifest are written beside them.
    pub location: Store,
    /// Where sample ids come from.
    pub ids: IdSource,
    /// Keeps the whole samples around the damage of a shard instead of refusing it, and leaves out shards without samples.
    pub skip_damaged: bool,
    /// Replaces a manifest that is there.
    pub overwrite: bool,
    /// Shards read at the same time.
    pub threads: NonZeroUsize,
    /// Program and version, for the manifest.
    pub created_by: String,
}

/// Where sample ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdSource {
    /// Counted from 0, in the order of the shards' names.
    Dense,
    /// The number in field `key` of each sample's JSON member, as the Python FastCLIP takes them.
    JsonKey,
}

impl IdSource {
    /// As the command line and manifests call it.
    fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::JsonKey => "json-key",
        }
    }
}

/// Makes indexes and a manifest for tars that another program wrote, without changing them.
///
/// Every byte is read once, for the digests. The manifest is written last; until then a record of each complete shard lies
/// beside them, so that the same call goes on after any end without reading a shard again that has not changed since.
/// Facts about the source that a manifest before it had are kept.
///
/// # Errors
/// On the first tar that is damaged or empty, unless these are skipped; when ids are missing or repeated; when the store
/// refuses.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
pub fn index(options: &IndexOptions, progress: &Progress, stop: &Stop) -> Result<IndexReport, IndexError> {
    let runtime = runtime(options.threads).map_err(IndexError::Start)?;
    let report = runtime.block_on(index_all(options, progress, stop));
    progress.finish();
    report
}

async fn index_all(
    options: &IndexOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<IndexReport, IndexError> {
    let store = &options.location;
    let objects = store.list().await.map_err(failed(store, "list the files"))?;
    if !options.overwrite && objects.iter().any(|object| object.name == MANIFEST_FILE) {
        return Err(IndexError::Occupied { location: store.location().to_owned() });
    }
    let memory = IndexMemory::new(options, &objects);
    let shards: Vec<_> =
        objects.into_iter().filter(|object| Compression::is_shard_name(&object.name)).collect();
    progress.set_total(shards.len() as u64);
    let mut reading =
        stream::iter(&shards).map(|shard| read(options, &memory, shard)).buffered(options.threads.get());
    let mut dataset = Indexed::new(options.ids, options.skip_damaged);
    let mut num_recalled = 0;
    let mut num_read = 0;
    while let Some((object, read)) = reading.try_next().await? {
        if stop.is_requested() {
            return Err(IndexError::Stopped { num_shards: num_read });
        }
        num_read += 1;
        let shard = match read {
            Read::Recalled(record, index) if dataset.goes_on(&record) => {
                dataset.add(record, index.as_ref(), &[])?;
                num_recalled += 1;
                progress.advance(1, 0);
                continue;
            }
            // A shard before it is another one now, so that its ids are.
            Read::Recalled(..) => scan_shard(options, object).await?,
            Read::Scanned(shard) => shard,
        };
        progress.advance(1, shard.num_bytes);
        let (record, index) = dataset.index(&object.name, &shard)?;
        dataset.add(record.clone(), index.as_ref(), &shard.samples)?;
        if let (Some(entry), Some(index)) = (&record.entry, &index) {
            let written = store.put(&entry.index, index.encode()).await;
            written.map_err(failed(store, &format!("write `{}`", entry.index)))?;
        }
        memory.remember(object, record).await.map_err(failed(store, "write what is done"))?;
    }
    drop(reading);
    if dataset.shards.is_empty() {
        return Err(IndexError::NoShards { location: store.location().to_owned() });
    }
    let report = IndexReport {
        location: store.location().to_owned(),
        num_shards: dataset.shards.len(),
        num_recalled,
        num_samples: dataset.num_samples,
        num_sample_ids: dataset.num_sample_ids,
        num_without_image: dataset.num_without_image,
        num_without_text: dataset.num_without_text,
        left_out: dataset.left_out,
    };
    let mut source = earlier_facts(store).await?;
    source.insert(IDS.to_owned(), options.ids.name().into());
    source.remove(DAMAGED);
    if !report.left_out.is_empty() {
        source.insert(DAMAGED.to_owned(), report.left_out.len().into());
    }
    let manifest = Manifest {
        format_version: MANIFEST_FORMAT_VERSION,
        created_by: options.created_by.clone(),
        num_samples: report.num_samples,
        num_sample_ids: report.num_sample_ids,
        shards: dataset.shards,
        source,
    };
    let written = store.put(MANIFEST_FILE, manifest.to_json()).await;
    written.map_err(failed(store, &format!("write `{MANIFEST_FILE}`")))?;
    memory.forget(&shards).await.map_err(failed(store, "remove what an earlier run left"))?;
    Ok(report)
}

/// What is known of a shard.
enum Read {
    /// By what an earlier run left.
    Recalled(IndexRecord, Option<ShardIndex>),
    Scanned(ScannedShard),
}

async fn read<'a>(
    options: &IndexOptions,
    memory: &IndexMemory<'_>,
    shard: &'a StoredObject,
) -> Result<(&'a StoredObject, Read), IndexError> {
    let recalled = memory.recall(shard).await;
    let recalled = recalled.map_err(failed(&options.location, "read what an earlier run left"))?;
    Ok((
        shard,
        match recalled {
            Some((record, index)) => Read::Recalled(record, index),
            None => Read::Scanned(scan_shard(options, shard).await?),
        },
    ))
}

async fn scan_shard(options: &IndexOptions, shard: &StoredObject) -> Result<ScannedShard, IndexError> {
    let json_keys = match options.ids {
        IdSource::Dense => JsonKeys::Ignore,
        IdSource::JsonKey => JsonKeys::Read,
    };
    let scanned = tokio::spawn(scan(options.location.clone(), shard.name.clone(), json_keys, ())).await;
    let scanned = scanned.expect("a scan neither panics nor is cancelled");
    let (scanned, ()) = scanned.map_err(failed(&options.location, &format!("read `{}`", shard.name)))?;
    Ok(scanned)
}

/// What a manifest that is to be replaced says about the source. A better list of shards does not change where they came from.
async fn earlier_facts(store: &Store) -> Result<BTreeMap<String, Value>, IndexError> {
    let text = store.get_if_there(MANIFEST_FILE).await;
    let text = text.map_err(failed(store, &format!("read `{MANIFEST_FILE}`")))?;
    let manifest = text.and_then(|text| Manifest::from_json(&text).ok());
    Ok(manifest.map(|manifest| manifest.source).unwrap_or_default())
}

fn failed(store: &Store, action: &str) -> impl FnOnce(StoreError) -> IndexError + use<> {
    let (location, action) = (store.location().to_owned(), action.to_owned());
    |source| IndexError::Store { action, location, source }
}
