//! What a command remembers beside the shards while its dataset is unfinished.
//!
//! Settings are written before the first shard, a record after each one that is complete, and all is forgotten when the
//! manifest says the same. So the same command can go on after any end, another is refused by the setting that differs,
//! and nothing that is complete is done again.

mod claim;
mod ids;
mod input;

use std::collections::BTreeMap;

use fastclip_schemas::zero_shot::{CLASS_NAMES_FILE, TEMPLATES_FILE};
use fastclip_schemas::{Digest, MANIFEST_FILE, Manifest, ShardEntry};
use fastclip_shards::{Store, StoreError, StoreErrorKind};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use claim::CLAIMS_FOLDER;
pub(crate) use input::path_in;

use crate::duplicates::Duplicates;
use crate::{REJECTED_FILE, SIZES_FILE};

/// Small files that are asked for, or removed, at a time.
pub(crate) const REQUESTS_AT_A_TIME: usize = 32;

/// Folders that exist while a dataset is unfinished.
const STATE_FOLDERS: [&str; 4] = ["download-state", "pack-state", "reshard-state", "retry-state"];

/// Holds the settings of a run, beside its records.
const SETTINGS_FILE: &str = "settings.json";

/// What to do if the output is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    /// Leave it alone and say so.
    Refuse,
    /// Go on where an earlier run with the same input and settings ended. Starts anew where there is none.
    Resume,
    /// Remove it first.
    Overwrite,
}

impl OnExisting {
    /// What the flags `--resume` and `--overwrite` mean, of which at most one is given.
    pub fn of_flags(is_resume: bool, is_overwrite: bool) -> Self {
        match (is_resume, is_overwrite) {
            (true, _) => Self::Resume,
            (_, true) => Self::Overwrite,
            _ => Self::Refuse,
        }
    }
}

/// Why a dataset cannot be begun, continued or written beside its shards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunStateError {
    /// A file that goes with the dataset cannot be read or written.
    #[error("could not {action} of `{location}`")]
    Store {
        /// What was to be done, for example ``write `manifest.json` ``.
        action: String,
        /// The output without credentials.
        location: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The output holds something, and nobody said what to do about it.
    #[error("`{location}` already holds {what}")]
    Occupied {
        /// The output without credentials.
        location: String,
        /// What was found there.
        what: String,
        /// Whether `--resume` would do.
        is_resumable: bool,
    },
    /// The input lies where the output goes.
    #[error("`{location}` already holds `{name}`, which is input")]
    HoldsInput {
        /// The output without credentials.
        location: String,
        /// Name of a file in the output that is read.
        name: String,
    },
    /// What lies in the output was made in another way.
    #[error("`{location}` was made in another way: {}", differences.join("; "))]
    OtherSettings {
        /// The output without credentials.
        location: String,
        /// Each setting that differs, with both values.
        differences: Vec<String>,
    },
    /// A shard that was complete is not any more.
    #[error("cannot resume in `{location}`: `{name}` {problem}")]
    Changed {
        /// The output without credentials.
        location: String,
        /// The file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl RunStateError {
    /// Whether the request or the input is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.kind() == StoreErrorKind::Location,
            Self::Occupied { .. }
            | Self::HoldsInput { .. }
            | Self::OtherSettings { .. }
            | Self::Changed { .. } => true,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store { .. } => None,
            Self::Occupied { is_resumable: true, .. } => {
                Some("continue with --resume, or replace it with --overwrite")
            }
            Self::Occupied { is_resumable: false, .. } => {
                Some("choose another folder, or replace what is there with --overwrite")
            }
            Self::HoldsInput { .. } => {
                Some("choose another folder: files of the dataset would take the place of the input")
            }
            Self::OtherSettings { .. } => {
                Some("use the same input and settings, or replace it with --overwrite")
            }
            Self::Changed { .. } => Some("put the file back, or replace the dataset with --overwrite"),
        }
    }
}

/// What an output holds.
#[derive(Debug)]
enum Existing {
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
pub(crate) struct RunState<'a> {
    store: &'a Store,
    command: &'static str,
    /// Whether other processes may be writing to the same output.
    is_shared: bool,
    /// The manifest that was there when it began. Another one means that the dataset was finished without this process.
    began_with: Option<Digest>,
}

/// Where a command begins.
#[derive(Debug)]
pub(crate) enum Start {
    /// After what it remembers, which may be nothing.
    Here,
    /// At the end: the very dataset is there.
    Finished(Box<Manifest>),
}

impl<'a> RunState<'a> {
    /// The memory of the subcommand of this name.
    pub(crate) fn new(store: &'a Store, command: &'static str) -> Self {
        Self { store, command, is_shared: false, began_with: None }
    }

