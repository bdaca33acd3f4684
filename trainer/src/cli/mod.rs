//! The command line of `train`: parses, resolves, calls the library, prints.

mod bench;
mod check;
mod completions;
mod embed;
mod encoder;
mod eval;
mod failure;
mod launch;
mod log;
mod report;
mod run;
mod together;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use failure::{Failure, report_arguments, reporting_panics};

/// Trains CLIP models with the FastCLIP objectives.
///
/// Exit codes: 0 done; 1 the input was refused; 2 something broke; 75 a run was asked to stop (by SIGINT, SIGTERM, SIGUSR1,
/// --time-limit or --stop-after), wrote a checkpoint, and is continued by the same command, unless that says --resume none.
#[derive(Debug, Parser)]
#[command(name = "train", version = version::long(), max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  train launch --ranks 2 --config configs/demo.toml
  train run --train-data data/train --val-data data/held-out --model ViT-B-32 --batch-size 256
  train check --config configs/cc3m/fastclip-v3.toml --ranks 8 --samples 2723840
  train eval --checkpoint logs/my-run/checkpoints/step_00000500 --val-data data/held-out
  train embed --checkpoint logs/my-run/checkpoints/step_00000500 --data data/held-out --out embeddings
  train report logs/my-run

Datasets are folders with a manifest, as `ingest` writes them, or their URLs.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Launch(launch::LaunchArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Eval(eval::EvalArgs),
    Embed(embed::EmbedArgs),
    Report(report::ReportArgs),
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// Runs the chosen command to its end.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Launch(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Eval(args) => args.run(),
            Command::Embed(args) => args.run(),
            Command::Report(args) => args.run(),
            Command::Completions(args) => args.run(),
        }
    }
}

/// Writes text to standard output. A reader that has gone away is no failure of ours.
fn print(text: &str) -> Result<ExitCode, Failure> {
    use std::io::{ErrorKind, Write};

    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::broken(anyhow::Error::new(error).context("could not write to standard output")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
