//! Signs of life, and who is to blame when they stop.
//!
//! Each rank has a thread with its own connection to the store. It writes a pulse every beat: a counter and the number of
//! the collective that the rank has entered last. When a collective fails, the thread compares the pulses of the others
//! over some beats: who has stopped is dead, who is alive but behind did not come. The first to find out writes the
//! verdict, and all others report that one.
//!
//! All calls to the store that could block are made by this thread, because a call to a machine that vanished without a
//! word can block for ever; the rank itself waits for the thread's answer for a bounded time only.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastclip_torch_ext::{CollectiveError, FailureKind, Sequence, StoreError, TcpStore};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::verdict::{RankName, Verdict};

/// Beats without a pulse after which a rank counts as dead. A thread that only sleeps and writes a few bytes misses one or
/// two when all cores are busy, not five.
const PATIENCE: u32 = 5;

/// The longest time between two pulses; short time-outs beat faster, so that a verdict takes a quarter of one at most.
const LONGEST_BEAT: Duration = Duration::from_secs(1);

/// Returns the time between two pulses of a run with this time-out.
fn beat_of(timeout: Duration) -> Duration {
    (timeout / (4 * PATIENCE)).clamp(Duration::from_millis(20), LONGEST_BEAT)
}

/// What the watching thread needs to know.
pub(super) struct WatchOptions {
    /// A connection of its own.
    pub(super) store: TcpStore,
    pub(super) keys: Keys,
    /// This rank.
    pub(super) rank: usize,
    /// All ranks, in order.
    pub(super) names: Vec<RankName>,
    /// Whether rank 0 serves the store, as opposed to the launcher.
    pub(super) is_served_by_rank_zero: bool,
    /// The time-out of the run.
    pub(super) timeout: Duration,
}

/// The handle on the watching thread. Dropping it says good-bye to the other ranks and ends the thread.
#[derive(Debug)]
pub(super) struct Watch {
    requests: Sender<Request>,
    thread: Option<JoinHandle<()>>,
    sequence: Arc<OnceLock<Sequence>>,
    /// The verdict if the thread cannot be asked, since it is stuck in a call to the store.
    fallback: Verdict,
    /// Longer than any answer takes.
    answer_timeout: Duration,
}

#[derive(Debug)]
enum Request {
    Diagnose { failure: CollectiveError, answer: Sender<Verdict> },
    Announce { cause: String, is_refusal: bool, answer: Sender<()> },
    Leave { answer: Sender<()> },
}

impl Watch {
    /// Starts the thread.
    pub(super) fn start(options: WatchOptions) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let sequence = Arc::new(OnceLock::new());
        let beat = beat_of(options.timeout);
        let watcher = Watcher { sequence: Arc::clone(&sequence), beat, num_beats: 0, verdict: None, options };
        let fallback = watcher.store_gone();
        let thread =
            thread::Builder::new().name("rank-watch".to_owned()).spawn(move || watcher.run(&inbox))?;
        let answer_timeout = beat * (2 * PATIENCE) + Duration::from_secs(1);
        Ok(Self { requests, thread: Some(thread), sequence, fallback, answer_timeout })
    }

    /// Tells the other ranks from now on how far this one is in its group. Backward starts collectives on threads of its
    /// own, so that this thread reads their number where it is counted.
    pub(super) fn follow(&self, sequence: Sequence) {
        self.sequence.set(sequence).expect("a rank is in one group only");
    }

    /// Returns the first cause of a failure, on which the ranks agree.
    pub(super) fn diagnose(&self, failure: &CollectiveError) -> Verdict {
        self.ask(|answer| Request::Diagnose { failure: failure.clone(), answer })
            .unwrap_or_else(|| self.fallback.clone())
    }

    /// Tells the other ranks that this one fails by itself. Whether anybody hears it is not known.
    pub(super) fn announce(&self, cause: &str, is_refusal: bool) {
        self.ask(|answer| Request::Announce { cause: cause.to_owned(), is_refusal, answer });
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (answer, inbox) = mpsc::channel();
        self.requests.send(request(answer)).ok()?;
        inbox.recv_timeout(self.answer_timeout).ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.announce("it panicked", false);
        }
        let has_left = self.ask(|answer| Request::Leave { answer }).is_some();
        if let Some(thread) = self.thread.take()
            && has_left
        {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
        // Without an answer the thread is stuck in the store, maybe for ever: it is left behind.
    }
}

/// One sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Pulse {
    beat: u64,
    entered: u64,
}

struct Watcher {
    options: WatchOptions,
    sequence: Arc<OnceLock<Sequence>>,
    beat: Duration,
    num_beats: u64,
    verdict: Option<Verdict>,
}

