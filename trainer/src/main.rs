//! The binary `train`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::reporting_panics(|| match cli::Cli::try_parse() {
        Ok(cli) => cli.run().unwrap_or_else(|failure| failure.report()),
        Err(refused) => cli::report_arguments(&refused),
    })
}
