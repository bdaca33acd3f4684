//! The command line of `ingest`: parses, calls the library, prints.

use clap::{Parser, Subcommand};
use fastclip_ingest::{Progress, synth};

/// Turns image-text pairs into tar shards with a manifest.
#[derive(Debug, Parser)]
#[command(name = "ingest")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Synth(synth::SynthArgs),
}

impl Cli {
    /// Runs the chosen command to its end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Synth(args) => {
                let report = synth::synth(&args.into_options(), &Progress::console("drawing"))?;
                println!("{report}");
                Ok(())
            }
        }
    }
}
