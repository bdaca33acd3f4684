use std::path::Path;

use fastclip_ingest::{DuplicateOptions, HostList, HostListError, RowFilters};

/// Which rows or samples are wanted.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Least characters of a caption
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_caption_chars: usize,
    /// Most characters of a caption
    #[arg(long, value_name = "N")]
    max_caption_chars: Option<usize>,
    /// Least share of a caption's characters that are letters of any alphabet, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    min_caption_letters: f64,
    /// File with the only hosts to ask, one a line, each with all below it
    #[arg(long, value_name = "PATH", value_parser = parse_hosts)]
    allow_hosts: Option<HostList>,
    /// File with hosts not to ask
    #[arg(long, value_name = "PATH", value_parser = parse_hosts)]
    deny_hosts: Option<HostList>,
}

impl FilterArgs {
    pub(super) fn resolve(self) -> RowFilters {
        RowFilters {
            min_caption_chars: self.min_caption_chars,
            max_caption_chars: self.max_caption_chars,
            min_caption_letters: self.min_caption_letters,
            allow_hosts: self.allow_hosts,
            deny_hosts: self.deny_hosts,
        }
    }
}

/// Which images are not wanted a second time.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct DuplicateArgs {
    /// Leave out images whose bytes are those of an earlier one. Takes 16 to 32 bytes of memory an image
    #[arg(long)]
    drop_duplicates: bool,
    /// Leave out images that show what an earlier one shows: whose perceptual hash of 64 bits differs in at most so many.
    /// 3 finds other sizes and qualities
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(0..=i64::from(DuplicateOptions::MAX_DISTANCE)))]
    drop_near_duplicates: Option<u32>,
}

impl DuplicateArgs {
    pub(super) fn resolve(&self) -> DuplicateOptions {
        DuplicateOptions {
            drop_duplicates: self.drop_duplicates,
            drop_near_duplicates: self.drop_near_duplicates,
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it is not between 0 and 1".to_owned()) }
}

fn parse_hosts(path: &str) -> Result<HostList, HostListError> {
    HostList::read(Path::new(path))
}
