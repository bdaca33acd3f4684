use std::fmt;

use serde::Serialize;
use url::Url;

use super::TableRow;
use super::tally::{Counts, Tally};
use crate::terminal::one_line;

/// Hosts and failures that are told apart before rare ones are forgotten. LAION has millions of hosts.
const MAX_HOSTS: usize = 100_000;
const MAX_FAILURES: usize = 2000;

/// How many of them are reported.
const NUM_REPORTED: usize = 30;

/// Characters of a failure that has no identifier.
const MAX_FAILURE_CHARS: usize = 80;

/// What became of the rows of a list, by the tables beside the shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowStats {
    /// Rows of all tables that were read, those once that were tried again.
    pub num_rows: u64,
    /// Rows that became samples.
    pub num_successes: u64,
    /// Rows by status, the most frequent first.
    pub statuses: Vec<(String, u64)>,
    /// Failed rows by their identifier, or by the beginning of the message where there is none; the most frequent first.
    pub failures: Vec<(String, u64)>,
    /// Hosts that were asked for most rows.
    pub hosts: Vec<HostCount>,
    /// Hosts that were told apart; more than `hosts` holds.
    pub num_hosts: u64,
    /// Whether there were too many hosts to count rare ones, so that `num_hosts` is too small.
    pub has_more_hosts: bool,
    /// Success of each table, in the order of their names.
    pub tables: Vec<TableCount>,
}

/// Rows of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostCount {
    /// Its name.
    pub host: String,
    /// Rows that name it.
    pub num_rows: u64,
    /// Those that became samples.
    pub num_successes: u64,
}

/// Rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableCount {
    /// Name of the table.
    pub name: String,
    /// Its rows.
    pub num_rows: u64,
    /// Those that became samples.
    pub num_successes: u64,
}

/// Counts rows.
#[derive(Debug, Clone)]
pub(crate) struct RowCounter {
    statuses: Tally<String>,
    failures: Tally<String>,
    hosts: Tally<String>,
    tables: Vec<TableCount>,
}

impl RowCounter {
    pub(crate) fn new() -> Self {
        Self {
            statuses: Tally::new(MAX_FAILURES),
            failures: Tally::new(MAX_FAILURES),
            hosts: Tally::new(MAX_HOSTS),
            tables: Vec::new(),
        }
    }

    /// Begins a table.
    pub(crate) fn begin(&mut self, name: &str) {
        self.tables.push(TableCount { name: name.to_owned(), num_rows: 0, num_successes: 0 });
    }

