use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::ValueEnum;
use fastclip_ingest::{DownloadOptions, HashColumn, HashKind, OnExisting, UrlColumns, download};

use super::command_line;
use super::filter_args::{DuplicateArgs, FilterArgs};
use super::part::PartArgs;
use super::picture_args::PictureArgs;
use super::progress::ProgressArgs;
use super::requests::RequestArgs;
use super::{CREATED_BY, create_store, inputs, print, stop_on_signals, threads};

/// What a request to stop is answered with.
const STOPPING: &str = "stopping when the open shards are complete; Ctrl-C again stops at once";

/// Fetches images by a list of URLs and packs them into shards.
///
/// Options, keys and files are img2dataset's where it has them: shard i holds the rows from i·n on, less those that failed, and
/// a table beside each shard has a row for each of the list, with what became of it. The manifest is written last.
///
/// The same command goes on after an interruption; complete shards are not fetched again. Addresses of private networks are
/// refused, and hosts that do not want their images used for training are heard.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest download --input cc3m.tsv --output data/cc3m --image-size 288 --resize-mode keep_ratio
  ingest download --input 's3://lists/laion/*.parquet' --url-col URL --caption-col TEXT --output s3://bucket/laion
  ingest download --input urls.txt --output data/pictures --resize-mode no --skip-reencode")]
pub(crate) struct DownloadArgs {
    /// Lists of URLs: .csv, .tsv, .json, .jsonl, .ndjson, .txt with one a line, also as .gz or .zst; .parquet. Files,
    /// folders of one kind, patterns, URLs; one after another they are one list
    #[arg(long, value_name = "LOCATION", num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Folder or URL for the dataset
    #[arg(long, value_name = "LOCATION")]
    output: String,
    /// Remove the dataset that is there, instead of going on with it
    #[arg(long, conflicts_with = "part")]
    overwrite: bool,

    /// Column with the URL
    #[arg(long, value_name = "NAME", default_value = "url", help_heading = "List")]
    url_col: String,
    /// Column with the caption [default: caption, where it exists]
    #[arg(long, value_name = "NAME", help_heading = "List")]
    caption_col: Option<String>,
    /// Further columns to keep, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "List")]
    save_additional_columns: Vec<String>,

    /// Column with a hash that the bytes of the image must have, and its kind: md5, sha256 or sha512. It is kept, too
    #[arg(long, value_name = "COLUMN,KIND", value_parser = parse_hash_column, help_heading = "List")]
    verify_hash: Option<HashColumn>,

    #[command(flatten)]
    filters: FilterArgs,
    /// Leave out rows whose URL an earlier row has. Takes 16 to 32 bytes of memory a row
    #[arg(long, help_heading = "Filters")]
    drop_duplicate_urls: bool,
    #[command(flatten)]
    duplicates: DuplicateArgs,

    #[command(flatten)]
    picture: PictureArgs,
    /// Keep the bytes of images that need no resizing
    #[arg(long, help_heading = "Images")]
    skip_reencode: bool,
    /// Hash of the bytes that came, kept in a column of its name
    #[arg(long, value_enum, default_value_t = Hash::Sha256, help_heading = "Images")]
    compute_hash: Hash,

    /// Rows of the list in each shard
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::new(10_000).expect("not zero"), help_heading = "Shards")]
    number_sample_per_shard: NonZeroU32,

    #[command(flatten)]
    requests: RequestArgs,

    #[command(flatten)]
    part: PartArgs,

    /// Threads that decode, resize and encode [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

/// [`HashKind`] on a command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hash {
    Md5,
    Sha256,
    Sha512,
    None,
}

impl DownloadArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let stop = stop_on_signals()?;
        let progress = progress.start("fetching", "rows", &stop)?;
        progress.watch(&stop, STOPPING);
        let report = download(&self.resolve()?, &progress, &stop)?;
        if report.was_complete {
            return print(report);
        }
        print(format_args!("{report}\n{}", progress.snapshot().closing()))
    }

    fn resolve(self) -> anyhow::Result<DownloadOptions> {
        let part = self.part.resolve()?;
        let mut additional = self.save_additional_columns;
        // Who fetches failed rows once more has only the tables to compare with.
        additional.extend(self.verify_hash.iter().map(|hash| hash.name.clone()));
        let mut seen = std::collections::BTreeSet::new();
        additional.retain(|name| seen.insert(name.clone()));
        Ok(DownloadOptions {
            part,
            command: Some(command_line::without(&["--part"])),
            input: inputs(self.input),
            output: create_store(&self.output)?,
            on_existing: if self.overwrite { OnExisting::Overwrite } else { OnExisting::Resume },
            columns: UrlColumns {
                url: self.url_col,
                caption: self.caption_col,
                additional,
                hash: self.verify_hash,
            },
            filters: self.filters.resolve(),
            drop_duplicate_urls: self.drop_duplicate_urls,
            duplicates: self.duplicates.resolve(),
            rows_per_shard: self.number_sample_per_shard,
            picture: self.picture.resolve(self.skip_reencode),
            compute_hash: match self.compute_hash {
                Hash::Md5 => Some(HashKind::Md5),
                Hash::Sha256 => Some(HashKind::Sha256),
                Hash::Sha512 => Some(HashKind::Sha512),
                Hash::None => None,
            },
            fetch: self.requests.resolve()?,
            threads: threads(self.threads),
            created_by: CREATED_BY.to_owned(),
        })
    }
}

fn parse_hash_column(text: &str) -> Result<HashColumn, String> {
    let (name, kind) = text.rsplit_once(',').ok_or("expected a column and a kind, as in md5,md5")?;
    let kind = match kind.trim() {
        "md5" => HashKind::Md5,
        "sha256" => HashKind::Sha256,
        "sha512" => HashKind::Sha512,
        other => return Err(format!("`{other}` is none of md5, sha256 and sha512")),
    };
    Ok(HashColumn { name: name.trim().to_owned(), kind })
}
