//! How far a command has come, for people, for programs and for Prometheus.
//!
//! Whoever works counts into a [`Progress`]; everything that is shown is a [`ProgressSnapshot`] of it. So the bar, the plain line, the
//! JSON line and the metrics cannot disagree.

mod display;
mod metrics;
mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use snapshot::ProgressSnapshot;

use crate::stop::Stop;
use display::Display;
use metrics::MetricsServer;

/// Outcome of what became part of the dataset; all others are failures.
pub(crate) const SUCCESS: &str = "success";

/// Rates are those of so much time: long enough not to jump, short enough to show a change.
const RATE_SPAN: Duration = Duration::from_secs(30);

/// How progress is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressOptions {
    /// For people or for programs.
    pub format: LogFormat,
    /// Time between lines where there is no terminal, and between all JSON lines.
    pub interval: Duration,
    /// Where Prometheus finds the counters, if anywhere.
    pub metrics: Option<SocketAddr>,
}

impl Default for ProgressOptions {
    fn default() -> Self {
        Self { format: LogFormat::Text, interval: Duration::from_secs(10), metrics: None }
    }
}

/// Form of what goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// A bar on a terminal, plain lines elsewhere.
    Text,
    /// One JSON object a line; docs/ingest.md has their fields.
    Json,
}

/// Progress cannot be shown as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgressError {
    /// The address for Prometheus cannot be used.
    #[error("could not listen on {address} for Prometheus")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("could not start the thread that shows progress")]
    Thread(#[source] std::io::Error),
}

/// Counts what a command has done, and shows it.
///
/// Clones share one display, so any thread may report. Everything goes to standard error; standard output belongs to results.
///
/// # Threads
/// [`Progress::start`] starts one for the display, and one for Prometheus where it is asked for; [`Progress::finish`] and dropping the
/// last clone join them.
#[derive(Clone)]
pub struct Progress {
    counters: Arc<Counters>,
    display: Arc<Display>,
    metrics: Option<Arc<MetricsServer>>,
}

/// What is counted.
struct Counters {
    action: String,
    unit: &'static str,
    started: Instant,
    done: AtomicU64,
    /// Of those, what earlier runs had done.
    done_before: AtomicU64,
    /// 0 while it is unknown.
    total: AtomicU64,
    num_bytes: AtomicU64,
    in_flight: AtomicU64,
    outcomes: Mutex<BTreeMap<String, u64>>,
    pause: Mutex<Option<String>>,
    stop: Mutex<Option<(Stop, &'static str)>>,
    /// Now and then what had been done by then, newest last.
    samples: Mutex<VecDeque<Sample>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    done: u64,
    successes: u64,
    num_bytes: u64,
}

impl Progress {
    /// Shows nothing: for tests and for callers with a display of their own.
    pub fn silent() -> Self {
        let counters = Arc::new(Counters::new("", "rows"));
        Self { counters, display: Arc::new(Display::nothing()), metrics: None }
    }

    /// Shows progress on standard error. `action` is what is being done, for example `packing`, and `unit` what is being
    /// counted, for example `rows`.
    ///
    /// # Errors
    /// When the address for Prometheus cannot be used, or a thread cannot be started.
    pub fn start(action: &str, unit: &'static str, options: &ProgressOptions) -> Result<Self, ProgressError> {
        let counters = Arc::new(Counters::new(action, unit));
        let metrics = options.metrics.map(|address| {
            MetricsServer::start(address, Arc::clone(&counters))
                .map_err(|source| ProgressError::Listen { address, source })
        });
        let metrics = metrics.transpose()?.map(Arc::new);
        let display = Display::start(Arc::clone(&counters), options).map_err(ProgressError::Thread)?;
        let progress = Self { counters, display: Arc::new(display), metrics };
        if let Some(server) = &progress.metrics {
            progress.say(&format!("counters for Prometheus at http://{}/metrics", server.address()));
        }
        Ok(progress)
    }

    /// Says how many rows there will be, once that is known. Without it there is no estimate of the time left.
    pub fn set_total(&self, num_rows: u64) {
        self.counters.total.store(num_rows, Ordering::Relaxed);
    }

    /// Counts rows that an earlier run has done. They do not count for the rates.
    pub fn resume_at(&self, num_rows: u64) {
        self.counters.done.fetch_add(num_rows, Ordering::Relaxed);
        self.counters.done_before.fetch_add(num_rows, Ordering::Relaxed);
        lock(&self.counters.samples).clear();
    }

    /// Counts rows that are done, whatever their outcome, and the bytes they took.
    pub fn advance(&self, num_rows: u64, num_bytes: u64) {
        self.counters.done.fetch_add(num_rows, Ordering::Relaxed);
        self.receive(num_bytes);
    }

    /// Counts bytes that have come, whatever becomes of them.
    pub(crate) fn receive(&self, num_bytes: u64) {
        self.counters.num_bytes.fetch_add(num_bytes, Ordering::Relaxed);
    }

    /// Counts how a row ended: [`SUCCESS`] or the identifier of a failure.
    pub(crate) fn count(&self, outcome: &str) {
        let mut outcomes = lock(&self.counters.outcomes);
        match outcomes.get_mut(outcome) {
            Some(count) => *count += 1,
            None => {
                outcomes.insert(outcome.to_owned(), 1);
            }
        }
    }

