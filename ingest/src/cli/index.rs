use std::num::NonZeroUsize;

use clap::ValueEnum;
use fastclip_ingest::{IdSource, IndexOptions, index};

use super::progress::ProgressArgs;
use super::{CREATED_BY, open_store, print, shards_at_once, stop_on_signals};

/// Makes a manifest for tars that other programs wrote.
///
/// Reads every `.tar`, `.tar.gz`, `.tgz` and `.tar.zst` below the location once (webdataset's rules: members that share the name up to the first dot are a
/// sample) and writes an index beside each and a manifest last. The tars are not changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest index data/img2dataset
  ingest index s3://bucket/cc3m --ids json-key --threads 16
  ingest index data/laion --skip-damaged")]
pub(crate) struct IndexArgs {
    /// Folder or URL with the tars
    location: String,

    /// Where sample ids come from
    #[arg(long, value_enum, default_value_t = Ids::Dense, help_heading = "Samples")]
    ids: Ids,
    /// Keep the whole samples around the damage of a shard, and leave out empty shards, instead of refusing them
    #[arg(long, help_heading = "Samples")]
    skip_damaged: bool,

    /// Replace the manifest that is there
    #[arg(long, help_heading = "Existing output")]
    overwrite: bool,

    /// Shards read at the same time [default: two a core, so that one is read while another is digested]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ids {
    /// Counted from 0, shards in the order of their names
    Dense,
    /// The number in field `key` of each sample's JSON member
    JsonKey,
}

impl IndexArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let options = IndexOptions {
            location: open_store(&self.location)?,
            ids: match self.ids {
                Ids::Dense => IdSource::Dense,
                Ids::JsonKey => IdSource::JsonKey,
            },
            skip_damaged: self.skip_damaged,
            overwrite: self.overwrite,
            threads: shards_at_once(self.threads),
            created_by: CREATED_BY.to_owned(),
        };
        let stop = stop_on_signals()?;
        print(index(&options, &progress.start("indexing", "shards", &stop)?, &stop)?)
    }
}
