use std::fmt;

use super::super::outcome::Status;
use super::super::report::DownloadCounts;
use crate::fetch::FetchReason;

/// Failures that are tried again, by their identifiers: `timeout`, `http_503`, all of a kind as `http_5xx`, or `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    names: Vec<String>,
}

/// What stands for everything.
const ALL: &str = "all";

/// A row with this failure has nothing that could be asked for.
const MALFORMED: &str = "malformed_row";

impl Selection {
    /// These failures or, where none are named, those that may pass.
    pub(super) fn new(only: &[String]) -> Self {
        let mut names = match only {
            [] => FetchReason::TRANSIENT.map(str::to_owned).to_vec(),
            only => only.to_vec(),
        };
        names.sort();
        names.dedup();
        Self { names }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a row that ended like this is tried again. Rows that break a rule of the list never are.
    pub(super) fn has(&self, status: Status, reason: &str) -> bool {
        matches!(status, Status::FailedToDownload | Status::FailedToResize) && self.has_reason(reason)
    }

    /// Rows that are tried again at most, of those that were counted.
    pub(super) fn most_rows(&self, counts: &DownloadCounts) -> u64 {
        let failures = counts.failures.iter().filter(|(reason, _)| self.has_reason(reason));
        failures.map(|(_, count)| count).sum::<u64>().min(counts.failed_to_download + counts.failed_to_resize)
    }

    fn has_reason(&self, reason: &str) -> bool {
        let is_of = |name: &str| name == ALL || name == reason || family(reason).as_deref() == Some(name);
        reason != MALFORMED && self.names.iter().any(|name| is_of(name))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))
    }
}

/// `http_5xx` for `http_503`.
fn family(reason: &str) -> Option<String> {
    let code = reason.strip_prefix("http_")?;
    let class =
        code.chars().next().filter(|_| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(format!("http_{class}xx"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(only: &[&str]) -> Selection {
        Selection::new(&only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn failures_are_chosen_by_name_by_family_or_because_they_may_pass() {
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (
                &[],
                &["timeout", "dns_failure", "http_503", "http_429"],
                &["http_404", "tls_failure", "not_an_image"],
            ),
            (&["http_404"], &["http_404"], &["http_403", "timeout"]),
            (&["http_4xx", "timeout"], &["http_404", "http_429", "timeout"], &["http_503", "total_timeout"]),
            (&["all"], &["http_404", "corrupt_image"], &["malformed_row"]),
        ];
        for (only, chosen, others) in cases {
            let selection = selection(only);
            for reason in chosen {
                assert!(selection.has(Status::FailedToDownload, reason), "{only:?} {reason}");
            }
            for reason in others {
                assert!(!selection.has(Status::FailedToDownload, reason), "{only:?} {reason}");
            }
        }
        assert!(!selection(&["all"]).has(Status::Filtered, "host_denied"));
        assert!(!selection(&["all"]).has(Status::Success, ""));
    }
}
