use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use fastclip_schemas::{Digest, MANIFEST_FILE};
use fastclip_shards::{
    Compression, Dataset, ReadError, SampleRun, ShardIndex, Store, StoreError, StoreOptions,
};

use super::unindexed::UnindexedSamples;
use crate::pack::PackError;
use crate::run_state::path_in;
use crate::runtime::wait_for;

/// Bytes of a shard that are fetched at a time, as far as a single sample does not have more.
const RUN_BYTES: u64 = 16 << 20;

/// A sample of the input: its members, or why it cannot be read.
#[derive(Debug)]
pub(super) struct StoredSample {
    /// Counted over all shards, from 0.
    pub(super) number: u64,
    /// Shard and key, for messages.
    pub(super) name: String,
    /// Extension and data of each member, in their order.
    pub(super) members: Result<Vec<(String, Vec<u8>)>, String>,
}

/// Samples in the order of the shards.
pub(super) type Samples = Box<dyn Iterator<Item = Result<StoredSample, PackError>> + Send>;

/// The shards of the input.
#[derive(Debug)]
pub(super) enum Shards {
    Dataset(Dataset),
    /// Tars that no manifest speaks of, sorted by name.
    Tars {
        store: Store,
        names: Vec<String>,
        digest: Digest,
    },
}

impl Shards {
    pub(super) fn open(location: &str, options: &StoreOptions) -> Result<Self, PackError> {
        let opened = waited(location, Dataset::open_with(location, options))?;
        match opened {
            Ok(dataset) => Ok(Self::Dataset(dataset)),
            Err(error @ ReadError::NoManifest { .. }) => Self::without_manifest(location, options, error),
            Err(error) => Err(error.into()),
        }
    }

    fn without_manifest(
        location: &str,
        options: &StoreOptions,
        no_manifest: ReadError,
    ) -> Result<Self, PackError> {
        // Of several datasets, each needs a manifest, and so do shards that are named.
        let Ok(store) = Store::open(location, options) else { return Err(no_manifest.into()) };
        let failed = |source| PackError::Store { location: store.location().to_owned(), source };
        let mut tars = waited(location, store.list())?.map_err(failed)?;
        tars.retain(|file| Compression::is_shard_name(&file.name));
        if tars.is_empty() {
            return Err(no_manifest.into());
        }
        let mut digest = blake3::Hasher::new();
        for tar in &tars {
            // Names hold no NUL, so name and size cannot run into each other.
            digest.update(tar.name.as_bytes()).update(&[0]).update(&tar.num_bytes.to_le_bytes());
        }
        let digest = Digest(*digest.finalize().as_bytes());
        Ok(Self::Tars { store, names: tars.into_iter().map(|tar| tar.name).collect(), digest })
    }

    /// Of the manifest, or of names and sizes.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Dataset(dataset) => dataset.manifest_digest(),
            Self::Tars { digest, .. } => *digest,
        }
    }

    /// Paths or URLs of the shards and of their manifests.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Dataset(dataset) => {
                let shards = (0..dataset.manifest().shards.len()).map(|shard| dataset.stored_shard(shard));
                let files = shards
                    .flat_map(|(store, entry)| [MANIFEST_FILE, &entry.name].map(|name| path_in(store, name)));
                // Most shards have the same manifest.
                files.collect::<BTreeSet<_>>().into_iter().collect()
            }
            Self::Tars { store, names, .. } => names.iter().map(|name| path_in(store, name)).collect(),
        }
    }

    pub(super) fn location(&self) -> &str {
        match self {
            Self::Dataset(dataset) => dataset.location(),
            Self::Tars { store, .. } => store.location(),
        }
    }

    /// Name for the manifest.
    pub(super) fn name(&self) -> String {
        self.location().rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_owned()
    }

    /// Known from a manifest only.
    pub(super) fn num_samples(&self) -> Option<u64> {
        match self {
            Self::Dataset(dataset) => Some(dataset.manifest().num_samples),
            Self::Tars { .. } => None,
        }
    }

    /// Reads the samples from number `first` on. Without a manifest, those before it are read, too.
    pub(super) fn samples(&self, first: u64) -> Samples {
        match self {
            Self::Dataset(dataset) => dataset_samples(dataset.clone(), first),
            Self::Tars { store, names, .. } => {
                let (store, names) = (store.clone(), names.clone());
                let samples =
                    names.into_iter().flat_map(move |name| UnindexedSamples::new(store.clone(), name));
                let numbered = (0..).zip(samples).map(|(number, sample)| {
                    let (name, members) = sample?;
                    Ok(StoredSample { number, name, members: Ok(members) })
                });
                Box::new(numbered.filter(move |sample: &Result<StoredSample, _>| {
                    sample.as_ref().map_or(true, |sample| sample.number >= first)
                }))
            }
        }
    }
}