    /// Counts a row as ended otherwise than it seemed.
    pub(crate) fn recount(&self, seemed: &str, outcome: &str) {
        if let Some(count) = lock(&self.counters.outcomes).get_mut(seemed) {
            *count = count.saturating_sub(1);
        }
        self.count(outcome);
    }

    /// Counts one more request on its way, until what it returns is dropped.
    pub(crate) fn in_flight(&self) -> InFlight {
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.counters))
    }

    /// Says why nothing goes on, until [`Progress::go_on`].
    pub(crate) fn pause(&self, why: &str) {
        *lock(&self.counters.pause) = Some(why.to_owned());
        self.say(&format!("paused: {why}"));
    }

    /// Ends a pause.
    pub(crate) fn go_on(&self) {
        if lock(&self.counters.pause).take().is_some() {
            self.say("going on");
        }
    }

    /// Says `message` as soon as somebody asks to stop.
    pub fn watch(&self, stop: &Stop, message: &'static str) {
        *lock(&self.counters.stop) = Some((stop.clone(), message));
    }

    /// Shows a message that stays.
    pub(crate) fn say(&self, message: &str) {
        self.display.say(&self.counters, message);
    }

    /// What has been done so far.
    pub fn snapshot(&self) -> ProgressSnapshot {
        self.counters.snapshot()
    }

    /// Ends the display, so that what is printed next starts on a clean line.
    pub fn finish(&self) {
        self.display.finish(&self.counters);
    }
}

impl Counters {
    fn new(action: &str, unit: &'static str) -> Self {
        Self {
            action: action.to_owned(),
            unit,
            started: Instant::now(),
            done: AtomicU64::new(0),
            done_before: AtomicU64::new(0),
            total: AtomicU64::new(0),
            num_bytes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            outcomes: Mutex::default(),
            pause: Mutex::default(),
            stop: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            at: Instant::now(),
            done: self.done.load(Ordering::Relaxed),
            successes: lock(&self.outcomes).get(SUCCESS).copied().unwrap_or_default(),
            num_bytes: self.num_bytes.load(Ordering::Relaxed),
        }
    }

    /// Remembers what has been done by now, for the rates, and forgets what is older than their span.
    fn remember(&self) {
        let now = self.sample();
        let mut samples = lock(&self.samples);
        while samples.get(1).is_some_and(|next| now.at.duration_since(next.at) >= RATE_SPAN) {
            samples.pop_front();
        }
        samples.push_back(now);
    }

    fn snapshot(&self) -> ProgressSnapshot {
        let now = self.sample();
        let done_before = self.done_before.load(Ordering::Relaxed);
        let beginning = Sample { at: self.started, done: done_before, successes: 0, num_bytes: 0 };
        let since = lock(&self.samples).front().copied().unwrap_or(beginning);
        let span = now.at.duration_since(since.at).as_secs_f64().max(1e-3);
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / span;
        ProgressSnapshot {
            action: self.action.clone(),
            unit: self.unit,
            seconds: self.started.elapsed().as_secs_f64(),
            done: now.done,
            done_before,
            total: Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0),
            per_second: per_second(now.done, since.done),
            successes_per_second: per_second(now.successes, since.successes),
            num_bytes: now.num_bytes,
            bytes_per_second: per_second(now.num_bytes, since.num_bytes),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            outcomes: lock(&self.outcomes).clone(),
            paused: lock(&self.pause).clone(),
        }
    }

    /// What to say to a request to stop, once.
    fn stop_message(&self) -> Option<&'static str> {
        let mut stop = lock(&self.stop);
        let is_requested = stop.as_ref().is_some_and(|(stop, _)| stop.is_requested());
        if is_requested { stop.take().map(|(_, message)| message) } else { None }
    }
}

/// A request on its way.
pub(crate) struct InFlight(Arc<Counters>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters stay true when somebody who held them has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("state", &self.snapshot().to_string()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_line_counts_rows_from_all_clones() {
        let progress = Progress::silent();
        progress.set_total(10);
        progress.clone().advance(3, 1_000_000);
        progress.advance(1, 0);
        let line = progress.snapshot().to_string();
        assert!(line.contains(": 4 of 10 rows, "), "{line}");
    }

    #[test]
    fn what_an_earlier_run_did_is_no_speed() {
        let progress = Progress::silent();
        progress.resume_at(1_000_000);
        let snapshot = progress.snapshot();
        assert_eq!((snapshot.done, snapshot.per_second), (1_000_000, 0.0));
    }

    #[test]
    fn a_request_counts_until_it_is_dropped() {
        let progress = Progress::silent();
        let requests = [progress.in_flight(), progress.in_flight()];
        assert_eq!(progress.snapshot().in_flight, 2);
        drop(requests);
        assert_eq!(progress.snapshot().in_flight, 0);
    }

    #[test]
    fn what_ended_otherwise_is_counted_once() {
        let progress = Progress::silent();
        progress.count(SUCCESS);
        progress.count(SUCCESS);
        progress.recount(SUCCESS, "duplicate");
        let outcomes = progress.snapshot().outcomes;
        assert_eq!((outcomes[SUCCESS], outcomes["duplicate"]), (1, 1));
    }
}
