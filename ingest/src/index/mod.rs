//! From tars of other programs to a dataset: `ingest index`.

mod error;
mod report;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;

use fastclip_schemas::{Digest, MANIFEST_FILE, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};
use fastclip_shards::{Compression, IndexBuilder, Store};
use futures::{StreamExt, TryStreamExt, stream};

pub use error::IndexError;
pub use report::IndexReport;

use crate::progress::Progress;
use crate::runtime::runtime;
use crate::scan::{Damage, ScannedSample, ScannedShard, scan};
use crate::stop::Stop;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdSource {
    /// Counted from 0, in the order of the shards' names.
    Dense,
    /// The number in field `key` of each sample's JSON member, as the Python FastCLIP takes them.
    JsonKey,
}

/// Makes indexes and a manifest for tars that another program wrote, without changing them.
///
/// Every byte is read once, for the digests. The manifest is written last.
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
    let failed = |action: &str| {
        let (location, action) = (store.location().to_owned(), action.to_owned());
        |source| IndexError::Store { action, location, source }
    };
    let objects = store.list().await.map_err(failed("list the files"))?;
    if !options.overwrite && objects.iter().any(|object| object.name == MANIFEST_FILE) {
        return Err(IndexError::Occupied { location: store.location().to_owned() });
    }
    let names: Vec<_> = objects
        .into_iter()
        .map(|object| object.name)
        .filter(|name| Compression::is_shard_name(name))
        .collect();
    progress.set_total(names.len() as u64);
    let mut scans = stream::iter(names)
        .map(|name| async {
            let scanned = tokio::spawn(scan(store.clone(), name.clone())).await;
            let scanned = scanned.expect("a scan neither panics nor is cancelled");
            scanned.map_err(failed(&format!("read `{name}`"))).map(|shard| (name, shard))
        })
        .buffered(options.threads.get());

    let mut dataset = Indexed::new(options.ids);
    while let Some((name, shard)) = scans.try_next().await? {
        if stop.is_requested() {
            return Err(IndexError::Stopped { num_shards: dataset.shards.len() });
        }
        progress.advance(1, shard.num_bytes);
        if !dataset.admit(&name, &shard, options.skip_damaged)? {
            continue;
        }
        let (entry, index) = dataset.entry(&name, &shard)?;
        store.put(&entry.index, index).await.map_err(failed(&format!("write `{}`", entry.index)))?;
        dataset.shards.push(entry);
    }
    if dataset.shards.is_empty() {
        return Err(IndexError::NoShards { location: store.location().to_owned() });
    }
    let ids = match options.ids {
        IdSource::Dense => "dense",
        IdSource::JsonKey => "json-key",
    };
    let manifest = Manifest {
        format_version: MANIFEST_FORMAT_VERSION,
        created_by: options.created_by.clone(),
        num_samples: dataset.num_samples,
        num_sample_ids: dataset.num_sample_ids,
        shards: dataset.shards,
        source: BTreeMap::from([("ids".to_owned(), ids.into())]),
    };
    store
        .put(MANIFEST_FILE, manifest.to_json())
        .await
        .map_err(failed(&format!("write `{MANIFEST_FILE}`")))?;
    Ok(IndexReport {
        location: store.location().to_owned(),
        num_shards: manifest.shards.len(),
        num_samples: manifest.num_samples,
        num_sample_ids: manifest.num_sample_ids,
        num_without_image: dataset.num_without_image,
        num_without_text: dataset.num_without_text,
        left_out: dataset.left_out,
    })
}

/// The dataset so far.
struct Indexed {
    ids: IdSource,
    seen_ids: HashSet<u64>,
    shards: Vec<ShardEntry>,
    num_samples: u64,
    num_sample_ids: u64,
    num_without_image: u64,
    num_without_text: u64,
    left_out: Vec<String>,
}

impl Indexed {
    fn new(ids: IdSource) -> Self {
        Self {
            ids,
            seen_ids: HashSet::new(),
            shards: Vec::new(),
            num_samples: 0,
            num_sample_ids: 0,
            num_without_image: 0,
            num_without_text: 0,
            left_out: Vec::new(),
        }
    }

    /// Whether a shard has samples that can be used.
    fn admit(&mut self, name: &str, shard: &ScannedShard, skip_damaged: bool) -> Result<bool, IndexError> {
        let num_samples = shard.samples.len();
        let problem = match &shard.damage {
            // A file without a single byte is called empty, not cut.
            Some(damage) if shard.num_bytes > 0 => {
                let (shard, num_samples) = (name.to_owned(), damage.num_before);
                IndexError::Damaged { shard, num_samples, source: damage.cause.clone() }
            }
            _ if num_samples == 0 => IndexError::Empty { shard: name.to_owned(), num_bytes: shard.num_bytes },
            _ => return Ok(true),
        };
        if !skip_damaged {
            return Err(problem);
        }
        let more = shard.damage.as_ref().map(|Damage { cause, num_after, .. }| match num_after {
            0 => format!(": {cause}"),
            _ => format!(": {cause}; {num_after} whole samples follow it"),
        });
        self.left_out.push(format!("{problem}{}", more.unwrap_or_default()));
        Ok(num_samples > 0)
    }

    fn entry(&mut self, name: &str, shard: &ScannedShard) -> Result<(ShardEntry, Vec<u8>), IndexError> {
        let mut index = IndexBuilder::default();
        let mut first_sample_id = SampleId(u64::MAX);
        for sample in &shard.samples {
            let id = self.next_id(name, sample)?;
            let span = &sample.span;
            if !index.push(id, &span.key, span.start..span.end) {
                let (shard, key, offset) = (name.to_owned(), span.key.clone(), span.start);
                return Err(IndexError::SampleSize { shard, key, offset });
            }
            first_sample_id = first_sample_id.min(id);
            self.num_samples += 1;
            self.num_sample_ids = self.num_sample_ids.max(id.0 + 1);
            self.num_without_image += u64::from(!sample.has_image());
            self.num_without_text += u64::from(!sample.has_text_or_class());
        }
        let num_samples = index.len();
        let index = index.finish(shard.tar_bytes).encode();
        let entry = ShardEntry {
            name: name.to_owned(),
            index: format!("{}.idx", name.strip_suffix(".tar").unwrap_or(name)),
            num_samples,
            num_bytes: shard.num_bytes,
            digest: shard.digest,
            index_digest: Digest(*blake3::hash(&index).as_bytes()),
            first_sample_id,
        };
        Ok((entry, index))
    }

    fn next_id(&mut self, shard: &str, sample: &ScannedSample) -> Result<SampleId, IndexError> {
        if self.ids == IdSource::Dense {
            return Ok(SampleId(self.num_samples));
        }
        let (shard, key, offset) = (shard.to_owned(), sample.span.key.clone(), sample.span.start);
        let id = match &sample.json_key {
            Some(Ok(u64::MAX)) => Err(format!("its `key` is {}, which leaves no room for another", u64::MAX)),
            Some(found) => found.clone(),
            None => Err("it has no JSON member".to_owned()),
        };
        let id = match id {
            Ok(id) => SampleId(id),
            Err(problem) => return Err(IndexError::JsonKey { shard, key, offset, problem }),
        };
        if !self.seen_ids.insert(id.0) {
            return Err(IndexError::DuplicateId { shard, key, offset, id });
        }
        Ok(id)
    }
}
