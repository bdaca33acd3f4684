use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{FetchFailure, FetchReason};

/// The end of an attempt. Time that it waits for us, and not for the host, does not count.
#[derive(Debug)]
pub(super) struct Deadline {
    limit: Duration,
    at: Instant,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { limit, at: Instant::now() + limit }
    }

    /// Does what waits for the host.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, FetchFailure> {
        timeout_at(self.at, work).await.map_err(|_| {
            let message = format!("not done within {} s", self.limit.as_secs_f64());
            FetchFailure::new(FetchReason::TotalTimeout, message)
        })
    }

    /// Does what waits for us. Returns how long that took, too.
    pub(super) async fn besides<T>(&mut self, work: impl Future<Output = T>) -> (T, Duration) {
        let began = Instant::now();
        let done = work.await;
        let waited = began.elapsed();
        self.at += waited;
        (done, waited)
    }
}