/// What a store says, or why it could not be asked.
pub(super) fn waited<T>(location: &str, future: impl Future<Output = T>) -> Result<T, PackError> {
    let location = location.to_owned();
    wait_for(future).map_err(|error| PackError::Store { location, source: StoreError::from(error) })
}

fn dataset_samples(dataset: Dataset, first: u64) -> Samples {
    let mut start = 0;
    let shards: Vec<(usize, u64)> = dataset
        .manifest()
        .shards
        .iter()
        .enumerate()
        .map(|(shard, entry)| {
            let first = start;
            start += u64::from(entry.num_samples);
            (shard, first)
        })
        .collect();
    let ends: Vec<u64> = shards.iter().skip(1).map(|(_, first)| *first).chain([start]).collect();
    let shards = shards.into_iter().zip(ends).filter(move |(_, end)| *end > first);
    Box::new(shards.flat_map(move |((shard, start), _)| {
        let skipped = u32::try_from(first.saturating_sub(start)).unwrap_or(u32::MAX);
        match shard_samples(&dataset, shard, start, skipped) {
            Ok(samples) => samples,
            Err(error) => Box::new(std::iter::once(Err(error))) as Samples,
        }
    }))
}

fn shard_samples(dataset: &Dataset, shard: usize, start: u64, skipped: u32) -> Result<Samples, PackError> {
    let index = waited(dataset.location(), dataset.index(shard))??;
    let dataset = dataset.clone();
    let runs = runs(&index, skipped).into_iter();
    Ok(Box::new(runs.flat_map(move |samples| {
        let run = waited(dataset.location(), dataset.fetch(shard, &index, samples));
        let run = run.and_then(|run| Ok(run?));
        let (run, error) = match run {
            Ok(run) => (Some(run), None),
            Err(error) => (None, Some(Err(error))),
        };
        let positions = run.as_ref().map_or(0..0, SampleRun::samples);
        let samples =
            positions.filter_map(move |position| run.as_ref().map(|run| sample(run, position, start)));
        samples.map(Ok).chain(error)
    })))
}

/// Neighbouring samples of about [`RUN_BYTES`].
fn runs(index: &ShardIndex, skipped: u32) -> Vec<Range<u32>> {
    let mut runs = Vec::new();
    let mut start = skipped;
    while start < index.len() {
        let mut end = start + 1;
        while end < index.len()
            && index.byte_range(start..end + 1).end - index.byte_range(start..end).start <= RUN_BYTES
        {
            end += 1;
        }
        runs.push(start..end);
        start = end;
    }
    runs
}

fn sample(run: &SampleRun, position: u32, start: u64) -> StoredSample {
    let number = start + u64::from(position);
    match run.sample(position) {
        Ok(sample) => {
            let members = sample.members().map(|(extension, data)| (extension.to_owned(), data.to_vec()));
            let name = format!("{}/{}", run.shard_name(), sample.key());
            StoredSample { number, name, members: Ok(members.collect()) }
        }
        Err(error) => {
            let name = format!("{}/{position}", run.shard_name());
            StoredSample { number, name, members: Err(error.to_string()) }
        }
    }
}