impl Watcher {
    fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            // A store that is gone shows in the next collective, which asks for a verdict; until then nobody waits.
            let _ = self.pulse();
            match inbox.recv_timeout(self.beat) {
                Ok(Request::Diagnose { failure, answer }) => {
                    let verdict = self.diagnose(&failure);
                    let _ = answer.send(verdict);
                }
                Ok(Request::Announce { cause, is_refusal, answer }) => {
                    let rank = self.options.names[self.options.rank].clone();
                    let _ = self.propose(Verdict::Failed { rank, cause, is_refusal });
                    let _ = answer.send(());
                }
                Ok(Request::Leave { answer }) => {
                    let _ = self.leave();
                    let _ = answer.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Gives a sign of life, and looks whether there is a verdict.
    fn pulse(&mut self) -> Result<(), StoreError> {
        let WatchOptions { store, keys, rank, .. } = &self.options;
        self.num_beats += 1;
        let pulse = Pulse { beat: self.num_beats, entered: self.sequence.get().map_or(0, Sequence::last) };
        store.set(&keys.alive(*rank), &json(&pulse))?;
        if self.verdict.is_none()
            && let Some(bytes) = store.peek(&keys.verdict())?
        {
            self.accept(&bytes)?;
        }
        Ok(())
    }

    /// Takes over the verdict in the store, and says so there.
    fn accept(&mut self, bytes: &[u8]) -> Result<Verdict, StoreError> {
        // Only ranks of the same version write it; what cannot be read tells nothing.
        let verdict: Verdict = serde_json::from_slice(bytes).unwrap_or(Verdict::Unknown);
        self.verdict = Some(verdict.clone());
        self.options.store.set(&self.options.keys.seen(self.options.rank), b"")?;
        Ok(verdict)
    }

    /// Writes a verdict unless there is one, and returns the one that counts.
    fn propose(&mut self, verdict: Verdict) -> Result<Verdict, StoreError> {
        let bytes = self.options.store.set_once(&self.options.keys.verdict(), &json(&verdict))?;
        self.accept(&bytes)
    }

    fn diagnose(&mut self, failure: &CollectiveError) -> Verdict {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        match self.investigate(failure).and_then(|verdict| self.propose(verdict)) {
            Ok(verdict) => verdict,
            Err(_) => self.store_gone(),
        }
    }

    /// Watches the other ranks until it is clear who is to blame, or somebody else knows.
    fn investigate(&mut self, failure: &CollectiveError) -> Result<Verdict, StoreError> {
        let first = self.pulses()?;
        let mut last = first.clone();
        for _ in 0..PATIENCE {
            self.pulse()?;
            if let Some(verdict) = &self.verdict {
                return Ok(verdict.clone());
            }
            let left = self.others(|watcher, rank| watcher.is_set(&watcher.options.keys.left(rank)))?;
            if !left.is_empty() {
                return Ok(Verdict::Left { ranks: left });
            }
            thread::sleep(self.beat);
            last = self.pulses()?;
            let all_alive = first.iter().zip(&last).all(|(first, last)| first != last);
            if all_alive && failure.kind == FailureKind::TimedOut {
                break;
            }
        }
        let silent = self.others(|_, rank| Ok(first[rank].beats() == last[rank].beats()))?;
        if !silent.is_empty() {
            return Ok(Verdict::Silent { ranks: silent });
        }
        // After a broken connection to a rank that lives, others may be behind without guilt.
        if failure.kind == FailureKind::TimedOut {
            let absent = self.others(|_, rank| Ok(last[rank].entered() < failure.sequence))?;
            if !absent.is_empty() {
                return Ok(Verdict::Absent {
                    ranks: absent,
                    collective: failure.collective.to_string(),
                    sequence: failure.sequence,
                });
            }
        }
        Ok(Verdict::Unknown)
    }

    /// Says good-bye. The rank that serves the store also waits, for a while, until nobody else needs it.
    fn leave(&mut self) -> Result<(), StoreError> {
        let WatchOptions { store, keys, rank, .. } = &self.options;
        store.set(&keys.left(*rank), b"")?;
        if !(self.options.is_served_by_rank_zero && self.options.rank == 0) {
            return Ok(());
        }
        for _ in 0..PATIENCE {
            self.pulse()?;
            let blamed = self.verdict.as_ref().map(Verdict::ranks).unwrap_or_default();
            let needing = self.others(|watcher, rank| {
                let keys = &watcher.options.keys;
                let is_done = blamed.contains(&rank)
                    || watcher.is_set(&keys.left(rank))?
                    || watcher.is_set(&keys.seen(rank))?;
                Ok(!is_done)
            })?;
            if needing.is_empty() {
                break;
            }
            thread::sleep(self.beat);
        }
        Ok(())
    }

    fn is_set(&self, key: &str) -> Result<bool, StoreError> {
        self.options.store.check(&[key])
    }

    /// Returns the last pulse of each rank.
    fn pulses(&self) -> Result<Vec<LastPulse>, StoreError> {
        (0..self.options.names.len())
            .map(|rank| {
                let bytes = self.options.store.peek(&self.options.keys.alive(rank))?;
                Ok(LastPulse(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())))
            })
            .collect()
    }

    /// Returns the names of the other ranks of which `is_meant` holds.
    fn others(
        &self,
        is_meant: impl Fn(&Self, usize) -> Result<bool, StoreError>,
    ) -> Result<Vec<RankName>, StoreError> {
        let mut names = Vec::new();
        for name in &self.options.names {
            if name.rank != self.options.rank && is_meant(self, name.rank)? {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    fn store_gone(&self) -> Verdict {
        let rank = self.options.is_served_by_rank_zero.then(|| self.options.names[0].clone());
        Verdict::StoreGone { rank, address: self.options.store.address().to_owned() }
    }
}

/// The last pulse of a rank, or nothing before its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LastPulse(Option<Pulse>);

impl LastPulse {
    fn beats(self) -> u64 {
        self.0.map_or(0, |pulse| pulse.beat)
    }

    fn entered(self) -> u64 {
        self.0.map_or(0, |pulse| pulse.entered)
    }
}

/// Returns `value` as the bytes that go into the store.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, strings and lists of them can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_a_quarter_of_the_time_out_at_most() {
        for seconds in [1, 5, 20, 600] {
            let timeout = Duration::from_secs(seconds);
            assert!(beat_of(timeout) * PATIENCE <= timeout / 4, "{seconds}");
        }
        assert_eq!(beat_of(Duration::from_secs(600)), LONGEST_BEAT);
    }
}
