use std::collections::BTreeMap;

use fastclip_schemas::{Digest, Manifest};
use serde::Serialize;
use serde_json::Value;

use super::PackOptions;
use crate::duplicates::DuplicateOptions;
use crate::source::Source;

/// The subcommand, and key of its settings in the manifest's facts about the source.
pub(super) const COMMAND: &str = "pack";

/// Raised whenever the same rows and settings give other shards than before.
const PACK_VERSION: u32 = 1;

/// Everything that decides the bytes of the shards. It is kept with what was packed, so that resuming with anything else
/// is refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Settings {
    pack_version: u32,
    input_digest: Digest,
    samples_per_shard: u32,
    max_shard_bytes: Option<u64>,
    #[serde(flatten)]
    duplicates: DuplicateOptions,
    image_col: String,
    caption_col: String,
    class_col: Option<String>,
    split_col: Option<String>,
    split: Option<String>,
    max_image_pixels: u64,
    max_file_bytes: u64,
}

impl Settings {
    pub(super) fn new(options: &PackOptions, source: &Source) -> Self {
        let columns = &options.columns;
        Self {
            pack_version: PACK_VERSION,
            input_digest: source.digest(),
            samples_per_shard: options.samples_per_shard.get(),
            max_shard_bytes: options.max_shard_bytes,
            duplicates: options.duplicates,
            image_col: columns.image.clone(),
            caption_col: columns.caption.clone(),
            class_col: columns.class.clone(),
            split_col: columns.split.as_ref().map(|split| split.column.clone()),
            split: columns.split.as_ref().map(|split| split.value.clone()),
            max_image_pixels: options.limits.max_image_pixels,
            max_file_bytes: options.limits.max_file_bytes,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings are text and numbers")
    }
}

/// Facts for the manifest: the settings, so that a second run knows that there is nothing to do, and what became of the
/// rows.
pub(super) fn manifest_source(
    input: String,
    (command, settings): (&str, Value),
    counts: &[(&str, u64)],
) -> BTreeMap<String, Value> {
    let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into()));
    let facts = [("input".to_owned(), input.into()), (command.to_owned(), settings)];
    facts.into_iter().chain(counts).collect()
}

/// A count that [`manifest_source`] wrote.
pub(super) fn count_of(manifest: &Manifest, name: &str) -> u64 {
    manifest.source.get(name).and_then(Value::as_u64).unwrap_or(0)
}
