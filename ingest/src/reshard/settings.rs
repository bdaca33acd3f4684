use fastclip_schemas::Digest;
use serde::Serialize;
use serde_json::Value;

use super::ReshardOptions;
use crate::duplicates::DuplicateOptions;
use crate::filters::RowFilters;
use crate::picture::PictureOptions;

/// The subcommand, and key of its settings in the manifest's facts about the source.
pub(super) const COMMAND: &str = "reshard";

/// Raised whenever the same samples and settings give other shards than before.
const RESHARD_VERSION: u32 = 1;

/// Everything that decides the bytes of the shards.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Settings {
    reshard_version: u32,
    input_digest: Digest,
    samples_per_shard: u32,
    max_shard_bytes: Option<u64>,
    #[serde(flatten)]
    duplicates: DuplicateOptions,
    #[serde(flatten)]
    filters: RowFilters,
    #[serde(flatten)]
    picture: PictureOptions,
}

impl Settings {
    pub(super) fn new(options: &ReshardOptions, input_digest: Digest) -> Self {
        Self {
            reshard_version: RESHARD_VERSION,
            input_digest,
            samples_per_shard: options.samples_per_shard.get(),
            max_shard_bytes: options.max_shard_bytes,
            duplicates: options.duplicates,
            filters: options.filters.clone(),
            picture: options.picture.clone(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings are text and numbers")
    }
}