    /// The same where any number of processes write to one output.
    pub(crate) fn shared(store: &'a Store, command: &'static str) -> Self {
        Self { store, command, is_shared: true, began_with: None }
    }

    /// The same beside the dataset of a manifest with this digest.
    pub(crate) fn beside(self, manifest: Digest) -> Self {
        Self { began_with: Some(manifest), ..self }
    }

    pub(crate) fn store(&self) -> &'a Store {
        self.store
    }

    /// Decides what to do about what is there, and remembers the settings.
    pub(crate) async fn start(
        &self,
        settings: &Value,
        on_existing: OnExisting,
    ) -> Result<Start, RunStateError> {
        let occupied = |what: &str, is_resumable| {
            let location = self.store.location().to_owned();
            Err(RunStateError::Occupied { location, what: what.to_owned(), is_resumable })
        };
        match (self.existing().await?, on_existing) {
            (Existing::Nothing, _) => {}
            (_, OnExisting::Overwrite) => self.remove_dataset().await?,
            (Existing::Foreign(what), _) => return occupied(&what, false),
            (Existing::Finished(manifest), OnExisting::Resume) => {
                let Some(there) = manifest.source.get(self.command) else {
                    let what = format!("a dataset that `ingest {}` did not make", self.command);
                    return occupied(&what, false);
                };
                self.compare(settings, there)?;
                // A run that ended between the manifest and its last clean-up leaves records behind.
                self.end().await?;
                return Ok(Start::Finished(manifest));
            }
            (Existing::Unfinished(there), OnExisting::Resume) => self.compare(settings, &there)?,
            (Existing::Finished(_), OnExisting::Refuse) => return occupied("a dataset", true),
            (Existing::Unfinished(_), OnExisting::Refuse) => return occupied("an unfinished dataset", true),
        }
        if !self.is_shared {
            self.remove_broken_uploads("", |_| true)?;
        }
        self.write_settings(settings).await?;
        Ok(Start::Here)
    }

    pub(crate) async fn write_settings(&self, settings: &Value) -> Result<(), RunStateError> {
        let text = serde_json::to_vec_pretty(settings).expect("settings are text and numbers");
        self.write(&self.settings_file(), text).await
    }

    /// The settings of a run that did not end.
    pub(crate) async fn settings<S: DeserializeOwned>(&self) -> Result<Option<S>, RunStateError> {
        self.read_json(&self.settings_file()).await
    }

    /// Reads the manifest, if the dataset is finished.
    pub(crate) async fn manifest(&self) -> Result<Option<Manifest>, RunStateError> {
        let Some(text) = self.read(MANIFEST_FILE).await? else { return Ok(None) };
        Manifest::from_json(&text)
            .map(Some)
            .map_err(|error| self.changed(MANIFEST_FILE, format!("cannot be used: {error}")))
    }

    /// Digest of the manifest's bytes, if there is one.
    pub(crate) async fn manifest_digest(&self) -> Result<Option<Digest>, RunStateError> {
        let text = self.read(MANIFEST_FILE).await?;
        Ok(text.map(|text| Digest(*blake3::hash(&text).as_bytes())))
    }

    fn compare(&self, settings: &Value, there: &Value) -> Result<(), RunStateError> {
        let differences = differences(settings, there);
        if differences.is_empty() {
            return Ok(());
        }
        Err(RunStateError::OtherSettings { location: self.store.location().to_owned(), differences })
    }

    /// Looks at what is there.
    async fn existing(&self) -> Result<Existing, RunStateError> {
        if let Some(text) = self.read(MANIFEST_FILE).await? {
            return Ok(match Manifest::from_json(&text) {
                Ok(manifest) => Existing::Finished(Box::new(manifest)),
                Err(_) => Existing::Foreign(format!("a `{MANIFEST_FILE}` that cannot be read")),
            });
        }
        let name = self.settings_file();
        if let Some(text) = self.read(&name).await? {
            return Ok(match serde_json::from_slice(&text) {
                Ok(settings) => Existing::Unfinished(settings),
                Err(_) => Existing::Foreign(format!("a `{name}` that cannot be read")),
            });
        }
        let objects = self.store.list().await.map_err(self.failed("list the files"))?;
        let Some(shard) = objects.into_iter().find(|object| object.name.ends_with(".tar")) else {
            return Ok(Existing::Nothing);
        };
        // Another part may have begun in between, and be so fast.
        Ok(match self.settings().await? {
            Some(settings) => Existing::Unfinished(settings),
            None => Existing::Foreign(format!("`{}`", shard.name)),
        })
    }

    /// Remembers a complete shard.
    pub(crate) async fn add(&self, number: u64, record: &impl Serialize) -> Result<(), RunStateError> {
        self.write_json(&self.record_file(number), record).await
    }

    /// Remembers which images of a shard later ones are compared with. Comes before its record.
    pub(crate) async fn add_seen(&self, number: u64, entries: Vec<u8>) -> Result<(), RunStateError> {
        self.write(&self.seen_file(number), entries).await
    }

    /// Remembers the images of a complete shard again.
    pub(crate) async fn restore_seen(&self, number: u64, seen: &mut Duplicates) -> Result<(), RunStateError> {
        let name = self.seen_file(number);
        let Some(entries) = self.read(&name).await? else {
            return Err(self.changed(&name, "is not there any more".to_owned()));
        };
        if seen.restore(&entries) {
            return Ok(());
        }
        Err(self.changed(&name, format!("has {} bytes, which are no whole entries", entries.len())))
    }

    /// Reads what was remembered about a shard.
    pub(crate) async fn record<R: DeserializeOwned>(&self, number: u64) -> Result<Option<R>, RunStateError> {
        self.read_json(&self.record_file(number)).await
    }

    /// Remembers something else than settings and shards.
    pub(crate) async fn add_note(&self, name: &str, note: &impl Serialize) -> Result<(), RunStateError> {
        self.write_json(&self.note_file(name), note).await
    }

    /// Reads what was remembered under this name.
    pub(crate) async fn note<N: DeserializeOwned>(&self, name: &str) -> Result<Option<N>, RunStateError> {
        self.read_json(&self.note_file(name)).await
    }

    /// Checks that a record goes on where the one before ended.
    pub(crate) fn check_start(&self, number: u64, found: u64, expected: u64) -> Result<(), RunStateError> {
        if found == expected {
            return Ok(());
        }
        Err(self.changed(&self.record_file(number), format!("starts at row {found}, expected {expected}")))
    }

    /// Checks the size of a complete shard and the whole of its index.
    pub(crate) async fn check_shard(&self, entry: &ShardEntry) -> Result<(), RunStateError> {
        self.check_size(entry).await?;
        self.check_digest(&entry.index, entry.index_digest).await
    }

    async fn check_size(&self, entry: &ShardEntry) -> Result<(), RunStateError> {
        let found = self.store.num_bytes(&entry.name).await.map_err(self.gone(&entry.name))?;
        if found != entry.num_bytes {
            let problem = format!("has {found} bytes, {} were written", entry.num_bytes);
            return Err(self.changed(&entry.name, problem));
        }
        Ok(())
    }

    /// Checks that a shard was made with the settings of this digest.
    pub(crate) fn check_made_with(
        &self,
        number: u64,
        found: Digest,
        expected: Digest,
    ) -> Result<(), RunStateError> {
        if found == expected {
            return Ok(());
        }
        Err(self.changed(&self.record_file(number), "belongs to other settings".to_owned()))
    }

    /// Reads a whole file and compares it with what was written.
    pub(crate) async fn check_digest(&self, name: &str, expected: Digest) -> Result<(), RunStateError> {
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

    /// Forgets a shard, so that it is made again.
    pub(crate) async fn forget(&self, number: u64) -> Result<(), RunStateError> {
        self.delete(&self.record_file(number)).await
    }

    /// Forgets everything, once the manifest says it all. The settings go last, so that what was not forgotten belongs to something.
    pub(crate) async fn end(&self) -> Result<(), RunStateError> {
        self.remove_broken_uploads("", |_| true)?;
        self.end_folder(&self.folder()).await
    }

    async fn end_folder(&self, folder: &str) -> Result<(), RunStateError> {
        for folder in [format!("{folder}/{CLAIMS_FOLDER}"), folder.to_owned()] {
            self.remove_broken_uploads(&folder, |_| true)?;
        }
        let settings_file = format!("{folder}/{SETTINGS_FILE}");
        let files = self.store.list_below(folder).await.map_err(self.failed("list the records"))?;
        let names = files.into_iter().map(|file| file.name).filter(|name| *name != settings_file);
        self.delete_all(names).await?;
        self.delete(&settings_file).await
    }

    /// Removes a dataset of ours, the manifest first: from then on nobody takes what is left for a dataset.
    async fn remove_dataset(&self) -> Result<(), RunStateError> {
        self.delete(MANIFEST_FILE).await?;
        for folder in STATE_FOLDERS {
            self.end_folder(folder).await?;
        }
        let files = self.store.list().await.map_err(self.failed("list the files"))?;
        self.delete_all(files.into_iter().map(|file| file.name).filter(|name| is_ours(name))).await
    }

    async fn delete_all(&self, names: impl Iterator<Item = String>) -> Result<(), RunStateError> {
        let deletions = names.map(|name| async move { self.delete(&name).await });
        stream::iter(deletions).buffer_unordered(REQUESTS_AT_A_TIME).try_collect().await
    }

    /// Removes what processes that were killed left half written in a folder. Beside the shards there may be files of others.
    pub(crate) fn remove_broken_uploads(
        &self,
        folder: &str,
        is_broken: impl Fn(&str) -> bool,
    ) -> Result<(), RunStateError> {
        let is_broken = |name: &str| (!folder.is_empty() || is_written(name)) && is_broken(name);
        self.store.remove_broken_uploads(folder, is_broken).map_err(self.failed("remove broken uploads"))
    }

    /// Writes how many samples each shard has, as OpenCLIP reads it.
    pub(crate) async fn write_sizes(&self, shards: &[ShardEntry]) -> Result<(), RunStateError> {
        let sizes: BTreeMap<_, _> = shards.iter().map(|shard| (&shard.name, shard.num_samples)).collect();
        let sizes = serde_json::to_vec_pretty(&sizes).expect("sizes are numbers");
        self.write(SIZES_FILE, sizes).await
    }

    pub(crate) async fn write(
        &self,
        name: &str,
        bytes: impl Into<bytes::Bytes>,
    ) -> Result<(), RunStateError> {
        self.store.put(name, bytes).await.map_err(self.failed(&format!("write `{name}`")))
    }

    async fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), RunStateError> {
        let text = serde_json::to_vec(value).expect("what is remembered is text and numbers");
        self.write(name, text).await
    }

    async fn read_json<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>, RunStateError> {
        let Some(text) = self.read(name).await? else { return Ok(None) };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| self.changed(name, format!("cannot be used: {error}")))
    }

    async fn read(&self, name: &str) -> Result<Option<bytes::Bytes>, RunStateError> {
        self.store.get_if_there(name).await.map_err(self.failed(&format!("read `{name}`")))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), RunStateError> {
        self.store.delete(name).await.map_err(self.failed(&format!("remove `{name}`")))
    }

    pub(crate) fn failed(&self, action: &str) -> impl FnOnce(StoreError) -> RunStateError + use<> {
        let (location, action) = (self.store.location().to_owned(), action.to_owned());
        |source| RunStateError::Store { action, location, source }
    }

    fn gone(&self, name: &str) -> impl FnOnce(StoreError) -> RunStateError {
        let changed = self.changed(name, "is not there any more".to_owned());
        let failed = self.failed(&format!("read `{name}`"));
        |source| if source.kind() == StoreErrorKind::NotFound { changed } else { failed(source) }
    }

    fn changed(&self, name: &str, problem: String) -> RunStateError {
        RunStateError::Changed { location: self.store.location().to_owned(), name: name.to_owned(), problem }
    }

    /// Folder in the output that exists while a dataset is unfinished.
    fn folder(&self) -> String {
        format!("{}-state", self.command)
    }

    fn settings_file(&self) -> String {
        format!("{}/{SETTINGS_FILE}", self.folder())
    }

    fn note_file(&self, name: &str) -> String {
        format!("{}/{name}.json", self.folder())
    }

    fn seen_file(&self, number: u64) -> String {
        format!("{}/{number:05}.seen", self.folder())
    }

    fn record_file(&self, number: u64) -> String {
        format!("{}/{number:05}.json", self.folder())
    }
}

