use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use fastclip_ingest::synth::SynthError;
use fastclip_ingest::{DownloadError, FindError, IndexError, LogFormat, PackError, SurveyError, VerifyError};
use fastclip_shards::{ReadError, StoreError, StoreErrorKind};
use serde_json::json;

use super::files::TooFewFiles;

use super::part::UnclearPart;

/// The input was refused.
const REFUSED: u8 = 1;

/// Something broke.
const BROKEN: u8 = 2;

/// A location on the command line that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not use the location")]
pub(crate) struct Refused {
    source: StoreError,
}

impl Refused {
    pub(super) fn location(source: StoreError) -> Self {
        Self { source }
    }
}

/// Prints what is wrong with the arguments, or the help or version that was asked for.
pub(crate) fn report_arguments(refused: &clap::Error) -> ExitCode {
    // Printing can only fail if nobody listens.
    let _ = refused.print();
    // clap's own code for wrong arguments is 2, which stands for something else here.
    if refused.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

/// Prints an error with its causes and a hint, and gives the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error, format: LogFormat) -> ExitCode {
    let (is_refusal, hint) = judge(error);
    let code = if is_refusal { REFUSED } else { BROKEN };
    let text = match format {
        LogFormat::Json => {
            let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
            let (event, message) = ("error", error.to_string());
            json!({"event": event, "message": message, "causes": causes, "hint": hint, "code": code})
                .to_string()
        }
        _ => text(error, hint.as_deref()),
    };
    // With standard error closed the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}

fn text(error: &anyhow::Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  caused by: {cause}");
    }
    if let Some(hint) = hint {
        let _ = write!(text, "\nhint: {hint}");
    }
    text
}

fn judge(error: &anyhow::Error) -> (bool, Option<Cow<'static, str>>) {
    if let Some(error) = error.downcast_ref::<DownloadError>() {
        return (error.is_refusal(), error.hint());
    }
    if error.is::<UnclearPart>() {
        return (true, Some("say --part I/N, or --part all for the whole list".into()));
    }
    let (is_refusal, hint) = judge_plain(error);
    (is_refusal, hint.map(Cow::from))
}

fn judge_plain(error: &anyhow::Error) -> (bool, Option<&'static str>) {
    if let Some(error) = error.downcast_ref::<PackError>() {
        return (error.is_refusal(), error.hint());
    }
    if let Some(error) = error.downcast_ref::<IndexError>() {
        return (error.is_refusal(), error.hint());
    }
    if let Some(error) = error.downcast_ref::<SynthError>() {
        return (error.is_refusal(), error.hint());
    }
    if let Some(error) = error.downcast_ref::<VerifyError>() {
        return (error.is_refusal(), None);
    }
    if let Some(error) = error.downcast_ref::<SurveyError>() {
        return match error {
            SurveyError::Read(error) => judge_read(error),
            _ => (false, None),
        };
    }
    if let Some(error) = error.downcast_ref::<FindError>() {
        return match error {
            FindError::Read(error) => judge_read(error),
            _ => (true, None),
        };
    }
    if let Some(error) = error.downcast_ref::<ReadError>() {
        return judge_read(error);
    }
    if error.downcast_ref::<TooFewFiles>().is_some() {
        return (true, Some(TooFewFiles::HINT));
    }
    if let Some(Refused { source }) = error.downcast_ref::<Refused>() {
        return (source.kind() != StoreErrorKind::Other, None);
    }
    (false, None)
}

fn judge_read(error: &ReadError) -> (bool, Option<&'static str>) {
    let is_broken = match error {
        ReadError::File { .. } => true,
        ReadError::Open { source, .. } => source.kind() == StoreErrorKind::Other,
        _ => false,
    };
    (!is_broken, error.hint())
}
