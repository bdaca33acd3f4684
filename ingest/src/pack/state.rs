use std::collections::BTreeMap;
use std::ops::Range;

use fastclip_schemas::{Digest, MANIFEST_FILE, Manifest, ShardEntry};
use fastclip_shards::{Store, StoreError, StoreErrorKind};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::{PackError, REJECTED_FILE, SIZES_FILE};
use crate::rejection::Rejection;

/// Folder in the output that exists while a dataset is unfinished.
const FOLDER: &str = "pack-state";

/// Key of the settings in the manifest's facts about the source.
const MANIFEST_KEY: &str = "pack";

/// What a shard was made of; written when the shard is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardRecord {
    pub(super) shard: ShardEntry,
    /// Rows that ended in this shard or were passed over on the way.
    pub(super) rows: Range<u64>,
    pub(super) num_other_split: u64,
    pub(super) rejected: Vec<Rejection>,
}

/// What an output holds.
#[derive(Debug)]
pub(super) enum Existing {
    Nothing,
    /// A manifest, which is written last.
    Finished(Box<Manifest>),
    /// The settings of a run that did not end.
    Unfinished(serde_json::Value),
    /// Files that cannot be continued, for example tars of another program.
    Foreign(String),
}

/// The memory of a run, beside its shards.
#[derive(Debug)]
pub(super) struct State<'a> {
    store: &'a Store,
}

