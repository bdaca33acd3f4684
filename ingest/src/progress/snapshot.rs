use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::SUCCESS;

/// Failures that a line names.
const NUM_REASONS: usize = 3;

/// What a command has done by a moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProgressSnapshot {
    /// What is being done.
    pub action: String,
    /// What is being counted.
    pub unit: &'static str,
    /// Seconds since the command began.
    pub seconds: f64,
    /// Rows that are done, whatever their outcome.
    pub done: u64,
    /// Of those, what earlier runs had done.
    pub done_before: u64,
    /// All rows, once that is known.
    pub total: Option<u64>,
    /// Rows a second, lately.
    pub per_second: f64,
    /// Successes a second, lately.
    pub successes_per_second: f64,
    /// Bytes of this run.
    pub num_bytes: u64,
    /// Bytes a second, lately.
    pub bytes_per_second: f64,
    /// Requests on their way.
    pub in_flight: u64,
    /// Rows of this run by outcome, for commands that tell outcomes apart.
    pub outcomes: BTreeMap<String, u64>,
    /// Why nothing goes on, if nothing does.
    pub paused: Option<String>,
}

impl ProgressSnapshot {
    /// Seconds until the end at the present rate.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.total?.saturating_sub(self.done);
        (left > 0 && self.per_second > 0.0).then(|| left as f64 / self.per_second)
    }

    /// Share of this run's rows that succeeded, for commands that tell outcomes apart.
    pub fn success_share(&self) -> Option<f64> {
        let num_rows: u64 = self.outcomes.values().sum();
        let successes = self.outcomes.get(SUCCESS).copied().unwrap_or_default();
        (num_rows > 0).then(|| successes as f64 / num_rows as f64)
    }

    /// The most frequent failures, the first one first.
    fn reasons(&self) -> Vec<(&str, u64)> {
        let failures = self.outcomes.iter().filter(|(outcome, _)| *outcome != SUCCESS);
        let mut failures: Vec<_> = failures.map(|(reason, count)| (reason.as_str(), *count)).collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        failures.truncate(NUM_REASONS);
        failures
    }

    /// One JSON object, without a line break.
    pub(super) fn to_json(&self, event: &str) -> Value {
        json!({
            "event": event,
            "time": now(),
            "action": self.action,
            "unit": self.unit,
            "seconds": self.seconds,
            "done": self.done,
            "done_before": self.done_before,
            "total": self.total,
            "per_second": self.per_second,
            "successes_per_second": self.successes_per_second,
            "success_share": self.success_share(),
            "bytes": self.num_bytes,
            "bytes_per_second": self.bytes_per_second,
            "in_flight": self.in_flight,
            "seconds_left": self.seconds_left(),
            "outcomes": self.outcomes,
            "paused": self.paused,
        })
    }

    /// What stands below a bar: rates, and what fails.
    pub(super) fn details(&self) -> String {
        let mut text = format!("{:.0} {}/s", self.per_second, self.unit);
        // Writing to a string cannot fail.
        if let Some(share) = self.success_share() {
            let _ = write!(text, "  {:.0} images/s", self.successes_per_second);
            let _ = write!(text, "  {:.1} MB/s  {:.1} % ok", self.bytes_per_second / 1e6, share * 100.0);
        } else {
            let _ = write!(text, "  {:.1} MB/s", self.bytes_per_second / 1e6);
        }
        if self.in_flight > 0 {
            let _ = write!(text, "  {} in flight", self.in_flight);
        }
        if let Some(why) = &self.paused {
            let _ = write!(text, "  paused: {why}");
            return text;
        }
        let num_rows = self.outcomes.values().sum::<u64>().max(1) as f64;
        for (reason, count) in self.reasons() {
            let _ = write!(text, "  {reason} {:.1} %", count as f64 * 100.0 / num_rows);
        }
        text
    }

    /// How fast the whole run was, for its end: `this run: 20 rows in 3.1 s, 6 rows/s, 1.9 MB received`.
    pub fn closing(&self) -> String {
        let num_rows = self.done - self.done_before;
        let seconds = self.seconds.max(1e-3);
        let mut text = format!("{num_rows} {} in {}", self.unit, duration(seconds));
        let _ = write!(text, ": {:.0} {}/s", num_rows as f64 / seconds, self.unit);
        if let Some(successes) = self.outcomes.get(SUCCESS) {
            let _ = write!(text, ", {:.0} images/s", *successes as f64 / seconds);
        }
        let megabytes = self.num_bytes as f64 / 1e6;
        let _ = write!(text, ", {megabytes:.1} MB received, {:.1} MB/s", megabytes / seconds);
        text
    }
}

