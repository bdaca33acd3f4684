//! Failures of hosts, and failures of our own network.
//!
//! A name without an address and a host that does not answer look the same from here as a resolver that is down, a cable that is out, a
//! firewall that was forgotten. In a list of millions, the difference is whether its rows are lost. So a failure of that kind counts only
//! if something else was reached while it came about. Otherwise its row is held, without any of the requests of the run:
//!
//! * something is reached after all: the row is tried again, and this does not count as a retry;
//! * many rows of many hosts are held: the network is down. Everything waits, one row at a time is tried again after longer and longer
//!   pauses, and after [`super::FetchOptions::max_outage`] the run ends with all these rows still to be done;
//! * many rows of few hosts are held, or all rows that are left: this says more of the hosts, and the failures count.
//!
//! A share of failures in a window, the usual alternative, has lost those of the window when it finds out, and mistakes a bad part of a
//! list for an outage.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::{FetchFailure, FetchReason};
use crate::progress::Progress;
use crate::stop::Stop;

/// Rows that are held before anything is concluded from them.
const MIN_ROWS: usize = 100;

/// Hosts they must be of to be blamed on the network.
const MIN_HOSTS: usize = 20;

/// How often somebody who waits looks whether the run is to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Before the first row is tried again; it doubles.
    first_pause: Duration,
    longest_pause: Duration,
    /// How long a row is held while nothing else goes on, as where all rows after it are refused by their URLs.
    longest_hold: Duration,
    /// Where this machine has run out of something, which others give back.
    local_pause: Duration,
}

const TIMES: Times = Times {
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(60),
    longest_hold: Duration::from_secs(30),
    local_pause: Duration::from_secs(1),
};

/// The network was away for longer than anybody wants to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing could be reached for {seconds} s: {num_rows} rows of {num_hosts} hosts failed in a row, the last one with {reason}: {message}"
)]
pub struct Outage {
    /// How long it was waited.
    pub seconds: u64,
    /// Rows that found it out.
    pub num_rows: usize,
    /// Hosts that they named.
    pub num_hosts: usize,
    /// How the last of them failed.
    pub reason: FetchReason,
    /// What exactly was found.
    pub message: String,
}

/// What a failure means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the host's.
    Genuine,
    /// It says nothing of the host.
    TryAgain,
    /// The same, and this attempt is to find out whether the network is back.
    Probe(OwnedSemaphorePermit),
    /// The run is over.
    Stop(Outage),
}

/// Our side of all connections.
#[derive(Debug)]
pub(super) struct Network {
    max_outage: Option<Duration>,
    times: Times,
    state: Mutex<State>,
    /// Told whenever somebody who waits may have waited long enough.
    changed: watch::Sender<()>,
    /// One row at a time finds out whether the network is back.
    probes: Arc<Semaphore>,
    hashes: RandomState,
    progress: Progress,
    stop: Stop,
}

#[derive(Debug)]
struct State {
    /// Answers so far, of whatever kind.
    num_reached: u64,
    /// Rows that have begun and have not ended.
    num_rows: usize,
    has_more_rows: bool,
    num_held: usize,
    /// Failures since the last answer or verdict, and hashes of their hosts.
    num_suspects: usize,
    suspects: HashSet<u64>,
    /// Every failure that is held has a number. Those below this one are the hosts'.
    genuine_below: u64,
    next_number: u64,
    outage: Option<Down>,
    over: Option<Outage>,
    /// Since when this machine has been out of something and nothing was reached.
    local_since: Option<Instant>,
    has_said_local: bool,
}

/// While the network is down.
#[derive(Debug, Clone)]
struct Down {
    since: Instant,
    pause: Duration,
    found: Outage,
}

/// One attempt to reach a host.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Answers when it began.
    num_reached: u64,
    _probe: Option<OwnedSemaphorePermit>,
}

/// A row that is on its way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Row {
    network: Arc<Network>,
}

impl Network {
    pub(super) fn new(max_outage: Option<Duration>, progress: Progress, stop: Stop) -> Self {
        let state = State {
            num_reached: 0,
            num_rows: 0,
            has_more_rows: true,
            num_held: 0,
            num_suspects: 0,
            suspects: HashSet::new(),
            genuine_below: 0,
            next_number: 0,
            outage: None,
            over: None,
            local_since: None,
            has_said_local: false,
        };
        Self {
            max_outage,
            times: TIMES,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            probes: Arc::new(Semaphore::new(1)),
            hashes: RandomState::new(),
            progress,
            stop,
        }
    }

