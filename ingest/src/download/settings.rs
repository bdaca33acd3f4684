use fastclip_schemas::Digest;
use serde::Serialize;
use serde_json::Value;

use super::DownloadOptions;
use crate::duplicates::DuplicateOptions;
use crate::filters::RowFilters;
use crate::hash::{HashColumn, HashKind};
use crate::picture::PictureOptions;

/// The subcommand, and key of its settings in the manifest's facts about the source.
pub(super) const COMMAND: &str = "download";

/// Raised whenever the same rows and settings give other shards than before.
const DOWNLOAD_VERSION: u32 = 1;

/// Everything but the hosts' answers that decides the bytes of the shards.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Settings {
    download_version: u32,
    input_digest: Digest,
    number_sample_per_shard: u32,
    url_col: String,
    caption_col: Option<String>,
    save_additional_columns: Vec<String>,
    compute_hash: Option<HashKind>,
    verify_hash: Option<HashColumn>,
    drop_duplicate_urls: bool,
    #[serde(flatten)]
    duplicates: DuplicateOptions,
    #[serde(flatten)]
    filters: RowFilters,
    #[serde(flatten)]
    picture: PictureOptions,
}

impl Settings {
    pub(super) fn new(options: &DownloadOptions, input_digest: Digest) -> Self {
        let columns = &options.columns;
        Self {
            download_version: DOWNLOAD_VERSION,
            input_digest,
            number_sample_per_shard: options.rows_per_shard.get(),
            url_col: columns.url.clone(),
            caption_col: columns.caption.clone(),
            save_additional_columns: columns.additional.clone(),
            compute_hash: options.compute_hash,
            verify_hash: columns.hash.clone(),
            drop_duplicate_urls: options.drop_duplicate_urls,
            duplicates: options.duplicates,
            filters: options.filters.clone(),
            picture: options.picture.clone(),
        }
    }

    /// Known by what it says, in records that are too many to say it again.
    pub(super) fn digest(settings: &Value) -> Digest {
        Digest(*blake3::hash(settings.to_string().as_bytes()).as_bytes())
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings are text and numbers")
    }
}