impl<'a> State<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Looks at what is there.
    pub(super) async fn existing(&self) -> Result<Existing, PackError> {
        if let Some(text) = self.read(MANIFEST_FILE).await? {
            return Ok(match Manifest::from_json(&text) {
                Ok(manifest) => Existing::Finished(Box::new(manifest)),
                Err(_) => Existing::Foreign(format!("a `{MANIFEST_FILE}` that cannot be read")),
            });
        }
        let name = settings_file();
        if let Some(text) = self.read(&name).await? {
            return Ok(match serde_json::from_slice(&text) {
                Ok(settings) => Existing::Unfinished(settings),
                Err(_) => Existing::Foreign(format!("a `{name}` that cannot be read")),
            });
        }
        let objects = self.store.list().await.map_err(self.failed("list the files"))?;
        let shard = objects.into_iter().find(|object| object.name.ends_with(".tar"));
        Ok(shard.map_or(Existing::Nothing, |shard| Existing::Foreign(format!("`{}`", shard.name))))
    }

    /// Remembers the settings, before the first shard.
    pub(super) async fn begin(&self, settings: &Settings) -> Result<(), PackError> {
        let text = serde_json::to_vec_pretty(settings).expect("settings are text and numbers");
        self.write(&settings_file(), text).await
    }

    /// Remembers a complete shard.
    pub(super) async fn add(&self, number: usize, record: &ShardRecord) -> Result<(), PackError> {
        let text = serde_json::to_vec(record).expect("a record is text and numbers");
        self.write(&record_file(number), text).await
    }

    /// Reads what was remembered about a shard.
    pub(super) async fn record(&self, number: usize) -> Result<Option<ShardRecord>, PackError> {
        let name = record_file(number);
        let Some(text) = self.read(&name).await? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|error| self.changed(&name, error.to_string()))
    }

    /// Reads everything that was remembered and checks it against the shards.
    ///
    /// Sizes and indexes of all shards are checked, and the whole of the newest, which was being written closest to
    /// whatever ended the run. Reading the others again would take as long as packing them; `ingest verify` does it.
    pub(super) async fn records(&self) -> Result<Vec<ShardRecord>, PackError> {
        let mut records: Vec<ShardRecord> = Vec::new();
        while let Some(record) = self.record(records.len()).await? {
            let entry = &record.shard;
            let expected_start = records.last().map_or(0, |last| last.rows.end);
            if record.rows.start != expected_start {
                let problem = format!("starts at row {}, expected {expected_start}", record.rows.start);
                return Err(self.changed(&record_file(records.len()), problem));
            }
            let found = self.store.num_bytes(&entry.name).await.map_err(self.gone(&entry.name))?;
            if found != entry.num_bytes {
                let problem = format!("has {found} bytes, {} were written", entry.num_bytes);
                return Err(self.changed(&entry.name, problem));
            }
            self.check_digest(&entry.index, entry.index_digest).await?;
            records.push(record);
        }
        if let Some(ShardRecord { shard, .. }) = records.last() {
            self.check_digest(&shard.name, shard.digest).await?;
        }
        Ok(records)
    }

    async fn check_digest(&self, name: &str, expected: Digest) -> Result<(), PackError> {
        let stream = self.store.stream(name).await.map_err(self.gone(name))?;
        let hasher = stream.try_fold(blake3::Hasher::new(), |mut hasher, piece| async move {
            hasher.update(&piece);
            Ok(hasher)
        });
        let found =
            Digest(*hasher.await.map_err(self.failed(&format!("read `{name}`")))?.finalize().as_bytes());
        if found != expected {
            return Err(self.changed(name, format!("has digest {found}, {expected} was written")));
        }
        Ok(())
    }

    /// Forgets everything, once the manifest says it all.
    pub(super) async fn end(&self) -> Result<(), PackError> {
        let prefix = format!("{FOLDER}/");
        for object in self.store.list().await.map_err(self.failed("list the files"))? {
            if object.name.starts_with(&prefix) {
                self.delete(&object.name).await?;
            }
        }
        Ok(())
    }

    /// Removes a dataset of ours, the manifest first: from then on nobody takes what is left for a dataset.
    pub(super) async fn remove_dataset(&self) -> Result<(), PackError> {
        self.delete(MANIFEST_FILE).await?;
        self.end().await?;
        for object in self.store.list().await.map_err(self.failed("list the files"))? {
            let is_ours = match object.name.rsplit_once('.') {
                Some((stem, "tar" | "idx")) => {
                    stem.len() >= 5 && stem.bytes().all(|byte| byte.is_ascii_digit())
                }
                _ => [SIZES_FILE, REJECTED_FILE].contains(&object.name.as_str()),
            };
            if is_ours {
                self.delete(&object.name).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn write(&self, name: &str, bytes: impl Into<bytes::Bytes>) -> Result<(), PackError> {
        self.store.put(name, bytes).await.map_err(self.failed(&format!("write `{name}`")))
    }

    async fn read(&self, name: &str) -> Result<Option<bytes::Bytes>, PackError> {
        self.store.get_if_there(name).await.map_err(self.failed(&format!("read `{name}`")))
    }

    async fn delete(&self, name: &str) -> Result<(), PackError> {
        self.store.delete(name).await.map_err(self.failed(&format!("remove `{name}`")))
    }

    pub(super) fn failed(&self, action: &str) -> impl FnOnce(StoreError) -> PackError + use<> {
        let (location, action) = (self.store.location().to_owned(), action.to_owned());
        |source| PackError::Store { action, location, source }
    }

    fn gone(&self, name: &str) -> impl FnOnce(StoreError) -> PackError {
        let changed = self.changed(name, "is not there any more".to_owned());
        let failed = self.failed(&format!("read `{name}`"));
        |source| if source.kind() == StoreErrorKind::NotFound { changed } else { failed(source) }
    }

    fn changed(&self, name: &str, problem: String) -> PackError {
        PackError::Changed { location: self.store.location().to_owned(), name: name.to_owned(), problem }
    }
}

fn settings_file() -> String {
    format!("{FOLDER}/settings.json")
}

fn record_file(number: usize) -> String {
    format!("{FOLDER}/{number:05}.json")
}

/// Facts for the manifest: the settings, so that a second run knows that there is nothing to do, and what became of the
/// rows.
pub(super) fn manifest_source(
    input: String,
    settings: &Settings,
    counts: &[(&str, u64)],
) -> BTreeMap<String, serde_json::Value> {
    let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into()));
    let facts = [("input".to_owned(), input.into()), (MANIFEST_KEY.to_owned(), settings.to_json())];
    facts.into_iter().chain(counts).collect()
}

/// Settings that a finished dataset was packed with, if `ingest pack` made it.
pub(super) fn settings_of(manifest: &Manifest) -> Option<&serde_json::Value> {
    manifest.source.get(MANIFEST_KEY)
}

/// A count that [`manifest_source`] wrote.
pub(super) fn count_of(manifest: &Manifest, name: &str) -> u64 {
    manifest.source.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0)
}
