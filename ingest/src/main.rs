//! The binary `ingest`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return cli::report_arguments(&refused),
    };
    let format = cli.log_format();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error, format),
    }
}