    /// Counts a row of the table that was begun last.
    pub(crate) fn add(&mut self, row: TableRow<'_>) {
        let is_success = row.is_success();
        if let Some(table) = self.tables.last_mut() {
            table.num_rows += 1;
            table.num_successes += u64::from(is_success);
        }
        self.statuses.add_one(row.status, is_success);
        if !is_success {
            self.failures.add_one(failure(row.error.unwrap_or_default()).as_str(), false);
        }
        if let Some(url) = row.url {
            let parsed = Url::parse(url).ok();
            let host = parsed.as_ref().and_then(Url::host_str).unwrap_or("no host");
            self.hosts.add_one(host, is_success);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.statuses.merge(other.statuses);
        self.failures.merge(other.failures);
        self.hosts.merge(other.hosts);
        self.tables.extend(other.tables);
    }

    /// What was counted; nothing if no table was there.
    pub(crate) fn finish(mut self) -> Option<RowStats> {
        self.tables.retain(|table| table.num_rows > 0);
        if self.tables.is_empty() {
            return None;
        }
        self.tables.sort_by(|left, right| left.name.cmp(&right.name));
        let seen = |(thing, counts): (String, Counts)| (thing, counts.seen);
        let host = |(host, counts): (String, Counts)| HostCount {
            host,
            num_rows: counts.seen,
            num_successes: counts.successes,
        };
        Some(RowStats {
            num_rows: self.tables.iter().map(|table| table.num_rows).sum(),
            num_successes: self.tables.iter().map(|table| table.num_successes).sum(),
            statuses: self.statuses.most_frequent(NUM_REPORTED).into_iter().map(seen).collect(),
            failures: self.failures.most_frequent(NUM_REPORTED).into_iter().map(seen).collect(),
            hosts: self.hosts.most_frequent(NUM_REPORTED).into_iter().map(host).collect(),
            num_hosts: self.hosts.len() as u64,
            has_more_hosts: !self.hosts.is_exact(),
            tables: self.tables,
        })
    }
}

/// The identifier before the colon, or else the message itself: those of img2dataset are free text.
fn failure(message: &str) -> String {
    let is_identifier = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    match message.split_once(':') {
        Some((identifier, _)) if is_identifier(identifier) => identifier.to_owned(),
        _ if message.is_empty() => "no reason given".to_owned(),
        _ => message.chars().take(MAX_FAILURE_CHARS).collect(),
    }
}

impl fmt::Display for RowStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let Self { num_rows, num_successes, .. } = self;
        write!(
            f,
            "{num_successes} of {num_rows} rows in {} tables became samples: {:.1} %",
            self.tables.len(),
            share(*num_successes, *num_rows)
        )?;
        if !self.failures.is_empty() {
            write!(f, "\n\nwhy rows failed:")?;
        }
        for (failure, count) in &self.failures {
            let failure = one_line(failure, MAX_FAILURE_CHARS);
            write!(f, "\n  {count:>12} {:5.1} %  {failure}", share(*count, *num_rows))?;
        }
        if !self.hosts.is_empty() {
            let more = if self.has_more_hosts { "more than " } else { "" };
            write!(f, "\n\nhosts with most rows, of {more}{}:", self.num_hosts)?;
        }
        for HostCount { host, num_rows, num_successes } in self.hosts.iter().take(10) {
            let host = one_line(host, usize::MAX);
            write!(f, "\n  {num_rows:>12} {:5.1} % succeed  {host}", share(*num_successes, *num_rows))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_identifier_or_by_message() {
        for (message, expected) in [
            ("http_404: Not Found", "http_404"),
            ("HTTP Error 404: Not Found", "HTTP Error 404: Not Found"),
            ("<urlopen error timed out>", "<urlopen error timed out>"),
            ("", "no reason given"),
        ] {
            assert_eq!(failure(message), expected);
        }
    }

    #[test]
    fn counters_of_tables_add_up() {
        let row = |status, error, url| TableRow { status, error, url: Some(url), key: None };
        let mut left = RowCounter::new();
        left.begin("00001.parquet");
        left.add(row("success", None, "https://a.example/1.jpg"));
        left.add(row("failed_to_download", Some("http_404: gone"), "https://A.example/2.jpg"));
        let mut right = RowCounter::new();
        right.begin("00000.parquet");
        right.add(row("failed_to_download", Some("invalid_url: no URL"), "a\\b"));
        left.merge(right);
        let stats = left.finish().unwrap();
        assert_eq!((stats.num_rows, stats.num_successes, stats.num_hosts), (3, 1, 2));
        assert_eq!(stats.failures, [("http_404".to_owned(), 1), ("invalid_url".to_owned(), 1)]);
        assert_eq!(stats.hosts[0], HostCount { host: "a.example".to_owned(), num_rows: 2, num_successes: 1 });
        assert_eq!(stats.tables[0].name, "00000.parquet");
        assert!(RowCounter::new().finish().is_none());
    }

    #[test]
    fn what_a_table_says_cannot_command_a_terminal() {
        let mut counter = RowCounter::new();
        counter.begin("00000.parquet");
        let (error, url) = (Some("HTTP\u{1b}[2J Error\u{9b}31m\n"), Some("web+x://a\u{202e}b/"));
        counter.add(TableRow { status: "failed_to_download", error, url, key: None });
        let printed = counter.finish().unwrap().to_string();
        assert!(printed.contains("HTTP\u{fffd}[2J Error\u{fffd}31m"), "{printed:?}");
        assert!(!printed.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{printed:?}");
    }
}
