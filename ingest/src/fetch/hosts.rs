//! Each host is asked a few times at once, and not too often.
//!
//! Whoever waits here holds nothing that others could use: no connection, and none of the requests of the run. So a host that is slow,
//! or that asks for a pause, costs its own rows time and nobody else's.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::filters::without_root;

/// Hosts that are remembered before those that nobody waits for are forgotten.
const FEW_HOSTS: usize = 1024;

/// The hosts that rows wait for.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Requests to one at a time.
    max_requests: NonZeroUsize,
    /// Least time between two requests to one.
    interval: Duration,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    hosts: HashMap<String, Arc<Host>>,
    /// Number at which those are forgotten that nobody waits for. It is twice what was left the last time, so that forgetting costs
    /// little.
    forget_at: usize,
}

#[derive(Debug)]
struct Host {
    requests: Arc<Semaphore>,
    times: Mutex<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    /// When the next request may begin by the rate.
    next: Instant,
    /// Until when the host has asked to be left alone.
    closed_until: Instant,
}

/// The right to ask a host once, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _request: OwnedSemaphorePermit,
    host: Arc<Host>,
}

impl Hosts {
    pub(super) fn new(max_requests: NonZeroUsize, interval: Duration) -> Self {
        let known = Known { hosts: HashMap::new(), forget_at: FEW_HOSTS };
        Self { max_requests, interval, known: Mutex::new(known) }
    }

    /// Waits until a host may be asked.
    pub(super) async fn turn(&self, host: &str) -> Turn {
        let host = self.host(host);
        let request = Arc::clone(&host.requests).acquire_owned().await;
        let request = request.expect("the semaphore is never closed");
        let mut begin = host.reserve(self.interval);
        while begin > Instant::now() {
            sleep_until(begin).await;
            // In the meantime another request may have been told to wait.
            begin = lock(&host.times).closed_until;
        }
        Turn { _request: request, host }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let name = without_root(name);
        let mut known = lock(&self.known);
        if let Some(host) = known.hosts.get(name) {
            return Arc::clone(host);
        }
        if known.hosts.len() >= known.forget_at {
            let now = Instant::now();
            known.hosts.retain(|_, host| Arc::strong_count(host) > 1 || !host.is_free(now));
            known.forget_at = FEW_HOSTS.max(2 * known.hosts.len());
        }
        let now = Instant::now();
        let host = Arc::new(Host {
            requests: Arc::new(Semaphore::new(self.max_requests.get())),
            times: Mutex::new(Times { next: now, closed_until: now }),
        });
        known.hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }
}

impl Host {
    /// Takes the next moment that is free.
    fn reserve(&self, interval: Duration) -> Instant {
        let mut times = lock(&self.times);
        let begin = times.next.max(times.closed_until).max(Instant::now());
        times.next = begin + interval;
        begin
    }

    fn is_free(&self, now: Instant) -> bool {
        let times = lock(&self.times);
        times.next <= now && times.closed_until <= now
    }
}

impl Turn {
    /// Leaves the host alone for a while, whoever wants to ask it.
    pub(super) fn close_host_for(&self, pause: Duration) {
        let mut times = lock(&self.host.times);
        times.closed_until = times.closed_until.max(Instant::now() + pause);
    }
}

/// Times stay right when somebody who held them has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn hosts(max_requests: usize, interval: Duration) -> Hosts {
        Hosts::new(NonZeroUsize::new(max_requests).unwrap(), interval)
    }

    #[tokio::test]
    async fn a_host_is_asked_a_few_times_at_once_and_others_are_not_held_up() {
        let hosts = hosts(2, Duration::ZERO);
        let turns = [hosts.turn("a").await, hosts.turn("a").await];
        // The same name, written to its end.
        let mut third = Box::pin(hosts.turn("a."));
        assert!((&mut third).now_or_never().is_none());
        assert!(hosts.turn("b").now_or_never().is_some());
        drop(turns);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn requests_to_a_host_keep_their_distance() {
        let interval = Duration::from_millis(20);
        let (hosts, began) = (hosts(8, interval), Instant::now());
        for turn in 0..4 {
            hosts.turn("a").await;
            assert!(began.elapsed() >= turn * interval);
        }
        assert!(hosts.turn("b").now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_host_that_asks_for_a_pause_gets_it_from_all() {
        let pause = Duration::from_millis(100);
        let (hosts, began) = (hosts(8, Duration::ZERO), Instant::now());
        hosts.turn("a").await.close_host_for(pause);
        assert!(hosts.turn("b").now_or_never().is_some());
        futures::join!(hosts.turn("a"), hosts.turn("a"));
        assert!(began.elapsed() >= pause);
    }

    #[tokio::test]
    async fn hosts_are_forgotten_when_nobody_waits_for_them() {
        let hosts = hosts(8, Duration::ZERO);
        let held = hosts.turn("held").await;
        hosts.turn("closed").await.close_host_for(Duration::from_secs(600));
        for number in 0..10 * FEW_HOSTS {
            hosts.turn(&number.to_string()).await;
        }
        let known = lock(&hosts.known);
        assert!(known.hosts.len() <= FEW_HOSTS, "{}", known.hosts.len());
        assert!(known.hosts.contains_key("held") && known.hosts.contains_key("closed"));
        drop(held);
    }
}
