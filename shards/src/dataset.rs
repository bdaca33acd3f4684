use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fastclip_schemas::{Digest, MANIFEST_FILE, Manifest, ShardEntry};
use futures::TryStreamExt;

use crate::compression::Compression;
use crate::error::ReadError;
use crate::index::ShardIndex;
use crate::joint::DatasetPart;
use crate::run::SampleRun;
use crate::sources::sources;
use crate::store::{Store, StoreError, StoreErrorKind, StoreOptions, without_secrets};

/// How often an answer of the wrong length is asked for again, which clients of stores take for a good one. The size of the
/// shard was compared with the manifest before, so it is the answer that is at fault.
const TRIES_FOR_LENGTH: u32 = 3;

/// A dataset that can be read: its manifest, and a way to its files. It may consist of several, one after the other.
///
/// Clones share everything. Nothing is cached: who needs an index twice keeps it.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) location: String,
    pub(crate) members: Vec<Member>,
    /// The manifest of all members together, where there are several.
    pub(crate) joint: Option<Manifest>,
    pub(crate) digest: Digest,
    pub(crate) parts: Vec<DatasetPart>,
}

/// A dataset of one manifest.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) store: Store,
    pub(crate) manifest: Arc<Manifest>,
    /// Shards of the members before it.
    pub(crate) first_shard: usize,
    /// What its sample ids are counted from.
    pub(crate) first_id: u64,
}

impl Dataset {
    /// Opens a dataset by its folder or its manifest: a local path or a URL. Credentials come from the environment, as
    /// [`StoreOptions::from_process`] describes.
    ///
    /// Several are [joined](Self::join) in the way of OpenCLIP: `a::b` are two, braces as in `data/{a,b}` or
    /// `data/{00000..00331}.tar` are expanded first. Shards that are named take part alone, in the order of their manifest,
    /// which must lie beside them.
    ///
    /// # Errors
    /// When it cannot be reached, or its manifest is missing, contradicts itself, or lacks a shard that was named. Shards are
    /// not looked at.
    pub async fn open(location: &str) -> Result<Self, ReadError> {
        Self::open_with(location, &StoreOptions::from_process()).await
    }

