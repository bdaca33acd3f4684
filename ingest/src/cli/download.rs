use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fastclip_ingest::{
    DownloadOptions, EncodeFormat, HostList, HostListError, OnExisting, PictureOptions, ResizeMode,
    RowFilters, UrlColumns, download,
};

use super::command_line;
use super::part::PartArgs;
use super::progress::ProgressArgs;
use super::requests::RequestArgs;
use super::{CREATED_BY, create_store, parse_existing, print, stop_on_signals, threads};

/// What a request to stop is answered with.
const STOPPING: &str = "stopping when the open shard is complete; the same command goes on from there. Ctrl-C again stops at once";

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
  ingest download --input laion.parquet --url-col URL --caption-col TEXT --output s3://bucket/laion
  ingest download --input urls.txt --output data/pictures --resize-mode no --skip-reencode")]
pub(crate) struct DownloadArgs {
    /// List of URLs: .csv, .tsv, .json, .jsonl, .ndjson, .txt with one a line, also as .gz or .zst; .parquet
    #[arg(long, value_name = "PATH", value_parser = parse_existing)]
    input: PathBuf,
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

    /// Least characters of a caption
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Filters")]
    min_caption_chars: usize,
    /// Most characters of a caption
    #[arg(long, value_name = "N", help_heading = "Filters")]
    max_caption_chars: Option<usize>,
    /// Least share of a caption's characters that are letters of any alphabet, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, help_heading = "Filters")]
    min_caption_letters: f64,
    /// File with the only hosts to ask, one a line, each with all below it
    #[arg(long, value_name = "PATH", value_parser = parse_hosts, help_heading = "Filters")]
    allow_hosts: Option<HostList>,
    /// File with hosts not to ask
    #[arg(long, value_name = "PATH", value_parser = parse_hosts, help_heading = "Filters")]
    deny_hosts: Option<HostList>,

    /// Size that --resize-mode means, in pixels
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384), help_heading = "Images")]
    image_size: u32,
    /// What becomes of an image's size
    #[arg(long, value_enum, default_value_t = Mode::Border, help_heading = "Images")]
    resize_mode: Mode,
    /// Leave smaller images as small as they are
    #[arg(long, help_heading = "Images")]
    resize_only_if_bigger: bool,
    /// How images are stored
    #[arg(long, value_enum, default_value_t = Format::Jpg, help_heading = "Images")]
    encode_format: Format,
    /// Quality of jpg and webp, from 1 to 100. Training reads 85 half as fast again as 95
    #[arg(long, value_name = "N", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Images")]
    encode_quality: u8,
    /// Keep the bytes of images that need no resizing
    #[arg(long, help_heading = "Images")]
    skip_reencode: bool,
    /// Decode JPEGs whose bytes are kept too, to refuse damaged ones; otherwise a header and an end are enough
    #[arg(long, help_heading = "Images")]
    decode_kept: bool,
    /// Least pixels of the shorter side
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Images")]
    min_image_size: u32,
    /// Most pixels of an image [default: no limit but --max-image-pixels]
    #[arg(long, value_name = "N", help_heading = "Images")]
    max_image_area: Option<u64>,
    /// Most times that the longer side is longer than the shorter one
    #[arg(long, value_name = "RATIO", help_heading = "Images")]
    max_aspect_ratio: Option<f64>,
    /// Pixels of an image by its header, beyond which it is not decoded
    #[arg(long, value_name = "N", default_value_t = PictureOptions::default().max_image_pixels, help_heading = "Images")]
    max_image_pixels: u64,

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

/// [`ResizeMode`] on a command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Mode {
    /// The longer side becomes the size, white makes a square of it
    Border,
    /// The shorter side becomes the size
    KeepRatio,
    /// The longer side becomes the size
    KeepRatioLargest,
    /// The shorter side becomes the size, and the middle square is taken
    CenterCrop,
    /// It stays
    No,
}

/// [`EncodeFormat`] on a command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Jpg,
    Png,
    Webp,
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
        Ok(DownloadOptions {
            part,
            command: Some(command_line::without(&["--part"])),
            input: self.input,
            output: create_store(&self.output)?,
            on_existing: if self.overwrite { OnExisting::Overwrite } else { OnExisting::Resume },
            columns: UrlColumns {
                url: self.url_col,
                caption: self.caption_col,
                additional: self.save_additional_columns,
            },
            filters: RowFilters {
                min_caption_chars: self.min_caption_chars,
                max_caption_chars: self.max_caption_chars,
                min_caption_letters: self.min_caption_letters,
                allow_hosts: self.allow_hosts,
                deny_hosts: self.deny_hosts,
            },
            rows_per_shard: self.number_sample_per_shard,
            picture: PictureOptions {
                image_size: self.image_size,
                resize_mode: match self.resize_mode {
                    Mode::Border => ResizeMode::Border,
                    Mode::KeepRatio => ResizeMode::KeepRatio,
                    Mode::KeepRatioLargest => ResizeMode::KeepRatioLargest,
                    Mode::CenterCrop => ResizeMode::CenterCrop,
                    Mode::No => ResizeMode::No,
                },
                resize_only_if_bigger: self.resize_only_if_bigger,
                encode_format: match self.encode_format {
                    Format::Jpg => EncodeFormat::Jpg,
                    Format::Png => EncodeFormat::Png,
                    Format::Webp => EncodeFormat::Webp,
                },
                encode_quality: self.encode_quality,
                skip_reencode: self.skip_reencode,
                decode_kept: self.decode_kept,
                min_image_size: self.min_image_size,
                max_image_area: self.max_image_area,
                max_aspect_ratio: self.max_aspect_ratio,
                max_image_pixels: self.max_image_pixels,
            },
            fetch: self.requests.resolve()?,
            threads: threads(self.threads),
            created_by: CREATED_BY.to_owned(),
        })
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it is not between 0 and 1".to_owned()) }
}

fn parse_hosts(path: &str) -> Result<HostList, HostListError> {
    HostList::read(Path::new(path))
}
