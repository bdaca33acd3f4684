use std::num::NonZeroUsize;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that the process has open besides: shards, tables, the spool, the standard streams.
const OTHER_FILES: u64 = 100;

/// New connections a second that are reckoned with. Each stays open unused for a while.
const CONNECTIONS_PER_SECOND: f64 = 500.0;

/// Unused connections are kept for less than hosts close them anyway.
const LONGEST_IDLE_SECONDS: f64 = 10.0;

/// Fewer files may be open than the requests of a run need.
#[derive(Debug, thiserror::Error)]
#[error(
    "--thread-count {requests} and --max-dns-lookups {lookups} need {needed} open files, and {limit} are allowed"
)]
pub(crate) struct TooFewFiles {
    requests: NonZeroUsize,
    lookups: NonZeroUsize,
    needed: u64,
    limit: u64,
}

impl TooFewFiles {
    pub(super) const HINT: &str = "ask for less, or raise the limit (ulimit -Hn, LimitNOFILE= of systemd)";
}

/// Files that may be open beyond those that requests in progress need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    spare: u64,
}

impl Files {
    /// Raises the limit as far as the process may.
    pub(super) fn for_requests(requests: NonZeroUsize, lookups: NonZeroUsize) -> Result<Self, TooFewFiles> {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // A limit that cannot be raised is the one that counts.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // A connection that is being replaced by another one counts twice.
        let needed = 2 * requests.get() as u64 + lookups.get() as u64 + OTHER_FILES;
        match limit.checked_sub(needed) {
            Some(spare) => Ok(Self { spare }),
            None => Err(TooFewFiles { requests, lookups, needed, limit }),
        }
    }

    /// How long connections may be kept that nobody uses.
    pub(super) fn idle_timeout(self) -> Duration {
        let seconds = (self.spare as f64 / CONNECTIONS_PER_SECOND).clamp(0.1, LONGEST_IDLE_SECONDS);
        Duration::from_secs_f64(seconds)
    }
}