    /// Opens a dataset with settings other than those of the environment.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(location: &str, options: &StoreOptions) -> Result<Self, ReadError> {
        // The error's own text is clean; the location as it was typed need not be.
        let open_error = |source| ReadError::Open { location: without_secrets(location), source };
        let mut parts = Vec::new();
        for sources in sources(location).map_err(open_error)? {
            let mut datasets = Vec::with_capacity(sources.len());
            for source in sources {
                let (folder, manifest) = split_manifest(&source.location);
                let store = Store::open(folder, options).map_err(|error| ReadError::Open {
                    location: without_secrets(&source.location),
                    source: error,
                })?;
                let dataset = Self::from_store(store, manifest).await?;
                datasets.push(match source.shards {
                    None => dataset,
                    Some(shards) => dataset.select(&shards)?,
                });
            }
            parts.push(Self::join(datasets)?);
        }
        Self::join(parts)
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
        Ok(Self::of_member(store, manifest, digest))
    }

    pub(crate) fn of_member(store: Store, manifest: Manifest, digest: Digest) -> Self {
        let location = store.location().to_owned();
        let whole = DatasetPart {
            location: location.clone(),
            shards: 0..manifest.shards.len(),
            sample_ids: 0..manifest.num_sample_ids,
        };
        let member = Member { store, manifest: Arc::new(manifest), first_shard: 0, first_id: 0 };
        let shared = Shared { location, members: vec![member], joint: None, digest, parts: vec![whole] };
        Self { shared: Arc::new(shared) }
    }

    /// Where it lies, without credentials.
    pub fn location(&self) -> &str {
        &self.shared.location
    }

    /// What it consists of. The shards of joined datasets are named with their location.
    pub fn manifest(&self) -> &Manifest {
        self.shared.joint.as_ref().unwrap_or(&self.shared.members[0].manifest)
    }

    /// Digest of the manifest, and thus of all that it names. Equal digests mean equal data.
    pub fn manifest_digest(&self) -> Digest {
        self.shared.digest
    }

    /// The datasets that were joined to this one, in their order; of a single one, itself.
    pub fn parts(&self) -> &[DatasetPart] {
        &self.shared.parts
    }

    /// The store that holds a shard, and its entry with the names that it has there.
    ///
    /// # Panics
    /// When the manifest has no such shard.
    pub fn stored_shard(&self, shard: usize) -> (&Store, &ShardEntry) {
        let member = self.member(shard);
        (&member.store, &member.manifest.shards[shard - member.first_shard])
    }

    fn member(&self, shard: usize) -> &Member {
        let members = &self.shared.members;
        // Members without shards start where the next one does; the last that starts there holds it.
        &members[members.partition_point(|member| member.first_shard <= shard) - 1]
    }

    /// Reads the index of a shard, and checks index and size of the tar against the manifest.
    ///
    /// # Errors
    /// When either is missing or not what the manifest says.
    ///
    /// # Panics
    /// When the manifest has no such shard.
    pub async fn index(&self, shard: usize) -> Result<Arc<ShardIndex>, ReadError> {
        let (store, entry) = self.stored_shard(shard);
        let (bytes, found) = futures::join!(store.get(&entry.index), store.num_bytes(&entry.name));
        let bytes = bytes.map_err(|source| unreadable(store, &entry.index, source))?;
        let found = found.map_err(|source| unreadable(store, &entry.name, source))?;
        if found != entry.num_bytes {
            let (shard, expected) = (entry.name.clone(), entry.num_bytes);
            return Err(ReadError::ShardSize { shard, found, expected });
        }
        let mut index = checked_index(entry, &bytes)?;
        index.shift_ids(self.member(shard).first_id);
        Ok(Arc::new(index))
    }

    /// Reads a run of neighbouring samples with one request. A compressed shard is read and decompressed from its start to the
    /// end of the run.
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
        let (store, ShardEntry { name, .. }) = self.stored_shard(shard);
        let Range { start, end } = index.byte_range(samples.clone());
        if start == end {
            // Stores refuse an empty range.
            return Ok(SampleRun::new(name.as_str(), Arc::clone(index), samples, Bytes::new()));
        }
        let mut tries_left = TRIES_FOR_LENGTH;
        let bytes = loop {
            tries_left -= 1;
            let bytes = match Compression::of(name) {
                None => store.get_range(name, start..end).await,
                Some(compression) => decompressed_range(store, name, compression, start..end).await,
            };
            let bytes = bytes.map_err(|source| match source.kind() {
                StoreErrorKind::NotFound => unreadable(store, name, source),
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

    /// Reads a file that lies beside the manifest, such as the class names of a zero-shot set. `None` if there is none. Of
    /// joined datasets the first one is asked.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub async fn side_file(&self, name: &str) -> Result<Option<Bytes>, ReadError> {
        let store = &self.shared.members[0].store;
        store.get_if_there(name).await.map_err(|source| unreadable(store, name, source))
    }
}

fn unreadable(store: &Store, name: &str, source: StoreError) -> ReadError {
    let (location, name) = (store.location().to_owned(), name.to_owned());
    match source.kind() {
        StoreErrorKind::NotFound => ReadError::Missing { location, name },
        _ => ReadError::File { location, name, source },
    }
}

/// Reads some bytes of a compressed tar, from its start on, as there is no other way. It holds what was asked for and one
/// piece more, whatever the compressed bytes claim.
async fn decompressed_range(
    store: &Store,
    name: &str,
    compression: Compression,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    let mut pieces = compression.decompress(store.stream(name).await?);
    let mut bytes = BytesMut::new();
    let mut position = 0;
    while position < range.end {
        let Some(piece) = pieces.try_next().await? else { break };
        let end = position + piece.len() as u64;
        let (from, to) = (range.start.max(position), range.end.min(end));
        if from < to {
            bytes.extend_from_slice(&piece[(from - position) as usize..(to - position) as usize]);
        }
        position = end;
    }
    Ok(bytes.freeze())
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
    // The manifest has the size of the file, the index that of the tar.
    let tar_bytes = match Compression::of(&entry.name) {
        None => entry.num_bytes,
        Some(_) => decoded.shard_bytes(),
    };
    let fields = [
        ("num_samples", u64::from(decoded.len()), u64::from(entry.num_samples)),
        ("num_bytes", decoded.shard_bytes(), tar_bytes),
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