/// Whether one of the commands gives files of a dataset such a name.
fn is_ours(name: &str) -> bool {
    let number = [".tar", ".idx", ".parquet", "_stats.json"].iter().find_map(|end| name.strip_suffix(end));
    match number {
        Some(number) => number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit()),
        None => [SIZES_FILE, REJECTED_FILE].contains(&name),
    }
}

/// Whether one of the commands writes a file of this name beside the shards. Further files that `pack` copies may have any.
fn is_written(name: &str) -> bool {
    is_ours(name) || [MANIFEST_FILE, CLASS_NAMES_FILE, TEMPLATES_FILE].contains(&name)
}

/// Every setting that `there` has another value for.
fn differences(here: &Value, there: &Value) -> Vec<String> {
    let here = here.as_object().expect("settings are a struct");
    let differing = here.iter().filter(|(name, value)| there.get(name) != Some(value));
    let described = differing.map(|(name, value)| match name.as_str() {
        "input-digest" => "the input has changed".to_owned(),
        _ => format!("{name} is {} there and {value} here", there.get(name).unwrap_or(&Value::Null)),
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn a_dataset_is_removed_with_all_that_belongs_to_it_and_nothing_else() {
        for name in ["00000.tar", "00012.idx", "123456.parquet", "00001_stats.json", "sizes.json"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["0001.tar", "cc3m.parquet", "stats.json", "_stats.json", "00000.json", "a/00000.tar"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