    /// Begins a row.
    pub(super) fn row(self: &Arc<Self>) -> Row {
        self.state().num_rows += 1;
        Row { network: Arc::clone(self) }
    }

    /// Says that no rows follow: held ones will not be explained by them.
    pub(super) fn end_rows(&self) {
        let mut state = self.state();
        state.has_more_rows = false;
        self.conclude_at_end(&mut state);
    }

    /// Begins an attempt, as soon as the network is not known to be down.
    pub(super) async fn begin(&self, probe: Option<OwnedSemaphorePermit>) -> Result<Attempt, Outage> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.state();
                if let Some(outage) = &state.over {
                    return Err(outage.clone());
                }
                if probe.is_some() || state.outage.is_none() {
                    return Ok(Attempt { num_reached: state.num_reached, _probe: probe });
                }
            }
            let _ = changed.changed().await;
        }
    }

    /// Notes that a host has answered something. What happens to `attempt` from here on is compared with what others reach from here on.
    pub(super) fn reached(&self, attempt: &mut Attempt) {
        let mut state = self.state();
        state.num_reached += 1;
        attempt.num_reached = state.num_reached;
        state.num_suspects = 0;
        state.suspects.clear();
        state.local_since = None;
        if state.outage.take().is_some() {
            self.progress.go_on();
        }
        if state.num_held > 0 {
            self.changed.send_replace(());
        }
    }

    /// Finds out whose failure it is that an attempt has ended with. May take as long as the network is down.
    pub(super) async fn judge(&self, attempt: Attempt, host: &str, failure: &FetchFailure) -> Verdict {
        let Some(max_outage) =
            self.max_outage.filter(|_| failure.reason.may_be_ours() && !failure.is_certain)
        else {
            return Verdict::Genuine;
        };
        if failure.reason == FetchReason::LocalFailure {
            return self.wait_for_others(failure, max_outage).await;
        }
        let mut changed = self.changed.subscribe();
        let num_reached = attempt.num_reached;
        // Whoever held the right to probe gives it to the next one, so that another host is asked.
        drop(attempt);
        let Some((number, _held)) = self.hold(num_reached, host, failure) else { return Verdict::Genuine };
        loop {
            changed.mark_unchanged();
            let is_down = {
                let state = self.state();
                if let Some(outage) = &state.over {
                    return Verdict::Stop(outage.clone());
                }
                if state.num_reached > num_reached {
                    return Verdict::TryAgain;
                }
                if number < state.genuine_below {
                    return Verdict::Genuine;
                }
                state.outage.is_some()
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep(self.times.longest_hold), if !is_down => self.conclude_if_idle(),
                probe = Arc::clone(&self.probes).acquire_owned(), if is_down => {
                    let probe = probe.expect("the semaphore is never closed");
                    if let Some(verdict) = self.probe(probe, max_outage).await {
                        return verdict;
                    }
                }
            }
        }
    }

    /// Holds a row back, unless something was reached while it failed.
    fn hold(&self, num_reached: u64, host: &str, failure: &FetchFailure) -> Option<(u64, Held<'_>)> {
        let mut state = self.state();
        if state.num_reached > num_reached {
            return None;
        }
        state.num_held += 1;
        state.num_suspects += 1;
        state.suspects.insert(self.hashes.hash_one(host));
        let number = state.next_number;
        state.next_number += 1;
        if state.outage.is_none() && state.over.is_none() && state.num_suspects >= MIN_ROWS {
            if state.suspects.len() >= MIN_HOSTS {
                let found = Outage {
                    seconds: 0,
                    num_rows: state.num_suspects,
                    num_hosts: state.suspects.len(),
                    reason: failure.reason,
                    message: failure.message.clone(),
                };
                self.progress.pause(&format!(
                    "no host can be reached ({} rows of {} hosts in a row); the last one failed with {}: {}",
                    found.num_rows, found.num_hosts, found.reason, found.message
                ));
                state.outage = Some(Down { since: Instant::now(), pause: self.times.first_pause, found });
                self.changed.send_replace(());
            } else {
                self.conclude(&mut state);
            }
        }
        self.conclude_at_end(&mut state);
        drop(state);
        Some((number, Held { network: self }))
    }

    /// Waits until it is time to try again. Returns nothing if the network is back.
    async fn probe(&self, probe: OwnedSemaphorePermit, max_outage: Duration) -> Option<Verdict> {
        let (since, pause) = {
            let mut state = self.state();
            let down = state.outage.as_mut()?;
            let pause = down.pause;
            down.pause = (pause * 2).min(self.times.longest_pause);
            (down.since, pause)
        };
        let end = since + max_outage;
        let next = end.min(Instant::now() + pause);
        while Instant::now() < next && !self.stop.is_requested() {
            sleep(LOOK_INTERVAL.min(next.saturating_duration_since(Instant::now()))).await;
            self.state().outage.as_ref()?;
        }
        if Instant::now() < end && !self.stop.is_requested() {
            return Some(Verdict::Probe(probe));
        }
        let mut state = self.state();
        let outage = Outage { seconds: since.elapsed().as_secs(), ..state.outage.as_ref()?.found.clone() };
        state.over = Some(outage.clone());
        self.changed.send_replace(());
        Some(Verdict::Stop(outage))
    }

    /// Slows down where this machine has run out of something, which other requests give back.
    async fn wait_for_others(&self, failure: &FetchFailure, max_outage: Duration) -> Verdict {
        let since = {
            let mut state = self.state();
            if !std::mem::replace(&mut state.has_said_local, true) {
                self.progress.say(&format!("slowing down: {}", failure.message));
            }
            *state.local_since.get_or_insert_with(Instant::now)
        };
        if since.elapsed() >= max_outage || self.stop.is_requested() {
            let FetchFailure { reason, message, .. } = failure.clone();
            let seconds = since.elapsed().as_secs();
            let outage = Outage { seconds, num_rows: 1, num_hosts: 1, reason, message };
            self.state().over = Some(outage.clone());
            self.changed.send_replace(());
            return Verdict::Stop(outage);
        }
        sleep(self.times.local_pause).await;
        Verdict::TryAgain
    }

    /// Blames the hosts for everything that is held.
    fn conclude(&self, state: &mut State) {
        state.genuine_below = state.next_number;
        state.num_suspects = 0;
        state.suspects.clear();
        self.changed.send_replace(());
    }

    /// Everything that was begun is held, and nothing else begins: there is nothing to wait for.
    fn conclude_if_idle(&self) {
        let mut state = self.state();
        if state.num_held == state.num_rows && state.outage.is_none() {
            self.conclude(&mut state);
        }
    }

    fn conclude_at_end(&self, state: &mut State) {
        let is_end = !state.has_more_rows && state.num_held > 0 && state.num_held == state.num_rows;
        if is_end && state.outage.is_none() {
            self.conclude(state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters stay true when somebody who held them has panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let mut state = self.network.state();
        state.num_rows -= 1;
        self.network.conclude_at_end(&mut state);
    }
}

/// A row that is held, until it is dropped.
struct Held<'a> {
    network: &'a Network,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.network.state().num_held -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    fn network(max_outage: Option<u64>) -> Arc<Network> {
        let max_outage = max_outage.map(Duration::from_secs);
        let moment = Duration::from_millis(1);
        let times = Times {
            first_pause: moment,
            longest_pause: moment,
            // No test waits for its end.
            longest_hold: 60_000 * moment,
            local_pause: moment,
        };
        Arc::new(Network { times, ..Network::new(max_outage, Progress::silent(), Stop::default()) })
    }

    fn failure(reason: FetchReason) -> FetchFailure {
        FetchFailure::new(reason, "nothing came")
    }

    /// Fails at a host.
    async fn fail(network: &Network, host: &str) -> Verdict {
        let attempt = network.begin(None).await.unwrap();
        network.judge(attempt, host, &failure(FetchReason::DnsTimeout)).await
    }

    /// Reaches something.
    async fn succeed(network: &Network) {
        let mut attempt = network.begin(None).await.unwrap();
        network.reached(&mut attempt);
    }

    #[tokio::test]
    async fn a_failure_while_others_succeed_is_the_hosts() {
        let network = network(Some(600));
        let attempt = network.begin(None).await.unwrap();
        succeed(&network).await;
        let verdict = network.judge(attempt, "a", &failure(FetchReason::ConnectFailure)).now_or_never();
        assert!(matches!(verdict, Some(Verdict::Genuine)), "{verdict:?}");
    }

    #[tokio::test]
    async fn a_failure_that_cannot_be_ours_needs_no_witness() {
        let network = network(Some(600));
        let attempt = network.begin(None).await.unwrap();
        let verdict = network.judge(attempt, "a", &failure(FetchReason::HttpStatus(404))).now_or_never();
        assert!(matches!(verdict, Some(Verdict::Genuine)), "{verdict:?}");
    }

    #[tokio::test]
    async fn a_failure_without_witness_waits_and_is_tried_again() {
        let network = network(Some(600));
        let _rows = [network.row(), network.row()];
        let mut held = Box::pin(fail(&network, "a"));
        assert!((&mut held).now_or_never().is_none());
        succeed(&network).await;
        let verdict = held.now_or_never();
        assert!(matches!(verdict, Some(Verdict::TryAgain)), "{verdict:?}");
    }

    #[tokio::test]
    async fn the_last_rows_of_a_list_are_not_held_for_ever() {
        let network = network(Some(600));
        let (row, other) = (network.row(), network.row());
        let mut held = Box::pin(fail(&network, "a"));
        network.end_rows();
        assert!((&mut held).now_or_never().is_none(), "another one may still succeed");
        drop(other);
        let verdict = held.now_or_never();
        assert!(matches!(verdict, Some(Verdict::Genuine)), "{verdict:?}");
        drop(row);
    }

    #[tokio::test]
    async fn many_failures_of_one_host_are_its_own() {
        let network = network(Some(600));
        let _rows: Vec<Row> = (0..2 * MIN_ROWS).map(|_| network.row()).collect();
        let verdicts = join_all((0..MIN_ROWS).map(|_| fail(&network, "a"))).await;
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Genuine)), "{verdicts:?}");
    }

    #[tokio::test]
    async fn an_outage_holds_all_rows_until_something_is_reached() {
        let network = network(Some(600));
        let _rows: Vec<Row> = (0..2 * MIN_ROWS).map(|_| network.row()).collect();
        let hosts: Vec<String> = (0..MIN_ROWS).map(|number| number.to_string()).collect();
        let mut rows = join_all(hosts.iter().map(|host| fail(&network, host)));
        assert!((&mut rows).now_or_never().is_none());
        assert!(network.begin(None).now_or_never().is_none(), "nothing is begun while the network is down");
        let right = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut attempt = network.begin(Some(right)).await.unwrap();
        network.reached(&mut attempt);
        let verdicts = rows.await;
        // One of them may have been told to find out before that.
        let again = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::TryAgain)).count();
        assert!(again >= MIN_ROWS - 1, "{verdicts:?}");
        assert!(network.begin(None).now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_outage_without_end_ends_the_run() {
        let network = network(Some(1));
        let _rows: Vec<Row> = (0..2 * MIN_ROWS).map(|_| network.row()).collect();
        let row = |number: usize| {
            let network = &network;
            async move {
                let (mut probe, mut probes) = (None, 0);
                loop {
                    let Ok(attempt) = network.begin(probe.take()).await else { return probes };
                    let host = number.to_string();
                    match network.judge(attempt, &host, &failure(FetchReason::ConnectTimeout)).await {
                        Verdict::Probe(right) => (probe, probes) = (Some(right), probes + 1),
                        Verdict::Stop(outage) => {
                            assert!(outage.seconds >= 1 && outage.num_rows == MIN_ROWS, "{outage:?}");
                            return probes;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        };
        let probes: usize = join_all((0..MIN_ROWS + 50).map(row)).await.iter().sum();
        assert!(probes > 0);
    }

    #[tokio::test]
    async fn a_machine_out_of_files_slows_down_and_blames_no_host() {
        let local = failure(FetchReason::LocalFailure);
        for (max_outage, is_over) in [(600, false), (0, true)] {
            let network = network(Some(max_outage));
            let attempt = network.begin(None).await.unwrap();
            let verdict = network.judge(attempt, "a", &local).await;
            assert_eq!(matches!(verdict, Verdict::Stop(_)), is_over, "{verdict:?}");
            assert_eq!(matches!(verdict, Verdict::TryAgain), !is_over, "{verdict:?}");
        }
    }

    #[tokio::test]
    async fn without_a_limit_every_failure_counts() {
        let network = network(None);
        let verdict = fail(&network, "a").now_or_never();
        assert!(matches!(verdict, Some(Verdict::Genuine)), "{verdict:?}");
    }
}
