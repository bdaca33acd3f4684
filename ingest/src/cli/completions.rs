use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Prints completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest completions bash > ~/.local/share/bash-completion/completions/ingest
  ingest completions zsh > ~/.zfunc/_ingest")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        clap_complete::generate(self.shell, &mut Cli::command(), "ingest", &mut std::io::stdout());
        Ok(())
    }
}
