//! The command line of `ingest`: parses, calls the library, prints.

mod command_line;
mod completions;
mod download;
mod failure;
mod files;
mod filter_args;
mod finish;
mod index;
mod inspect;
mod pack;
mod part;
mod picture_args;
mod progress;
mod requests;
mod reshard;
mod retry;
mod shard_args;
mod stats;
mod verify;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use fastclip_ingest::{Inputs, LogFormat, Stop, synth};
use fastclip_shards::{Store, StoreOptions};
use progress::ProgressArgs;

pub(crate) use failure::{report, report_arguments};

/// Version, and the commit it was built from where that is known.
const VERSION: &str = git_version::git_version!(
    prefix = concat!(env!("CARGO_PKG_VERSION"), " ("),
    suffix = ")",
    args = ["--always", "--dirty=-modified", "--exclude=*"],
    fallback = concat!(env!("CARGO_PKG_VERSION"), " (unknown commit)")
);

/// What the manifest says about its writer. Without the commit: equal rows and settings must give equal files.
const CREATED_BY: &str = concat!("ingest ", env!("CARGO_PKG_VERSION"));

/// Turns image-text pairs into tar shards with a manifest, on disk or in an object store.
///
/// Exit codes: 0 done, 1 the input was refused, 2 something broke.
#[derive(Debug, Parser)]
#[command(name = "ingest", version = VERSION, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ingest synth --output data/toy
  ingest pack --input data/toy/train/table.jsonl --output data/shards/train
  ingest download --input cc3m.tsv --output data/cc3m --image-size 288 --resize-mode keep_ratio
  ingest retry data/cc3m
  ingest reshard data/cc3m --output data/cc3m-large --max-shard-bytes 1000000000
  ingest index data/img2dataset
  ingest verify data/shards/train
  ingest stats data/shards/train
  ingest inspect data/shards/train --html train.html

Locations are folders or URLs: s3://, gs://, az://, http(s)://, file://. Credentials come from the
environment (AWS_*, GOOGLE_*, AZURE_*); OBJECT_STORE_TIMEOUT and the like set the client.";

#[derive(Debug, Subcommand)]
enum Command {
    Download(Box<download::DownloadArgs>),
    Finish(finish::FinishArgs),
    Retry(Box<retry::RetryArgs>),
    Pack(pack::PackArgs),
    Reshard(Box<reshard::ReshardArgs>),
    Index(index::IndexArgs),
    Verify(verify::VerifyArgs),
    Stats(stats::StatsArgs),
    Inspect(inspect::InspectArgs),
    #[command(after_help = "\
Examples:
  ingest synth --output data/toy
  ingest synth --output data/toy-large --train 100000 --held-out 5000 --image-size 128 --seed 7")]
    Synth(synth::SynthArgs),
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// How errors are to be told.
    pub(crate) fn log_format(&self) -> LogFormat {
        self.progress.format()
    }

    /// Runs the chosen command to its end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let progress = self.progress;
        match self.command {
            Command::Download(args) => args.run(&progress),
            Command::Finish(args) => args.run(&progress),
            Command::Retry(args) => args.run(&progress),
            Command::Pack(args) => args.run(&progress),
            Command::Reshard(args) => args.run(&progress),
            Command::Index(args) => args.run(&progress),
            Command::Verify(args) => args.run(&progress),
            Command::Stats(args) => args.run(&progress),
            Command::Inspect(args) => args.run(&progress),
            Command::Synth(args) => {
                let progress = progress.start("drawing", "pictures", &Stop::default())?;
                let report = synth::synth(&args.into_options(), &progress);
                progress.finish();
                print(report?)
            }
            Command::Completions(args) => args.run(),
        }
    }
}

/// Prints a result.
fn print(result: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{result}")?)
}

fn threads(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    asked.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// How many shards to see every byte of at the same time: two a core, so that one is read while another is digested.
fn shards_at_once(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    const PER_CORE: NonZeroUsize = NonZeroUsize::new(2).expect("it is not 0");
    asked.unwrap_or_else(|| threads(None).saturating_mul(PER_CORE))
}

/// Turns the first Ctrl-C or SIGTERM into a request to stop. The second ends the process at once.
fn stop_on_signals() -> anyhow::Result<Stop> {
    let stop = Stop::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the handler that ends the process must see the flag as the signals before this one left it.
        signal_hook::flag::register_conditional_shutdown(signal, 2, stop.flag())?;
        signal_hook::flag::register(signal, stop.flag())?;
    }
    Ok(stop)
}

fn open_store(location: &str) -> Result<Store, failure::Refused> {
    Store::open(location, &StoreOptions::from_process()).map_err(failure::Refused::location)
}

fn create_store(location: &str) -> Result<Store, failure::Refused> {
    Store::create(location, &StoreOptions::from_process()).map_err(failure::Refused::location)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e6 => Ok(seconds),
        _ => Err("expected a number of seconds above 0".to_owned()),
    }
}

/// What is to be read, with the credentials of this process.
fn inputs(paths: Vec<PathBuf>) -> Inputs {
    Inputs { paths, store: StoreOptions::from_process() }
}

/// A file that must be there, for arguments that would otherwise be noticed late.
fn parse_existing(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.exists() { Ok(path) } else { Err("there is no such file".to_owned()) }
}
