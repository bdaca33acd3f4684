use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fastclip_schemas::{Digest, MANIFEST_FILE, Manifest, ShardEntry};

use crate::error::ReadError;
use crate::index::ShardIndex;
use crate::run::SampleRun;
use crate::store::{Store, StoreErrorKind, StoreOptions};

/// How often an answer of the wrong length is asked for again, which clients of stores take for a good one. The size of the
/// shard was compared with the manifest before, so it is the answer that is at fault.
const TRIES_FOR_LENGTH: u32 = 3;

/// A dataset that can be read: its manifest, and a way to its files.
///
/// Clones share everything. Nothing is cached: who needs an index twice keeps it.
#[derive(Debug, Clone)]
pub struct Dataset {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    manifest: Manifest,
    digest: Digest,
}

impl Dataset {
    /// Opens a dataset by its folder or its manifest: a local path or a URL. Credentials come from the environment, as
    /// [`StoreOptions::from_process`] describes.
    ///
    /// # Errors
    /// When it cannot be reached, or its manifest is missing or contradicts itself. Shards are not looked at.
    pub async fn open(location: &str) -> Result<Self, ReadError> {
        Self::open_with(location, &StoreOptions::from_process()).await
    }

    /// Opens a dataset with settings other than those of the environment.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(location: &str, options: &StoreOptions) -> Result<Self, ReadError> {
        let (folder, manifest) = split_manifest(location);
        let store = Store::open(folder, options).map_err(|source| ReadError::Open {
            // The error's own text is clean; the location as it was typed need not be.
            location: crate::store::without_secrets(location),
            source,
        })?;
        Self::from_store(store, manifest).await
    }

    /// Opens the dataset whose manifest has this name in a store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn from_store(store: Store, manifest: &str) -> Result<Self, ReadError> {
        let name = manifest.to_owned();
        let location = store.location().to_owned();
        let text = match store.get_if_there(&name).await {
            Ok(Some(text)) => text,
            Ok(None) => return Err(ReadError::NoManifest { location, manifest: name }),
            Err(source) => return Err(ReadError::File { location, name, source }),
        };
        let manifest = Manifest::from_json(&text).map_err(|source| ReadError::Manifest {
            location,
            manifest: name,
            source,
        })?;
        let digest = Digest(*blake3::hash(&text).as_bytes());
        Ok(Self { shared: Arc::new(Shared { store, manifest, digest }) })
    }

    /// Where it lies, without credentials.
    pub fn location(&self) -> &str {
        self.shared.store.location()
    }

    /// What it consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Digest of the manifest, and thus of all that it names. Equal digests mean equal data.
    pub fn manifest_digest(&self) -> Digest {
        self.shared.digest
    }

    /// The store with its files.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Reads the index of a shard, and checks index and size of the tar against the manifest.
    ///
    /// # Errors
    /// When either is missing or not what the manifest says.
    ///
    /// # Panics
    /// When the manifest has no such shard.
    pub async fn index(&self, shard: usize) -> Result<Arc<ShardIndex>, ReadError> {
        let entry = &self.manifest().shards[shard];
        let store = self.store();
        let (bytes, found) = futures::join!(store.get(&entry.index), store.num_bytes(&entry.name));
        let bytes = bytes.map_err(|source| self.unreadable(&entry.index, source))?;
        let found = found.map_err(|source| self.unreadable(&entry.name, source))?;
        if found != entry.num_bytes {
            let (shard, expected) = (entry.name.clone(), entry.num_bytes);
            return Err(ReadError::ShardSize { shard, found, expected });
        }
        checked_index(entry, &bytes).map(Arc::new)
    }

    /// Reads a run of neighbouring samples with one request.
    ///
    /// # Errors
    /// When the store fails, or gives fewer bytes than the index says three times over. Damage inside a sample is found by
    /// [`SampleRun::sample`].
    ///
    /// # Panics
    /// When manifest or index have no such shard or samples.
    pub async fn fetch(
        &self,
        shard: usize,
        index: &Arc<ShardIndex>,
        samples: Range<u32>,
    ) -> Result<SampleRun, ReadError> {
        let name = &self.manifest().shards[shard].name;
        let Range { start, end } = index.byte_range(samples.clone());
        if start == end {
            // Stores refuse an empty range.
            return Ok(SampleRun::new(name.as_str(), Arc::clone(index), samples, Bytes::new()));
        }
        let mut tries_left = TRIES_FOR_LENGTH;
        let bytes = loop {
            tries_left -= 1;
            let bytes = self.store().get_range(name, start..end).await;
            let bytes = bytes.map_err(|source| match source.kind() {
                StoreErrorKind::NotFound => self.unreadable(name, source),
                _ => ReadError::Fetch { shard: name.clone(), start, end, source },
            })?;
            let (found, expected) = (bytes.len() as u64, end - start);
            if found == expected {
                break bytes;
            }
            if tries_left == 0 {
                return Err(ReadError::Short { shard: name.clone(), start, found, expected });
            }
        };
        Ok(SampleRun::new(name.as_str(), Arc::clone(index), samples, bytes))
    }

    /// Reads a file that lies beside the manifest, such as the class names of a zero-shot set. `None` if there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub async fn side_file(&self, name: &str) -> Result<Option<Bytes>, ReadError> {
        self.store().get_if_there(name).await.map_err(|source| self.unreadable(name, source))
    }

    fn unreadable(&self, name: &str, source: crate::StoreError) -> ReadError {
        let (location, name) = (self.location().to_owned(), name.to_owned());
        match source.kind() {
            StoreErrorKind::NotFound => ReadError::Missing { location, name },
            _ => ReadError::File { location, name, source },
        }
    }
}

/// Decodes an index and compares it with what the manifest says about it.
fn checked_index(entry: &ShardEntry, bytes: &[u8]) -> Result<ShardIndex, ReadError> {
    let (shard, index) = (entry.name.clone(), entry.index.clone());
    let (found, expected) = (Digest(*blake3::hash(bytes).as_bytes()), entry.index_digest);
    if found != expected {
        return Err(ReadError::IndexDigest { shard, index, found, expected });
    }
    let decoded = match ShardIndex::decode(bytes) {
        Ok(decoded) => decoded,
        Err(source) => return Err(ReadError::Index { shard, index, source }),
    };
    let fields = [
        ("num_samples", u64::from(decoded.len()), u64::from(entry.num_samples)),
        ("num_bytes", decoded.shard_bytes(), entry.num_bytes),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        Some((field, found, expected)) => Err(ReadError::IndexField { shard, index, field, found, expected }),
        None => Ok(decoded),
    }
}

/// Folder and manifest name of a location, which may be either.
fn split_manifest(location: &str) -> (&str, &str) {
    if !location.ends_with(".json") {
        return (location, MANIFEST_FILE);
    }
    match location.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => (".", location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_folder_or_a_manifest() {
        assert_eq!(split_manifest("data/toy"), ("data/toy", "manifest.json"));
        assert_eq!(split_manifest("s3://b/toy/manifest.json"), ("s3://b/toy", "manifest.json"));
        assert_eq!(split_manifest("train.json"), (".", "train.json"));
        assert_eq!(split_manifest("/train.json"), ("/", "train.json"));
    }
}
