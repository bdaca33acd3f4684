use std::num::NonZeroUsize;
use std::path::PathBuf;

use fastclip_ingest::{Columns, Limits, OnExisting, PackOptions, Split, pack};

use super::filter_args::DuplicateArgs;
use super::progress::ProgressArgs;
use super::shard_args::ShardArgs;
use super::{CREATED_BY, create_store, inputs, parse_existing, print, stop_on_signals, threads};

/// Packs images and captions into shards.
///
/// The input is a folder or a table. In a folder, `a.jpg` goes with the caption in `a.txt`, and with class number and
/// further columns in `a.cls` and `a.json` if these exist. In a table, paths are relative to the table's folder, and all
/// further columns go into the JSON member of each sample. Parquet may hold the bytes of the images instead, in a column of
/// bytes or as Hugging Face's `datasets` stores them.
///
/// Images keep their bytes, but each is decoded once. Rows that cannot be used are counted by reason and listed in
/// `rejected.jsonl`. The same input and settings give the same bytes, however many threads there are and however often
/// the run was interrupted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest pack --input photos/ --output data/photos
  ingest pack --input pairs.parquet --caption-col title --output s3://bucket/pairs --resume
  ingest pack --input 'food101/data/train-*.parquet' --caption-col text --class-col label --output data/food101
  ingest pack --input coco.csv --split val --output data/coco-val --samples-per-shard 1000")]
pub(crate) struct PackArgs {
    /// Folder of images, or tables: .csv, .tsv, .json, .jsonl, .ndjson, also as .gz or .zst; .parquet. Files, folders of
    /// one kind, patterns, URLs; one after another they are one table
    #[arg(long, value_name = "LOCATION", num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Folder or URL for the dataset
    #[arg(long, value_name = "LOCATION")]
    output: String,

    /// Column with the path of the image
    #[arg(long, value_name = "NAME", default_value = "image", help_heading = "Table")]
    image_col: String,
    /// Column with the caption
    #[arg(long, value_name = "NAME", default_value = "caption", help_heading = "Table")]
    caption_col: String,
    /// Column with the class number [default: cls, where it exists]
    #[arg(long, value_name = "NAME", help_heading = "Table")]
    class_col: Option<String>,
    /// Pack only the rows that have this value in the split column
    #[arg(long, value_name = "VALUE", help_heading = "Table")]
    split: Option<String>,
    /// Column that --split looks at
    #[arg(long, value_name = "NAME", default_value = "split", requires = "split", help_heading = "Table")]
    split_col: String,

    #[command(flatten)]
    duplicates: DuplicateArgs,

    #[command(flatten)]
    shards: ShardArgs,
    /// File to copy beside the shards; may be given more than once. Class names and prompt templates that lie beside
    /// the input are copied anyway
    #[arg(long, value_name = "PATH", value_parser = parse_existing, help_heading = "Shards")]
    side_file: Vec<PathBuf>,

    /// Continue an interrupted run of the same input and settings
    #[arg(long, conflicts_with = "overwrite", help_heading = "Existing output")]
    resume: bool,
    /// Remove the dataset that is there
    #[arg(long, help_heading = "Existing output")]
    overwrite: bool,

    /// Fraction of the rows that may be unusable
    #[arg(long, value_name = "FRACTION", default_value_t = 0.05, value_parser = parse_fraction, help_heading = "Limits")]
    max_bad_fraction: f64,
    /// Pixels of an image, by its header
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_image_pixels, help_heading = "Limits")]
    max_image_pixels: u64,
    /// Bytes of an image file
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_file_bytes, help_heading = "Limits")]
    max_file_bytes: u64,

    /// Threads that read and decode [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl PackArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let stop = stop_on_signals()?;
        let report = pack(&self.resolve()?, &progress.start("packing", "rows", &stop)?, &stop)?;
        print(report)
    }

    fn resolve(self) -> anyhow::Result<PackOptions> {
        let column = self.split_col;
        let split = self.split.map(|value| Split { column, value });
        Ok(PackOptions {
            input: inputs(self.input),
            output: create_store(&self.output)?,
            on_existing: OnExisting::of_flags(self.resume, self.overwrite),
            columns: Columns {
                image: self.image_col,
                caption: self.caption_col,
                class: self.class_col,
                split,
            },
            samples_per_shard: self.shards.samples_per_shard(),
            max_shard_bytes: self.shards.max_shard_bytes,
            duplicates: self.duplicates.resolve(),
            limits: Limits { max_image_pixels: self.max_image_pixels, max_file_bytes: self.max_file_bytes },
            max_bad_fraction: self.max_bad_fraction,
            side_files: self.side_file,
            threads: threads(self.threads),
            created_by: CREATED_BY.to_owned(),
        })
    }
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}
