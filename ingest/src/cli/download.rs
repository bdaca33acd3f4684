use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use fastclip_ingest::{
    DnsOptions, DownloadOptions, EncodeFormat, FetchOptions, HostList, HostListError, OnExisting,
    PictureOptions, ResizeMode, RowFilters, UrlColumns, download,
};
use ipnet::IpNet;

use super::files::Files;
use super::progress::ProgressArgs;
use super::{CREATED_BY, create_store, parse_existing, parse_seconds, print, stop_on_signals, threads};

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
    #[arg(long)]
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

    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(256).expect("not zero"), help_heading = "Requests")]
    thread_count: NonZeroUsize,
    /// Requests to one host at a time
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_requests_per_host, help_heading = "Requests")]
    max_requests_per_host: NonZeroUsize,
    /// Requests to one host a second [default: no limit]
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Requests")]
    max_requests_per_second_per_host: Option<f64>,
    /// Seconds to wait for a connection, and for the next bytes of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds, help_heading = "Requests")]
    timeout: f64,
    /// Seconds for one attempt as a whole
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = parse_seconds, help_heading = "Requests")]
    total_timeout: f64,
    /// Least bytes a second of an image that has taken --timeout; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().min_bytes_per_second, help_heading = "Requests")]
    min_bytes_per_second: u64,
    /// Redirects that are followed
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_redirects, help_heading = "Requests")]
    max_redirects: u32,
    /// Further attempts after failures that may pass
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Requests")]
    retries: u32,
    /// Bytes of an image file
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_bytes, help_heading = "Requests")]
    max_file_bytes: u64,
    /// Name that hosts may address in X-Robots-Tag
    #[arg(long, value_name = "NAME", help_heading = "Requests")]
    user_agent_token: Option<String>,
    /// Directives of X-Robots-Tag that keep an image out, separated by commas; empty for none
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "noai,noimageai,noindex,noimageindex",
        help_heading = "Requests"
    )]
    disallowed_header_directives: String,
    /// Ask hosts in private networks and on this machine, too
    #[arg(long, help_heading = "Requests")]
    allow_private_hosts: bool,
    /// Private networks to ask, such as 10.1.0.0/16, separated by commas
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', help_heading = "Requests")]
    allow_networks: Vec<IpNet>,

    /// DNS servers, with or without a port, separated by commas [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', value_parser = parse_dns_server, help_heading = "Network")]
    dns_servers: Vec<SocketAddr>,
    /// Seconds to wait for an answer of a DNS server
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_seconds, help_heading = "Network")]
    dns_timeout: f64,
    /// Names that are looked up at a time
    #[arg(long, value_name = "N", default_value_t = DnsOptions::default().max_lookups, help_heading = "Network")]
    max_dns_lookups: NonZeroUsize,
    /// Seconds to wait when no host can be reached any more, before the run stops; `off` counts such rows as failed
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_outage, help_heading = "Network")]
    max_outage: MaxOutage,

    /// Threads that decode, resize and encode [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

/// How long to wait for the network, if it is waited for.
#[derive(Debug, Clone, Copy)]
struct MaxOutage(Option<Duration>);

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
        let timeout = Duration::from_secs_f64(self.timeout);
        let files = Files::for_requests(self.thread_count, self.max_dns_lookups)?;
        let directives = self.disallowed_header_directives.split(',').map(str::trim);
        Ok(DownloadOptions {
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
            fetch: FetchOptions {
                connect_timeout: timeout,
                read_timeout: timeout,
                total_timeout: Duration::from_secs_f64(self.total_timeout),
                min_bytes_per_second: self.min_bytes_per_second,
                max_bytes: self.max_file_bytes,
                max_redirects: self.max_redirects,
                retries: self.retries,
                max_requests: self.thread_count,
                max_requests_per_host: self.max_requests_per_host,
                interval_per_host: self
                    .max_requests_per_second_per_host
                    .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())),
                idle_timeout: files.idle_timeout(),
                dns: DnsOptions {
                    servers: self.dns_servers,
                    timeout: Duration::from_secs_f64(self.dns_timeout),
                    max_lookups: self.max_dns_lookups,
                },
                max_outage: self.max_outage.0,
                user_agent_token: self.user_agent_token,
                disallowed_directives: directives
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                allow_private_hosts: self.allow_private_hosts,
                allowed_networks: self.allow_networks,
                ..FetchOptions::default()
            },
            threads: threads(self.threads),
            created_by: CREATED_BY.to_owned(),
        })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 1e-6 && rate.is_finite() => Ok(rate),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn parse_dns_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse().map(|address: IpAddr| (address, 53).into()));
    address.map_err(|_| "expected an address, such as 9.9.9.9 or [2620:fe::fe]:53".to_owned())
}

fn parse_outage(text: &str) -> Result<MaxOutage, String> {
    match text.parse::<f64>() {
        _ if text == "off" => Ok(MaxOutage(None)),
        Ok(seconds) if (0.0..1e9).contains(&seconds) => Ok(MaxOutage(Some(Duration::from_secs_f64(seconds)))),
        _ => Err("expected a number of seconds, or `off`".to_owned()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it is not between 0 and 1".to_owned()) }
}

fn parse_hosts(path: &str) -> Result<HostList, HostListError> {
    HostList::read(Path::new(path))
}
