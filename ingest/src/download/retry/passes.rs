use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::ops::Range;

use fastclip_schemas::{Digest, Manifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::layout::Layout;
use super::super::report::DownloadCounts;
use super::super::settings::COMMAND;
use crate::hash::{HashColumn, HashKind};
use crate::picture::PictureOptions;

/// Key of the passes in the manifest's facts about the source.
const RETRIES: &str = "retries";

/// What a manifest says of one time that failed rows were tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Pass {
    /// Failures that were chosen.
    pub(super) only: Vec<String>,
    /// Number of its first shard. A shard may have a table and no tar.
    pub(super) first_shard: u64,
    pub(super) num_shards: u64,
    /// What became of the rows.
    pub(super) counts: DownloadCounts,
}

impl Pass {
    pub(super) fn shards(&self) -> Range<u64> {
        self.first_shard..self.first_shard + self.num_shards
    }

    /// Shards of it that have samples.
    pub(super) fn num_tars(&self, manifest: &Manifest) -> usize {
        let tars: BTreeSet<String> = self.shards().map(|shard| format!("{shard:05}.tar")).collect();
        manifest.shards.iter().filter(|shard| tars.contains(&shard.name)).count()
    }
}

/// Tells which pass a table is of, by its name: 0 for the download itself, and for what was not downloaded.
pub(crate) fn pass_of(manifest: &Manifest) -> impl Fn(&str) -> usize + use<> {
    let passes = Downloaded::of(manifest).map(|downloaded| downloaded.passes).unwrap_or_default();
    move |table| {
        let shard = table.split('.').next().and_then(|shard| shard.parse().ok());
        let pass = shard.and_then(|shard| passes.iter().position(|pass| pass.shards().contains(&shard)));
        pass.map_or(0, |earlier| earlier + 1)
    }
}

/// What is known of a download that is complete.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub(super) layout: Layout,
    pub(super) additional: Vec<String>,
    pub(super) hash: Option<HashKind>,
    /// The hash that images must have, in one of the further columns.
    pub(super) verify_hash: Option<HashColumn>,
    pub(super) picture: PictureOptions,
    /// Newest outcome of each row.
    pub(super) counts: DownloadCounts,
    /// The oldest first.
    pub(super) passes: Vec<Pass>,
}

/// The settings of a download that matter to what is fetched once more. No row has to be filtered again.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Original {
    number_sample_per_shard: NonZeroU32,
    save_additional_columns: Vec<String>,
    compute_hash: Option<HashKind>,
    verify_hash: Option<HashColumn>,
    #[serde(flatten)]
    picture: PictureOptions,
}

impl Downloaded {
    /// Reads the facts that a download left in its manifest, or says why they cannot be used.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, String> {
        let settings = manifest.source.get(COMMAND).cloned().ok_or("`ingest download` did not make it")?;
        let original: Original =
            serde_json::from_value(settings).map_err(|error| format!("its settings: {error}"))?;
        let passes = match manifest.source.get(RETRIES).cloned() {
            Some(passes) => {
                serde_json::from_value(passes).map_err(|error| format!("its retries: {error}"))?
            }
            None => Vec::new(),
        };
        let counts = DownloadCounts::of_manifest(manifest);
        let rows_per_shard = u64::from(original.number_sample_per_shard.get());
        Ok(Self {
            layout: Layout { num_rows: counts.num_rows(), rows_per_shard },
            additional: original.save_additional_columns,
            hash: original.compute_hash,
            verify_hash: original.verify_hash,
            picture: original.picture,
            counts,
            passes,
        })
    }

    /// Number of the first shard that does not exist.
    pub(super) fn next_shard(&self) -> u64 {
        self.passes.last().map_or(self.layout.num_shards(), |pass| pass.shards().end)
    }

    /// Adds a pass to the facts, after which the rows ended as counted.
    pub(super) fn add(manifest: &mut Manifest, passes: &[Pass], counts: &DownloadCounts) {
        let passes = serde_json::to_value(passes).expect("passes are text and numbers");
        manifest.source.extend([(RETRIES.to_owned(), passes), counts.to_fact()]);
    }
}

/// What an unfinished pass remembers of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PassSettings {
    /// From 1.
    pub(super) pass: usize,
    pub(super) only: Vec<String>,
    /// The manifest that it began with.
    pub(super) dataset: Digest,
}

impl PassSettings {
    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings are text and numbers")
    }
}
