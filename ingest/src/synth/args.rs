use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::options::SynthOptions;

/// Makes a toy dataset: photo-like pictures of coloured shapes, with captions.
///
/// The same settings give the same files, byte for byte. `DIR/train` and `DIR/held-out` get the pictures and
/// a `table.jsonl` that `ingest pack` reads; `DIR/held-out` also gets the class names and prompt templates
/// for zero-shot evaluation. A class is a colour and a shape. A fifth of the classes never occurs in
/// training; every other held-out picture shows one of those.
#[derive(Debug, Clone, clap::Args)]
pub struct SynthArgs {
    /// Folder to fill; made if it does not exist
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Number of training pictures
    #[arg(long, value_name = "N", default_value_t = 12_000, help_heading = "The world")]
    train: u64,
    /// Number of held-out pictures
    #[arg(long, value_name = "N", default_value_t = 1_000, help_heading = "The world")]
    held_out: u64,
    /// Width and height of the pictures
    #[arg(long, value_name = "PIXELS", default_value_t = 64, help_heading = "The world")]
    image_size: u32,
    /// Another seed gives other pictures; the classes stay the same
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "The world")]
    seed: u64,
    /// JPEG quality, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 92, help_heading = "The world")]
    quality: u8,
    /// Threads that draw [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
    /// Replace a toy world that was made with other settings
    #[arg(long, help_heading = "Running")]
    overwrite: bool,
}

impl SynthArgs {
    /// The options that these arguments stand for.
    pub fn into_options(self) -> SynthOptions {
        let threads = self.threads.or_else(|| std::thread::available_parallelism().ok());
        SynthOptions {
            output: self.output,
            train: self.train,
            held_out: self.held_out,
            image_size: self.image_size,
            seed: self.seed,
            quality: self.quality,
            threads: threads.unwrap_or(NonZeroUsize::MIN),
            overwrite: self.overwrite,
        }
    }
}
