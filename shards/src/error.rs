use fastclip_schemas::{Digest, ManifestError};

use crate::index::IndexError;
use crate::store::{StoreError, StoreErrorKind};
use crate::tar::{TarError, TarWriteError};

/// Why a dataset cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no store at that location, or nothing there can be reached.
    #[error("could not open the dataset `{location}`")]
    Open {
        /// The location without credentials.
        location: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The folder is there, but no manifest.
    #[error("`{location}` is no dataset: it holds no `{manifest}`")]
    NoManifest {
        /// The location without credentials.
        location: String,
        /// Name that was looked for.
        manifest: String,
    },
    /// The manifest is there, but not a manifest.
    #[error("the manifest `{manifest}` of `{location}` is unusable")]
    Manifest {
        /// The location without credentials.
        location: String,
        /// Its name.
        manifest: String,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// A file of the dataset cannot be read.
    #[error("could not read `{name}` of `{location}`")]
    File {
        /// The location without credentials.
        location: String,
        /// Name of the file.
        name: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The manifest names a shard or index that is not there.
    #[error("the manifest of `{location}` names `{name}`, which is not there")]
    Missing {
        /// The location without credentials.
        location: String,
        /// The missing file.
        name: String,
    },
    /// A shard was asked for by a name that the manifest does not have.
    #[error("the manifest of `{location}` has no shard `{name}`")]
    NoShard {
        /// The location without credentials.
        location: String,
        /// The name.
        name: String,
    },
    /// Datasets cannot be joined, as their ids would go beyond 64 bits.
    #[error("the ids of `{location}` cannot be counted from {first_id} on")]
    TooManyIds {
        /// The location without credentials.
        location: String,
        /// Number of ids before it.
        first_id: u64,
    },
    /// The tar is not the one that the manifest describes.
    #[error("shard `{shard}` has {found} bytes, the manifest says {expected}")]
    ShardSize {
        /// The shard.
        shard: String,
        /// Its size.
        found: u64,
        /// The size in the manifest.
        expected: u64,
    },
    /// The index is not the one that the manifest describes.
    #[error("index `{index}` of shard `{shard}` has digest {found}, the manifest says {expected}")]
    IndexDigest {
        /// The shard.
        shard: String,
        /// Its index.
        index: String,
        /// Digest of the file.
        found: Digest,
        /// Digest in the manifest.
        expected: Digest,
    },
    /// The index is the right one and yet unusable.
    #[error("index `{index}` of shard `{shard}` is unusable")]
    Index {
        /// The shard.
        shard: String,
        /// Its index.
        index: String,
        /// What is wrong.
        #[source]
        source: IndexError,
    },
    /// Index and manifest were not made together.
    #[error("index `{index}` of shard `{shard}` says {field} = {found}, the manifest says {expected}")]
    IndexField {
        /// The shard.
        shard: String,
        /// Its index.
        index: String,
        /// What they disagree about.
        field: &'static str,
        /// The index's value.
        found: u64,
        /// The manifest's value.
        expected: u64,
    },
    /// The store refused or dropped a ranged read after all retries.
    #[error("could not read bytes {start}..{end} of shard `{shard}`")]
    Fetch {
        /// The shard.
        shard: String,
        /// First byte asked for.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A ranged read gave too little.
    #[error("shard `{shard}` gave {found} bytes from byte {start} on, {expected} were asked for")]
    Short {
        /// The shard.
        shard: String,
        /// First byte asked for.
        start: u64,
        /// Bytes that came.
        found: u64,
        /// Bytes asked for.
        expected: u64,
    },
    /// The bytes of one sample are not tar members.
    #[error("sample {sample} of shard `{shard}`, at byte {offset}, is unreadable")]
    Sample {
        /// The shard.
        shard: String,
        /// Position in the shard.
        sample: u32,
        /// Where the sample starts.
        offset: u64,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// The bytes are tar members, but of another sample than the index says.
    #[error("sample {sample} of shard `{shard}`, at byte {offset}, is {found}, its index says otherwise")]
    SampleKey {
        /// The shard.
        shard: String,
        /// Position in the shard.
        sample: u32,
        /// Where the sample starts.
        offset: u64,
        /// What stands there.
        found: String,
    },
}

impl ReadError {
    /// Whether only one sample is lost, so that reading may go on. All other errors concern a shard or the dataset.
    pub fn costs_one_sample(&self) -> bool {
        matches!(self, Self::Sample { .. } | Self::SampleKey { .. })
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoManifest { .. } => Some(
                "`ingest pack` makes a dataset, `ingest index` makes a manifest for tars of other programs",
            ),
            Self::Manifest { .. } => {
                Some("`ingest index --overwrite` makes a new manifest for the shards that are there")
            }
            Self::Open { source, .. } | Self::File { source, .. } | Self::Fetch { source, .. } => {
                (source.kind() == StoreErrorKind::Denied)
                    .then_some("credentials come from the environment, for example AWS_ACCESS_KEY_ID")
            }
            _ => Some("run `ingest verify` on the dataset; it names the shards to rebuild"),
        }
    }
}

/// Why a dataset cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The store refused a file after all retries.
    #[error("could not write `{name}` to `{location}`")]
    Store {
        /// The location without credentials.
        location: String,
        /// Name of the file.
        name: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A sample cannot be a tar member.
    #[error("sample `{key}` does not fit into a shard")]
    Member {
        /// Key of the sample.
        key: String,
        /// What is wrong.
        #[source]
        source: TarWriteError,
    },
    /// A sample is longer than an index can say.
    #[error("sample `{key}` has {num_bytes} bytes, a sample holds less than 4 GiB")]
    SampleSize {
        /// Key of the sample.
        key: String,
        /// Its size with headers and padding.
        num_bytes: u64,
    },
    /// A dataset must have samples.
    #[error("the dataset `{location}` would have no samples")]
    Empty {
        /// The location without credentials.
        location: String,
    },
}
