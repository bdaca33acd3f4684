use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use super::entry::is_entry;

/// Counts all entries, and what was to become one, and removes those used longest ago if there are more than `most` bytes of
/// them, until at most `target` are left. Returns how many are.
///
/// Two passes, the first of which only finds the time before which all are removed: a cache of 1 TiB has a million names.
pub(super) fn sweep(folder: &Path, most: u64, target: u64) -> io::Result<u64> {
    let mut entries = Vec::new();
    walk(folder, |_, metadata| {
        entries.push((metadata.modified()?, metadata.len()));
        Ok(())
    })?;
    let mut total: u64 = entries.iter().map(|(_, num_bytes)| num_bytes).sum();
    if total <= most {
        return Ok(total);
    }
    entries.sort_unstable();
    let mut last = SystemTime::UNIX_EPOCH;
    let mut left = total;
    for (used, num_bytes) in entries {
        if left <= target {
            break;
        }
        (last, left) = (used, left - num_bytes);
    }
    walk(folder, |path, metadata| {
        // Those that were used meanwhile stay.
        if metadata.modified()? <= last {
            ignore_missing(fs::remove_file(path))?;
            total = total.saturating_sub(metadata.len());
        }
        Ok(())
    })?;
    Ok(total)
}

/// Visits all entries; those that vanish meanwhile are none.
fn walk(folder: &Path, mut visit: impl FnMut(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    for first in 0..=u8::MAX {
        let Some(files) = ignore_missing(fs::read_dir(folder.join(format!("{first:02x}"))))? else {
            continue;
        };
        for file in files {
            let file = file?;
            if !file.file_name().to_str().is_some_and(is_entry) {
                continue;
            }
            if let Some(metadata) = ignore_missing(file.metadata())? {
                visit(&file.path(), &metadata)?;
            }
        }
    }
    Ok(())
}

fn ignore_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
