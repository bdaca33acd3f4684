use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;

use reqwest::Url;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Hosts are spread over so many queues. A list names millions of them, and a queue for each would fill the memory; that two
/// busy hosts share one is rare and costs a little time.
const NUM_QUEUES: usize = 4096;

/// Lets each host be asked a few times at once.
#[derive(Debug)]
pub(super) struct Hosts {
    queues: Box<[Semaphore]>,
}

impl Hosts {
    pub(super) fn new(max_requests: NonZeroUsize) -> Self {
        Self { queues: (0..NUM_QUEUES).map(|_| Semaphore::new(max_requests.get())).collect() }
    }

    /// Waits until the host of a URL may be asked. It is being asked until the permit is dropped.
    pub(super) async fn turn(&self, url: &Url) -> SemaphorePermit<'_> {
        let mut hasher = DefaultHasher::new();
        url.host_str().hash(&mut hasher);
        let queue = &self.queues[(hasher.finish() % NUM_QUEUES as u64) as usize];
        queue.acquire().await.expect("the semaphore is never closed")
    }
}
