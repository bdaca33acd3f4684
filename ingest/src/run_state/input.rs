use std::path::{Path, PathBuf};

use fastclip_shards::{Compression, Store};

use super::{RunState, RunStateError, STATE_FOLDERS, is_written};

impl RunState<'_> {
    /// Refuses files of the input, by path or URL, that lie in the output where the command writes or removes something.
    pub(crate) fn refuse_input(&self, files: impl IntoIterator<Item = PathBuf>) -> Result<(), RunStateError> {
        match files.into_iter().find_map(|file| endangered_name(self.store, &file)) {
            None => Ok(()),
            Some(name) => Err(RunStateError::HoldsInput { location: self.store.location().to_owned(), name }),
        }
    }
}

/// Path or URL of a file in a store.
pub(crate) fn path_in(store: &Store, name: &str) -> PathBuf {
    match store.local_folder() {
        Some(folder) => folder.join(name),
        None => format!("{}/{name}", store.location()).into(),
    }
}

/// The name in the output of a file that is not safe there.
fn endangered_name(output: &Store, file: &Path) -> Option<String> {
    let names = match output.local_folder() {
        Some(folder) => names_in(folder, file),
        None => {
            let name = file.to_str()?.strip_prefix(output.location())?.strip_prefix('/')?;
            vec![name.to_owned()]
        }
    };
    names.into_iter().find(|name| is_endangered(name))
}

/// The names that a file has in a folder: by its own path, and by where links lead.
fn names_in(folder: &Path, file: &Path) -> Vec<String> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let parent = match file.parent() {
        Some(parent) if parent == Path::new("") => Path::new("."),
        Some(parent) => parent,
        None => return Vec::new(),
    };
    let own = parent.canonicalize().ok().zip(file.file_name()).map(|(parent, name)| parent.join(name));
    let paths = own.into_iter().chain(file.canonicalize());
    let names = paths.filter_map(|path| Some(path.strip_prefix(&folder).ok()?.to_str()?.to_owned()));
    names.collect()
}

/// Whether a file of this name may be replaced or removed, or is a shard among those that are to come.
fn is_endangered(name: &str) -> bool {
    match name.split_once('/') {
        Some((folder, _)) => STATE_FOLDERS.contains(&folder),
        None => is_written(name) || Compression::is_shard_name(name),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use fastclip_shards::StoreOptions;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn input_in_the_output_is_found_by_whatever_path() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("out/lists")).unwrap();
        fs::create_dir_all(path("other")).unwrap();
        for name in ["out/00000.parquet", "out/list.csv", "out/lists/00000.parquet", "other/00000.parquet"] {
            fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink(path("out"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("out/00000.parquet"), path("list.parquet")).unwrap();
        std::os::unix::fs::symlink(path("other/00000.parquet"), path("out/00001.parquet")).unwrap();
        let output = Store::open(path("out").to_str().unwrap(), &StoreOptions::default()).unwrap();
        let found = |name: &str| endangered_name(&output, &path(name));
        for name in ["out/00000.parquet", "other/../out/00000.parquet", "link/00000.parquet", "list.parquet"]
        {
            assert_eq!(found(name).as_deref(), Some("00000.parquet"), "{name}");
        }
        assert_eq!(found("out/00001.parquet").as_deref(), Some("00001.parquet"));
        for name in ["out/list.csv", "out/lists/00000.parquet", "other/00000.parquet", "link/list.csv"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn input_in_the_output_is_found_by_its_url() {
        let output = Store::from_object_store(Arc::new(InMemory::new()), "out").unwrap();
        let found = |file: PathBuf| endangered_name(&output, &file);
        assert_eq!(found(path_in(&output, "00000.tar")).as_deref(), Some("00000.tar"));
        assert_eq!(found(path_in(&output, "a.tar.zst")).as_deref(), Some("a.tar.zst"));
        assert_eq!(found(path_in(&output, "download-state/a.csv")).as_deref(), Some("download-state/a.csv"));
        for name in ["list.csv", "part/00000.tar"] {
            assert_eq!(found(path_in(&output, name)), None, "{name}");
        }
        assert_eq!(found(format!("{}put/00000.tar", output.location()).into()), None);
    }
}
