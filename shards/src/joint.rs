//! Several datasets as one, and some shards as a dataset.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};

use crate::dataset::{Dataset, Member, Shared, decompressions};
use crate::error::ReadError;

/// One of the datasets that were joined.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetPart {
    /// Where it lies, without credentials.
    pub location: String,
    /// Its shards, by their numbers in the joined manifest.
    pub shards: Range<usize>,
    /// Its sample ids. Not each of them must belong to a sample.
    pub sample_ids: Range<u64>,
}

impl Dataset {
    /// Puts datasets one after the other. Each becomes a [part](Self::parts); one alone stays as it is.
    ///
    /// Sample ids of each dataset are counted from where those of the one before it end, so an id keeps its meaning as long as
    /// the datasets before it stay what they are. A dataset may come twice, and its samples then have two ids. The first cache
    /// that one of them reads through is that of all.
    ///
    /// # Errors
    /// When there are more ids than numbers.
    ///
    /// # Panics
    /// Without any dataset.
    pub fn join(datasets: Vec<Self>) -> Result<Self, ReadError> {
        assert!(!datasets.is_empty(), "something has to be joined");
        let mut datasets = datasets;
        if datasets.len() == 1 {
            return Ok(datasets.remove(0));
        }
        let mut shared = Shared {
            location: datasets.iter().map(Self::location).collect::<Vec<_>>().join("::"),
            members: Vec::new(),
            joint: None,
            digest: Digest([0; 32]),
            parts: Vec::with_capacity(datasets.len()),
            decompressions: decompressions(),
        };
        let mut shards: Vec<ShardEntry> = Vec::new();
        let (mut num_samples, mut num_sample_ids) = (0_u64, 0_u64);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"fastclip joint datasets 1\n");
        for dataset in &datasets {
            hasher.update(&dataset.shared.digest.0);
            let (first_shard, first_id) = (shards.len(), num_sample_ids);
            let manifest = dataset.manifest();
            num_sample_ids = first_id
                .checked_add(manifest.num_sample_ids)
                .ok_or_else(|| ReadError::TooManyIds { location: dataset.location().to_owned(), first_id })?;
            for member in &dataset.shared.members {
                shared.members.push(Member {
                    first_shard: first_shard + member.first_shard,
                    first_id: first_id + member.first_id,
                    ..member.clone()
                });
                shards.extend(member.manifest.shards.iter().map(|entry| ShardEntry {
                    name: format!("{}/{}", member.store.location(), entry.name),
                    first_sample_id: SampleId(first_id + member.first_id + entry.first_sample_id.0),
                    ..entry.clone()
                }));
            }
            num_samples += manifest.num_samples;
            shared.parts.push(DatasetPart {
                location: dataset.location().to_owned(),
                shards: first_shard..shards.len(),
                sample_ids: first_id..num_sample_ids,
            });
        }
        shared.digest = Digest(*hasher.finalize().as_bytes());
        shared.joint = Some(Manifest {
            format_version: MANIFEST_FORMAT_VERSION,
            created_by: String::new(),
            num_samples,
            num_sample_ids,
            shards,
            source: BTreeMap::new(),
        });
        let cache = datasets.into_iter().find_map(|dataset| dataset.cache);
        Ok(Self { shared: Arc::new(shared), cache })
    }

    /// Keeps the shards of these names, in the order of the manifest. Sample ids stay what they are.
    ///
    /// # Errors
    /// When there is no shard of such a name.
    ///
    /// # Panics
    /// When the dataset was joined from several.
    pub(crate) fn select(self, names: &[String]) -> Result<Self, ReadError> {
        let [member] = &self.shared.members[..] else {
            panic!("shards are selected before datasets are joined")
        };
        let mut wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut manifest = Manifest::clone(&member.manifest);
        manifest.shards.retain(|entry| wanted.remove(entry.name.as_str()));
        if let Some(name) = names.iter().find(|name| wanted.contains(name.as_str())) {
            let (location, name) = (self.location().to_owned(), name.clone());
            return Err(ReadError::NoShard { location, name });
        }
        manifest.num_samples = manifest.shards.iter().map(|entry| u64::from(entry.num_samples)).sum();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"fastclip shards of a dataset 1\n").update(&self.shared.digest.0);
        for entry in &manifest.shards {
            hasher.update(entry.name.as_bytes()).update(b"\n");
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        Ok(Self::of_member(member.store.clone(), manifest, digest))
    }
}
