use std::num::NonZeroUsize;

use fastclip_ingest::{OnExisting, ReshardOptions, reshard};
use fastclip_shards::StoreOptions;

use super::filter_args::{DuplicateArgs, FilterArgs};
use super::picture_args::PictureArgs;
use super::progress::ProgressArgs;
use super::shard_args::ShardArgs;
use super::{CREATED_BY, create_store, print, stop_on_signals, threads};

/// Makes other shards of shards: of another size, with other images, without what is not wanted.
///
/// Samples keep their order and all of their members; nothing changes in them but what is asked for, the key, and width and
/// height in the JSON member. Images keep their bytes unless they are resized or --reencode is given. Samples that are left out are counted by
/// reason and listed in `rejected.jsonl`. The same input and settings give the same bytes, however many threads there are and however often
/// the run was interrupted.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("resize_mode", |argument| argument.default_value("no")),
    after_help = "\
Examples:
  ingest reshard data/cc12m --output s3://bucket/cc12m --max-shard-bytes 1000000000
  ingest reshard data/cc12m --output data/cc12m-256 --resize-mode keep_ratio --image-size 256 --encode-quality 85
  ingest reshard 'data/{cc3m,cc12m}' --output data/cc --drop-duplicates --drop-near-duplicates 3 --min-image-size 128")]
pub(crate) struct ReshardArgs {
    /// Folder, URL or manifest of a dataset, or several as in `a::b` or `data/{a,b}`; or a folder of tars without a manifest
    input: String,
    /// Folder or URL for the dataset
    #[arg(long, value_name = "LOCATION")]
    output: String,

    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    duplicates: DuplicateArgs,

    #[command(flatten)]
    picture: PictureArgs,
    /// Encode images anew even if they keep their size
    #[arg(long, help_heading = "Images")]
    reencode: bool,

    #[command(flatten)]
    shards: ShardArgs,

    /// Continue an interrupted run of the same input and settings
    #[arg(long, conflicts_with = "overwrite", help_heading = "Existing output")]
    resume: bool,
    /// Remove the dataset that is there
    #[arg(long, help_heading = "Existing output")]
    overwrite: bool,

    /// Threads that decode and encode [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl ReshardArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let stop = stop_on_signals()?;
        let report = reshard(&self.resolve()?, &progress.start("resharding", "samples", &stop)?, &stop)?;
        print(report)
    }

    fn resolve(self) -> anyhow::Result<ReshardOptions> {
        Ok(ReshardOptions {
            input: self.input,
            store: StoreOptions::from_process(),
            output: create_store(&self.output)?,
            on_existing: OnExisting::of_flags(self.resume, self.overwrite),
            filters: self.filters.resolve(),
            duplicates: self.duplicates.resolve(),
            picture: self.picture.resolve(!self.reencode),
            samples_per_shard: self.shards.samples_per_shard(),
            max_shard_bytes: self.shards.max_shard_bytes,
            threads: threads(self.threads),
            created_by: CREATED_BY.to_owned(),
        })
    }
}
