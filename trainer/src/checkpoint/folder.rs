//! The checkpoints of a run: where they are, which is the newest, which are kept.
//!
//! A checkpoint is a folder of files, of which `checkpoint.json` is written last. On a local disk it is also written
//! beside its place and renamed, so that a folder without `.partial` is complete for whoever lists it. `latest` names
//! the one that was written last, which need not be the one with most steps: a run may have gone back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastclip_shards::{Store, StoreError, StoreErrorKind, StoreOptions};
use tokio::runtime::{self, Runtime};

use super::contents::{CONTENTS_FILE, Contents, FileRecord};
use super::error::{CheckpointError, io_error};
use super::saved::Saved;

const LATEST_FILE: &str = "latest";
const PARTIAL: &str = ".partial";

/// Which checkpoints stay when a newer one is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest; at least one.
    pub last: std::num::NonZeroUsize,
    /// And those after a multiple of so many steps.
    pub every_steps: Option<std::num::NonZeroU64>,
}

/// The checkpoints of a run, in a folder or an object store. Clones share it.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    store: Store,
    runtime: Arc<Runtime>,
    folder: Option<PathBuf>,
    keep: Keep,
}

pub(super) fn name_of(steps: u64) -> String {
    format!("step_{steps:08}")
}

fn steps_of(name: &str) -> Option<u64> {
    name.strip_prefix("step_")?.parse().ok()
}

fn name_in(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Starts what waits for stores.
pub(super) fn start_runtime() -> Result<Runtime, CheckpointError> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(CheckpointError::Start)
}

impl Checkpoints {
    /// Reaches the checkpoints of a run: a local folder, which is made if needed, or a URL.
    ///
    /// # Errors
    /// When the location is malformed or the folder cannot be made. Nothing is asked of a remote store.
    pub fn open(location: &str, keep: Keep) -> Result<Self, CheckpointError> {
        let store = Store::create(location, &StoreOptions::from_process())
            .map_err(|source| CheckpointError::Location { location: location.to_owned(), source })?;
        Self::of_store(store, keep)
    }

    /// Uses a store that the caller has built.
    ///
    /// # Errors
    /// When the system has no event loop left.
    pub fn of_store(store: Store, keep: Keep) -> Result<Self, CheckpointError> {
        let folder = store.local_folder().map(Path::to_owned);
        Ok(Self { folder, store, runtime: Arc::new(start_runtime()?), keep })
    }

    /// Where they are, fit for messages.
    pub fn location(&self) -> &str {
        self.store.location()
    }

    /// Where one of them is.
    pub fn location_of(&self, steps: u64) -> String {
        format!("{}/{}", self.location(), name_of(steps))
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Name of the folder that a checkpoint is written into.
    pub(super) fn partial_name(&self, steps: u64) -> String {
        if self.folder.is_some() { format!("{}{PARTIAL}", name_of(steps)) } else { name_of(steps) }
    }

    pub(super) fn failed(
        &self,
        action: &'static str,
        name: &str,
    ) -> impl FnOnce(StoreError) -> CheckpointError {
        let file = format!("{}/{name}", self.location());
        move |source| CheckpointError::Store { action, file, source }
    }

    /// Finds the newest complete checkpoint, by the steps after which it was written.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn newest(&self) -> Result<Option<u64>, CheckpointError> {
        self.block_on(async {
            let latest =
                self.store.get_if_there(LATEST_FILE).await.map_err(self.failed("read", LATEST_FILE))?;
            let Some(latest) = latest else { return Ok(None) };
            if let Some(steps) = steps_of(String::from_utf8_lossy(&latest).trim()) {
                let contents = format!("{}/{CONTENTS_FILE}", name_of(steps));
                match self.store.num_bytes(&contents).await {
                    Ok(_) => return Ok(Some(steps)),
                    Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                    Err(error) => return Err(self.failed("look for", &contents)(error)),
                }
            }
            // It was being replaced by one of the same step when the run was killed.
            Ok(self.complete().await?.into_iter().next_back())
        })
    }

    /// Like [`Checkpoints::newest`], where there must be one.
    ///
    /// # Errors
    /// Also when there is none.
    pub fn latest(&self) -> Result<u64, CheckpointError> {
        self.newest()?.ok_or_else(|| CheckpointError::Nothing { location: self.location().to_owned() })
    }

