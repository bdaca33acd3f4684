use fastclip_schemas::{MANIFEST_FILE, SampleId};
use fastclip_shards::tar::TarError;
use fastclip_shards::{StoreError, StoreErrorKind};

/// Why tars were not indexed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The store refused.
    #[error("could not {action} of `{location}`")]
    Store {
        /// What was to be done, for example ``write `manifest.json` ``.
        action: String,
        /// The location without credentials.
        location: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// There is a manifest already.
    #[error("`{location}` already has a `{MANIFEST_FILE}`")]
    Occupied {
        /// The location without credentials.
        location: String,
    },
    /// There is nothing to index.
    #[error("`{location}` holds no tars with samples")]
    NoShards {
        /// The location without credentials.
        location: String,
    },
    /// A tar holds no samples.
    #[error("shard `{shard}` is empty: no samples in {num_bytes} bytes")]
    Empty {
        /// The shard.
        shard: String,
        /// Its size.
        num_bytes: u64,
    },
    /// A tar cannot be read to its end.
    #[error("shard `{shard}` is damaged after {num_samples} whole samples")]
    Damaged {
        /// The shard.
        shard: String,
        /// Samples before the damage.
        num_samples: usize,
        /// What is wrong, with its byte.
        #[source]
        source: TarError,
    },
    /// A sample has no id where ids were to come from JSON.
    #[error("sample `{key}` at byte {offset} of shard `{shard}` has no id: {problem}")]
    JsonKey {
        /// The shard.
        shard: String,
        /// Key of the sample.
        key: String,
        /// Where it starts.
        offset: u64,
        /// Why there is no id.
        problem: String,
    },
    /// Two samples have one id.
    #[error("sample `{key}` at byte {offset} of shard `{shard}` has id {id}, as a sample before it has")]
    DuplicateId {
        /// The shard.
        shard: String,
        /// Key of the sample.
        key: String,
        /// Where it starts.
        offset: u64,
        /// The id.
        id: SampleId,
    },
    /// A sample is longer than an index can say.
    #[error("sample `{key}` at byte {offset} of shard `{shard}` has 4 GiB or more")]
    SampleSize {
        /// The shard.
        shard: String,
        /// Key of the sample.
        key: String,
        /// Where it starts.
        offset: u64,
    },
    /// No runtime could be started.
    #[error("could not start a runtime")]
    Start(#[source] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {num_shards} shards; no manifest was written")]
    Stopped {
        /// Shards that were indexed by then.
        num_shards: usize,
    },
}

impl IndexError {
    /// Whether the tars or the request are at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Store { source, .. } => {
                matches!(source.kind(), StoreErrorKind::Location | StoreErrorKind::NotFound)
            }
            Self::Start(_) | Self::Stopped { .. } => false,
            _ => true,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Occupied { .. } => Some("replace the manifest with --overwrite"),
            Self::Stopped { .. } => Some("the same command goes on from there"),
            Self::Empty { .. } => Some("leave such shards out with --skip-damaged"),
            Self::Damaged { .. } => Some("keep the whole samples around the damage with --skip-damaged"),
            Self::JsonKey { .. } | Self::DuplicateId { .. } => {
                Some("count the samples instead with --ids dense")
            }
            _ => None,
        }
    }
}
