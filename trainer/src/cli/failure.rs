//! Errors, as people see them.

use std::any::Any;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

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

/// Does the work of the program. Where it panics, says so in one line; what broke is libtorch in most cases, for want of
/// memory: operations on tensors return no errors.
pub(crate) fn reporting_panics(work: impl FnOnce() -> ExitCode) -> ExitCode {
    let main = thread::current().id();
    let place = Arc::new(Mutex::new(String::new()));
    let usual = panic::take_hook();
    panic::set_hook(Box::new({
        let place = Arc::clone(&place);
        move |info| {
            let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
            if thread::current().id() != main || wants_backtrace {
                usual(info);
            } else if let (Some(location), Ok(mut place)) = (info.location(), place.lock()) {
                // Told below, in our own words.
                *place = format!(" in {location}");
            }
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let place = place.lock().map(|place| place.clone()).unwrap_or_default();
        Failure::broken(anyhow::Error::msg(words_of_panic(&*payload, &place))).report()
    })
}

/// Returns what a panic said, in one line. Where it was, matters only for a fault of ours.
fn words_of_panic(payload: &(dyn Any + Send), place: &str) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    // What tch says in place of an error. The first line of it is libtorch's message, those after it are its stack.
    let torch =
        text.split_once("Torch(\"").map(|(_, message)| message.split("\\n").next().unwrap_or_default());
    match torch {
        Some(message) => {
            let message = message.trim_end_matches("\")").replace("\\\"", "\"");
            format!("libtorch refused an operation: {message}")
        }
        None => format!("the program has a fault{place}: {}", text.lines().collect::<Vec<_>>().join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_one_line() {
        let words = |text: &str| words_of_panic(&text.to_owned(), " in a.rs:1:2");
        assert_eq!(
            words(
                r#"called `Result::unwrap()` on an `Err` value: Torch("no \"x\" left\nframe #0: a\nframe #1: b")"#
            ),
            r#"libtorch refused an operation: no "x" left"#
        );
        assert_eq!(
            words(r#"a block computes from what fits its shape: Torch("out of memory")"#),
            "libtorch refused an operation: out of memory"
        );
        assert_eq!(words("left\nright"), "the program has a fault in a.rs:1:2: left right");
        assert_eq!(words_of_panic(&"short", ""), "the program has a fault: short");
    }
}