    /// Finds the steps after which one of these checkpoints was written, if that is what a location names, be it there or
    /// not.
    pub fn steps_at(&self, location: &str) -> Option<u64> {
        let location = location.trim_end_matches('/');
        let Some(folder) = &self.folder else {
            return steps_of(location.strip_prefix(self.location())?.strip_prefix('/')?);
        };
        let path = Path::new(location.strip_prefix("file://").unwrap_or(location));
        let path = fs::canonicalize(path)
            .or_else(|_| {
                fs::canonicalize(path.parent().unwrap_or(path)).map(|parent| parent.join(name_in(path)))
            })
            .ok()?;
        let is_here = path.parent() == Some(&fs::canonicalize(folder).ok()?);
        steps_of(name_in(&path)).filter(|_| is_here)
    }

    /// Makes a checkpoint the newest, whatever was written after it: the run has gone back to it.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn go_back_to(&self, steps: u64) -> Result<(), CheckpointError> {
        if self.newest()? == Some(steps) {
            return Ok(());
        }
        self.block_on(self.name_latest(&name_of(steps)))
    }

    /// Opens the checkpoint that was written after so many steps.
    ///
    /// # Errors
    /// When it is not there, not complete, or of another version.
    pub fn saved(&self, steps: u64) -> Result<Saved, CheckpointError> {
        Saved::of_store(self.store.clone(), Arc::clone(&self.runtime), &name_of(steps))
    }

    /// Steps of the complete checkpoints, in rising order.
    async fn complete(&self) -> Result<Vec<u64>, CheckpointError> {
        let files = self.files().await?;
        let complete = files.iter().filter(|(_, files)| files.iter().any(|file| file == CONTENTS_FILE));
        let mut steps: Vec<u64> = complete.filter_map(|(folder, _)| steps_of(folder)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Files of all checkpoints, complete or not, by folder.
    async fn files(&self) -> Result<BTreeMap<String, Vec<String>>, CheckpointError> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for object in self.store.list().await.map_err(self.failed("list", ""))? {
            if let Some((folder, file)) = object.name.split_once('/')
                && steps_of(folder.trim_end_matches(PARTIAL)).is_some()
            {
                found.entry(folder.to_owned()).or_default().push(file.to_owned());
            }
        }
        Ok(found)
    }

    /// Prepares for a session: removes what killed ones left unfinished, and makes sure that checkpoints can be written,
    /// rather than finding out after hours.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn prepare(&self) -> Result<(), CheckpointError> {
        const PROBE: &str = ".writable";
        self.block_on(async {
            self.store.put(PROBE, "").await.map_err(self.failed("write", PROBE))?;
            self.store.delete(PROBE).await.map_err(self.failed("remove", PROBE))?;
            if let Some(folder) = &self.folder {
                return remove_partial_folders(folder);
            }
            for (folder, files) in self.files().await? {
                if !files.iter().any(|file| file == CONTENTS_FILE) {
                    self.remove_files(&folder, files).await?;
                }
            }
            Ok(())
        })
    }

    /// Removes all checkpoints, for a run that starts over.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn remove_all(&self) -> Result<(), CheckpointError> {
        self.block_on(async {
            self.store.delete(LATEST_FILE).await.map_err(self.failed("remove", LATEST_FILE))?;
            for (folder, files) in self.files().await? {
                self.remove_files(&folder, files).await?;
            }
            Ok(())
        })
    }

    /// Makes a checkpoint complete, names it, and removes those that are not kept.
    pub(super) async fn publish(&self, steps: u64, files: Vec<FileRecord>) -> Result<(), CheckpointError> {
        let (name, partial) = (name_of(steps), self.partial_name(steps));
        let contents = format!("{partial}/{CONTENTS_FILE}");
        let text = Contents::new(files).to_bytes();
        self.store.put(&contents, text).await.map_err(self.failed("write", &contents))?;
        if let Some(folder) = &self.folder {
            replace_folder(&folder.join(&partial), &folder.join(&name))?;
        }
        self.name_latest(&name).await
    }

    async fn name_latest(&self, name: &str) -> Result<(), CheckpointError> {
        let written = self.store.put(LATEST_FILE, format!("{name}\n")).await;
        written.map_err(self.failed("write", LATEST_FILE))
    }

    /// Makes room for a checkpoint that is about to be written where no folder can be renamed: one of the same step, from
    /// before the run went back, stops being complete first.
    pub(super) async fn make_room(&self, steps: u64) -> Result<(), CheckpointError> {
        if self.folder.is_some() {
            return Ok(());
        }
        let contents = format!("{}/{CONTENTS_FILE}", name_of(steps));
        self.store.delete(&contents).await.map_err(self.failed("remove", &contents))
    }

    /// Removes what was written of a checkpoint that will not be complete.
    pub(super) async fn abandon(&self, steps: u64) -> Result<(), CheckpointError> {
        let partial = self.partial_name(steps);
        let files = self.files().await?.remove(&partial).unwrap_or_default();
        self.remove_files(&partial, files).await
    }

    /// Removes old checkpoints, now that a newer one is complete.
    ///
    /// Those with more steps stay: the run has gone back behind them and may not come as far again.
    pub(super) async fn remove_old(&self, newest: u64) -> Result<(), CheckpointError> {
        let mut files = self.files().await?;
        let complete = files.iter().filter(|(_, files)| files.iter().any(|file| file == CONTENTS_FILE));
        let mut steps: Vec<u64> = complete.filter_map(|(folder, _)| steps_of(folder)).collect();
        steps.retain(|&steps| steps <= newest);
        steps.sort_unstable();
        let num_old = steps.len().saturating_sub(self.keep.last.get());
        let is_kept =
            |steps: u64| self.keep.every_steps.is_some_and(|every| steps.is_multiple_of(every.get()));
        for &steps in steps[..num_old].iter().filter(|&&steps| !is_kept(steps)) {
            let name = name_of(steps);
            let files = files.remove(&name).unwrap_or_default();
            self.remove_files(&name, files).await?;
        }
        Ok(())
    }

    /// Removes the files of a folder, or the folder; at no moment does half of it look complete.
    async fn remove_files(&self, folder: &str, mut files: Vec<String>) -> Result<(), CheckpointError> {
        if let Some(root) = &self.folder {
            let (mut path, partial) = (root.join(folder), root.join(format!("{folder}{PARTIAL}")));
            if !folder.ends_with(PARTIAL) {
                remove_if_there(&partial)?;
                fs::rename(&path, &partial).map_err(io_error("rename", &path))?;
                path = partial;
            }
            return remove_if_there(&path);
        }
        files.sort_by_key(|file| file != CONTENTS_FILE);
        for file in files {
            let name = format!("{folder}/{file}");
            self.store.delete(&name).await.map_err(self.failed("remove", &name))?;
        }
        Ok(())
    }
}

