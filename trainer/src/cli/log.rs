//! Log lines in OpenCLIP's form: `2026-01-31,12:03:13 | INFO | text`.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fastclip_trainer::progress::Progress;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

/// Starts logging to standard error, between the progress bars, and to a file if one is given.
///
/// Without the variable `RUST_LOG`, lines of level `default` and above are shown.
pub(super) fn start(progress: &Progress, default: Level, file: Option<&Path>) -> io::Result<()> {
    let filter = || EnvFilter::builder().with_default_directive(default.into()).from_env_lossy();
    let console = progress.clone();
    let console = tracing_subscriber::fmt::layer()
        .event_format(Line)
        .with_writer(move || console.writer())
        .with_filter(filter());
    let file = file.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
    let file = file.map(|file| {
        tracing_subscriber::fmt::layer()
            .event_format(Line)
            .with_ansi(false)
            .with_writer(Arc::new(file))
            .with_filter(filter())
    });
    let registry = tracing_subscriber::registry().with(console).with(file);
    registry.try_init().map_err(|error: TryInitError| io::Error::other(error))
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let level = match *event.metadata().level() {
            Level::WARN => "WARNING",
            Level::ERROR => "ERROR",
            Level::INFO => "INFO",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "TRACE",
        };
        write!(writer, "{} | {level} | ", utc(now))?;
        let mut text = Text { writer: &mut writer, result: Ok(()) };
        event.record(&mut text);
        text.result?;
        writeln!(writer)
    }
}

/// The message, then other fields as `key=value`.
struct Text<'a, 'writer> {
    writer: &'a mut Writer<'writer>,
    result: fmt::Result,
}

impl Visit for Text<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.writer, "{value:?}"),
            name => write!(self.writer, " {name}={value:?}"),
        };
        self.result = self.result.and(written);
    }
}

/// Writes seconds since 1970 as date and time. UTC, because ranks of one run may live in several time zones.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counting from 1 March of the year 0 puts the leap day at the end of its year and of its 400-year cycle.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * cycle + year + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02},{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn seconds_become_dates() {
        assert_eq!(utc(0), "1970-01-01,00:00:00");
        assert_eq!(utc(951_782_399), "2000-02-28,23:59:59");
        assert_eq!(utc(951_782_400), "2000-02-29,00:00:00");
        assert_eq!(utc(951_868_800), "2000-03-01,00:00:00");
        assert_eq!(utc(1_682_078_593), "2023-04-21,12:03:13");
        assert_eq!(utc(4_107_542_399), "2100-02-28,23:59:59");
        assert_eq!(utc(4_107_542_400), "2100-03-01,00:00:00");
    }
}
