//! Errors, as people see them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use fastclip_trainer::config::ConfigError;
use fastclip_trainer::distributed::CommError;
use fastclip_trainer::run::RunError;

/// The input was refused.
const REFUSED: u8 = 1;

/// Something broke.
const BROKEN: u8 = 2;

/// Why a command ended, and what to tell about it.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// The input was refused.
    pub(super) fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), hint: None, code: REFUSED }
    }

    /// Something broke.
    pub(super) fn broken(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), hint: None, code: BROKEN }
    }

    /// Prints the error with its causes and a hint, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let mut text = format!("error: {}", self.error);
        for cause in self.error.chain().skip(1) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  caused by: {}", cause.to_string().trim_end().replace('\n', "\n    "));
        }
        if let Some(hint) = self.hint {
            let _ = write!(text, "\nhint: {hint}");
        }
        // With standard error closed the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{text}");
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::refused(error) }
    }
}

impl From<CommError> for Failure {
    fn from(error: CommError) -> Self {
        let (hint, is_refusal) = (error.hint().map(str::to_owned), error.is_refusal());
        Self { hint, code: if is_refusal { REFUSED } else { BROKEN }, error: error.into() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let (hint, is_refusal) = (error.hint(), error.is_refusal());
        Self { hint, code: if is_refusal { REFUSED } else { BROKEN }, error: error.into() }
    }
}

/// Prints what is wrong with the arguments, or the help or version that was asked for.
pub(crate) fn report_arguments(refused: &clap::Error) -> ExitCode {
    // Printing can only fail if nobody listens.
    let _ = refused.print();
    // clap's own code for wrong arguments is 2, which stands for something else here.
    if refused.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}