/// The plain line: `fetching: 1200 of 4000 rows, 310 rows/s, 283 images/s, 12.1 MB/s, 91.3 % ok, 256 in flight, 9 s left; 61 http_404`.
impl fmt::Display for ProgressSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action, self.done)?;
        if let Some(total) = self.total {
            write!(f, " of {total}")?;
        }
        let unit = self.unit;
        write!(f, " {unit}, {:.0} {unit}/s", self.per_second)?;
        if let Some(share) = self.success_share() {
            write!(f, ", {:.0} images/s, {:.1} % ok", self.successes_per_second, share * 100.0)?;
        }
        write!(f, ", {:.1} MB/s", self.bytes_per_second / 1e6)?;
        if self.in_flight > 0 {
            write!(f, ", {} in flight", self.in_flight)?;
        }
        if let Some(seconds) = self.seconds_left() {
            write!(f, ", {} left", duration(seconds))?;
        }
        for (position, (reason, count)) in self.reasons().into_iter().enumerate() {
            write!(f, "{} {count} {reason}", if position == 0 { ";" } else { "," })?;
        }
        match &self.paused {
            Some(why) => write!(f, "; paused: {why}"),
            None => Ok(()),
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `9 s`, `12 min 5 s`, `3 h 20 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> ProgressSnapshot {
        let outcomes =
            [(SUCCESS, 900), ("http_404", 61), ("timeout", 24), ("dns_unknown", 13), ("empty_body", 2)];
        ProgressSnapshot {
            action: "fetching".to_owned(),
            unit: "rows",
            seconds: 4.0,
            done: 1200,
            done_before: 200,
            total: Some(4000),
            per_second: 250.0,
            successes_per_second: 225.0,
            num_bytes: 40_000_000,
            bytes_per_second: 1e7,
            in_flight: 256,
            outcomes: outcomes.map(|(outcome, count)| (outcome.to_owned(), count)).into(),
            paused: None,
        }
    }

    #[test]
    fn a_line_tells_rates_failures_and_what_is_left() {
        let expected = "fetching: 1200 of 4000 rows, 250 rows/s, 225 images/s, 90.0 % ok, 10.0 MB/s, 256 in flight, 11 s left; \
                        61 http_404, 24 timeout, 13 dns_unknown";
        assert_eq!(snapshot().to_string(), expected);
        let paused = ProgressSnapshot { paused: Some("no network".to_owned()), ..snapshot() };
        assert!(paused.to_string().ends_with("; paused: no network"), "{paused}");
    }

    #[test]
    fn the_last_line_is_about_this_run_as_a_whole() {
        let expected = "1000 rows in 4.0 s: 250 rows/s, 225 images/s, 40.0 MB received, 10.0 MB/s";
        assert_eq!(snapshot().closing(), expected);
    }

    #[test]
    fn programs_read_the_same_figures() {
        let json = snapshot().to_json("progress");
        assert_eq!(json["event"], "progress");
        assert_eq!((&json["done"], &json["total"]), (&1200.into(), &4000.into()));
        assert_eq!((&json["success_share"], &json["seconds_left"]), (&0.9.into(), &11.2.into()));
        assert_eq!(json["outcomes"]["http_404"], 61);
    }

    #[test]
    fn long_times_are_not_in_seconds() {
        assert_eq!([9.4, 59.4, 725.0, 12_000.0].map(duration), ["9.4 s", "59 s", "12 min 5 s", "3 h 20 min"]);
    }
}
