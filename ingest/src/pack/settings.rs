use fastclip_schemas::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PackOptions;
use crate::source::Source;

/// Raised whenever the same rows and settings give other shards than before.
const PACK_VERSION: u32 = 1;

/// Everything that decides the bytes of the shards. It is kept with what was packed, so that resuming with anything else
/// is refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    pack_version: u32,
    input_digest: Digest,
    samples_per_shard: u32,
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

    /// Every setting that `there` has another value for.
    pub(super) fn differences(&self, there: &Value) -> Vec<String> {
        let here = self.to_json();
        let here = here.as_object().expect("settings are a struct");
        let differing = here.iter().filter(|(name, value)| there.get(name) != Some(value));
        let described = differing.map(|(name, value)| match name.as_str() {
            "input-digest" => "the input has changed".to_owned(),
            _ => format!("{name} is {} there and {value} here", there.get(name).unwrap_or(&Value::Null)),
        });
        described.collect()
    }
}
