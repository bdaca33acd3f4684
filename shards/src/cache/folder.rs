use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::CacheError;
use super::entry::{EntryKey, HEADER_BYTES};
use super::ledger::Ledger;
use super::sweep::sweep;

const LEDGER: &str = "fastclip-cache";
/// How long to wait for the lock. Whoever holds it longer removes many entries; going on without keeping a block is cheaper.
const PATIENCE: Duration = Duration::from_secs(1);
/// When there is no room, one part in so many is freed at once: finding the oldest entries means looking at all.
const FREED_PART: u64 = 8;

/// Files with entries, in 256 folders by the start of their name.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    max_bytes: u64,
    /// Files of this process that were to become entries.
    num_started: AtomicU64,
    /// Whether the lock was not to be had in time when it was last wanted.
    is_busy: AtomicBool,
}

/// Why an entry was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Missing,
    /// It was removed. Says what it was instead of an entry.
    Damaged(String),
}

impl Folder {
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Folder { folder: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let ledger = path.join(LEDGER);
        let is_cache = || Ledger::is_at(&ledger).map_err(failed);
        if !is_cache()? {
            let is_empty = fs::read_dir(path).map_err(failed)?.next().is_none();
            // Asked again: another process may have begun in between.
            if !is_empty && !is_cache()? {
                return Err(CacheError::Foreign { folder: path.to_owned() });
            }
            Ledger::create(&ledger).map_err(failed)?;
        }
        // Whether files can be written and locked here is known before a run starts, not in its middle.
        Ledger::lock(&ledger, PATIENCE).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            max_bytes,
            num_started: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, key: EntryKey) -> PathBuf {
        self.path.join(key.folder_name()).join(key.file_name())
    }

    /// Content of an entry, whose length is known.
    pub(super) fn read(&self, key: EntryKey, num_bytes: u64) -> Result<Vec<u8>, Unread> {
        let path = self.file(key);
        // Whatever else keeps it from being opened says nothing about what it holds.
        let file = File::open(&path).map_err(|_| Unread::Missing)?;
        match content(&file, key, num_bytes) {
            Ok(content) => Ok(content),
            Err(reason) => {
                // Should it stay, it is found damaged again.
                let _ = fs::remove_file(path);
                Err(Unread::Damaged(reason))
            }
        }
    }

    /// Keeps an entry, unless it is there, or the lock is not to be had in time.
    pub(super) fn write(&self, key: EntryKey, content: &[u8]) -> io::Result<()> {
        let path = self.file(key);
        let Some((mut file, begun)) = self.begin(&path, HEADER_BYTES + content.len() as u64)? else {
            return Ok(());
        };
        let written = file.write_all(&key.header(content)).and_then(|()| file.write_all(content));
        match written.and_then(|()| fs::rename(&begun, path)) {
            // Removed by a process that needed the room at once.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => {
                let _ = fs::remove_file(begun);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Makes room for an entry, and its file under another name, which has its full size from the start: so it counts.
    fn begin(&self, path: &Path, num_bytes: u64) -> io::Result<Option<(File, PathBuf)>> {
        fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
        // Waited for once, not for every entry: whoever holds it may have been stopped for good.
        let patience = if self.is_busy.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        let ledger = Ledger::lock(&self.path.join(LEDGER), patience)?;
        self.is_busy.store(ledger.is_none(), Ordering::Relaxed);
        let Some(mut ledger) = ledger else { return Ok(None) };
        let Some(most) = self.max_bytes.checked_sub(num_bytes).filter(|_| !path.exists()) else {
            return Ok(None);
        };
        let total = match ledger.total()? {
            Some(total) if total <= most => total,
            _ => sweep(&self.path, most, most.saturating_sub(self.max_bytes / FREED_PART))?,
        };
        ledger.set_total(total + num_bytes)?;
        let begun = loop {
            let number = self.num_started.fetch_add(1, Ordering::Relaxed);
            let begun = path.with_extension(format!("{:x}-{number:x}", process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&begun) {
                Ok(file) => break (file, begun),
                // Left by a process that had our number, or has it on another machine.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        if let Err(error) = begun.0.set_len(num_bytes) {
            let _ = fs::remove_file(begun.1);
            return Err(error);
        }
        Ok(Some(begun))
    }
}

/// Content of an open entry, which is marked as used; else what is wrong with it.
fn content(mut file: &File, key: EntryKey, num_bytes: u64) -> Result<Vec<u8>, String> {
    let text = |error: io::Error| error.to_string();
    let (found, expected) = (file.metadata().map_err(text)?.len(), HEADER_BYTES + num_bytes);
    if found != expected {
        return Err(format!("of {found} bytes instead of {expected}"));
    }
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact(&mut header).map_err(text)?;
    let mut content = Vec::with_capacity(num_bytes as usize);
    file.take(num_bytes).read_to_end(&mut content).map_err(text)?;
    if header != key.header(&content) {
        return Err("whose checksum is another one".to_owned());
    }
    // A cache of another user may be read only. It then forgets what was used.
    let _ = file.set_modified(SystemTime::now());
    Ok(content)
}
