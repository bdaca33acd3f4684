use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fastclip_shards::{Store, StoreError, StoreErrorKind};

use super::SourceError;
use super::stored_file::StoredFile;
use crate::runtime::wait_for;

/// A file of the input, on this machine or in an object store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Path or URL. Of a file on this machine it is what is opened.
    path: PathBuf,
    /// The store that has it and the name that it has there.
    stored: Option<(Store, String)>,
}

impl Place {
    pub(super) fn local(path: PathBuf) -> Self {
        Self { path, stored: None }
    }

    pub(super) fn stored(store: Store, name: String) -> Self {
        let path = PathBuf::from(format!("{}/{name}", store.location()));
        Self { path, stored: Some((store, name)) }
    }

    /// Path or URL without credentials.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it lies in, if that is on this machine.
    pub(super) fn local_folder(&self) -> Option<&Path> {
        match self.stored {
            Some(_) => None,
            None => Some(self.path.parent().unwrap_or(Path::new(""))),
        }
    }

    /// The file that is called so from the folder of this one.
    pub(super) fn beside(&self, relative: &str) -> Self {
        match &self.stored {
            None => Self::local(self.path.parent().unwrap_or(Path::new("")).join(relative)),
            Some((store, name)) => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let name = format!("{folder}/{relative}");
                Self::stored(store.clone(), name.trim_start_matches('/').to_owned())
            }
        }
    }

    /// Opens it to be read from its beginning.
    pub(super) fn open(&self) -> Result<Box<dyn Read + Send>, SourceError> {
        match &self.stored {
            None => Ok(Box::new(self.open_local()?)),
            Some(_) => Ok(Box::new(self.open_stored(1)?.reader(0))),
        }
    }

    /// Whether it is certain that there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        self.stored.is_none() && !self.path.exists()
    }

    pub(super) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    pub(super) fn open_local(&self) -> Result<File, SourceError> {
        File::open(&self.path).map_err(|source| SourceError::read(&self.path, source))
    }

    /// Opens a stored file to be read at so many places at a time.
    ///
    /// # Panics
    /// When it is on this machine.
    pub(super) fn open_stored(&self, num_places: usize) -> Result<StoredFile, SourceError> {
        let (store, name) = self.stored.as_ref().expect("the file is in a store");
        let failed = |source| SourceError::store(&self.path, source);
        StoredFile::open(store.clone(), name.clone(), num_places).map_err(failed)
    }

    /// Reads all of it, if it has no more than `max_bytes`.
    pub(crate) fn read(&self, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let Some((store, name)) = &self.stored else { return read_local(&self.path, max_bytes) };
        let num_bytes = wait_for(store.num_bytes(name))??;
        if num_bytes > max_bytes {
            return Err(ReadError::TooLarge { num_bytes });
        }
        Ok(wait_for(store.get(name))??.to_vec())
    }
}

/// Equal places have the same path; how a store is reached is no part of it.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

/// Why a file was not read as a whole.
#[derive(Debug)]
pub(crate) enum ReadError {
    Missing,
    TooLarge { num_bytes: u64 },
    Failed(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::NotFound => Self::Missing,
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn read_local(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
    // Asked before opening: opening a pipe would wait for somebody to write into it.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(ReadError::Failed("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, in case the file grows while it is read.
    File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadError::TooLarge { num_bytes: metadata.len() });
    }
    Ok(bytes)
}
