use std::sync::Arc;

use bytes::Bytes;
use fastclip_schemas::{Digest, MANIFEST_FILE, Manifest, ShardEntry};
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::compression::Compression;
use crate::error::ReadError;
use crate::joint::DatasetPart;
use crate::sources::sources;
use crate::store::{Store, StoreError, StoreErrorKind, StoreOptions, without_secrets};

/// Shards that are decompressed at once. A decoder may take 128 MiB.
const MAX_DECOMPRESSIONS: usize = 4;

/// Three million shards have no larger one.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// A dataset that can be read: its manifest, and a way to its files. It may consist of several, one after the other.
///
/// Clones share everything. Nothing is kept in memory: who needs an index twice keeps it.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cache: Option<Cache>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) location: String,
    pub(crate) members: Vec<Member>,
    /// The manifest of all members together, where there are several.
    pub(crate) joint: Option<Manifest>,
    pub(crate) digest: Digest,
    pub(crate) parts: Vec<DatasetPart>,
    /// Shards that may be being decompressed.
    pub(crate) decompressions: Arc<Semaphore>,
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
        let text = read_manifest(&store, &name).await.map_err(|source| match source.kind() {
            StoreErrorKind::NotFound => {
                ReadError::NoManifest { location: location.clone(), manifest: name.clone() }
            }
            _ => ReadError::File { location: location.clone(), name: name.clone(), source },
        })?;
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
        let (members, parts) = (vec![member], vec![whole]);
        let shared =
            Shared { location, members, joint: None, digest, parts, decompressions: decompressions() };
        Self { shared: Arc::new(shared), cache: None }
    }

    /// Reads indexes and shards through a cache from now on. Manifests and side files are always read from the store.
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// What it reads through.
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// Memory that decompressing shards takes at most, in bytes, over all who read this dataset: four are decompressed at a time.
    pub fn decompression_bound(&self) -> u64 {
        let compressions = self.manifest().shards.iter().filter_map(|shard| Compression::of(&shard.name));
        MAX_DECOMPRESSIONS as u64 * compressions.map(Compression::max_memory).max().unwrap_or(0)
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

    /// What the sample ids of a shard are counted from.
    pub(crate) fn first_id(&self, shard: usize) -> u64 {
        self.member(shard).first_id
    }

    fn member(&self, shard: usize) -> &Member {
        let members = &self.shared.members;
        // Members without shards start where the next one does; the last that starts there holds it.
        &members[members.partition_point(|member| member.first_shard <= shard) - 1]
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

async fn read_manifest(store: &Store, name: &str) -> Result<Bytes, StoreError> {
    let answer = store.ask(name).await?;
    let num_bytes = answer.num_bytes();
    if num_bytes > MAX_MANIFEST_BYTES {
        let message =
            format!("it has {num_bytes} bytes, where no manifest has more than {MAX_MANIFEST_BYTES}");
        return Err(StoreError::location(message));
    }
    answer.bytes().await
}

pub(crate) fn decompressions() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_DECOMPRESSIONS))
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