/// Renames a folder; one that is in the way is removed when the new one is in its place.
fn replace_folder(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    let parent = to.parent().unwrap_or(to);
    sync_folder(from)?;
    let mut aside = to.as_os_str().to_owned();
    aside.push(format!(".old{PARTIAL}"));
    let aside = PathBuf::from(aside);
    remove_if_there(&aside)?;
    match fs::rename(to, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("rename", to)(error)),
        _ => {}
    }
    fs::rename(from, to).map_err(io_error("rename", from))?;
    sync_folder(parent)?;
    remove_if_there(&aside)
}

fn remove_partial_folders(folder: &Path) -> Result<(), CheckpointError> {
    let read = |error| io_error("read", folder)(error);
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_name().to_string_lossy().ends_with(PARTIAL) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(folder: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_knows_its_own_checkpoints_by_whatever_path_they_are_named() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let keep = Keep { last: std::num::NonZeroUsize::MIN, every_steps: None };
        let own = Checkpoints::open(&path("own"), keep).unwrap();
        fs::create_dir_all(path("own/step_00000007")).unwrap();
        fs::create_dir_all(path("other/step_00000007")).unwrap();
        assert_eq!(own.steps_at(&path("own/step_00000007/")), Some(7));
        assert_eq!(own.steps_at(&path("other/../own/step_00000007")), Some(7));
        assert_eq!(own.steps_at(&path("own/step_00000008")), Some(8), "it may be gone");
        for other in ["own", "own/best", "other/step_00000007", "nowhere/step_00000007"] {
            assert_eq!(own.steps_at(&path(other)), None, "{other}");
        }
    }

    #[test]
    fn who_goes_back_names_the_checkpoint_that_is_the_newest_from_then_on() {
        let root = tempfile::tempdir().unwrap();
        let keep = Keep { last: std::num::NonZeroUsize::MIN, every_steps: None };
        let checkpoints = Checkpoints::open(root.path().to_str().unwrap(), keep).unwrap();
        for steps in [100, 200] {
            fs::create_dir_all(root.path().join(checkpoints.partial_name(steps))).unwrap();
            checkpoints.block_on(checkpoints.publish(steps, Vec::new())).unwrap();
        }
        assert_eq!(checkpoints.newest().unwrap(), Some(200));
        checkpoints.go_back_to(100).unwrap();
        assert_eq!(checkpoints.newest().unwrap(), Some(100));
    }
}
