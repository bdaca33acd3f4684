//! Images from hosts that nobody vouches for.
//!
//! A list of URLs is hostile input: it may name the machine next door, a host that never answers, or one that never ends. So
//! names are resolved here and addresses of private networks refused, for every redirect anew ([`address`]); redirects are
//! followed here, each answer's wish not to be trained on is heard ([`opt_out`]); and every wait and every length has a limit.
//! Each failure has an identifier that stays the same between versions ([`FetchReason`]).
//!
//! Bodies are asked for as they are. What a host compresses nevertheless is refused: a few kilobytes may stand for gigabytes.

mod address;
mod hosts;
mod opt_out;
mod options;
mod reason;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

pub use options::FetchOptions;
pub use reason::FetchReason;

use address::{PublicResolver, check_literal};
use hosts::Hosts;

/// Longest pause that a host may ask for; whoever wants more is not asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// First pause before another attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Bodies up to here may be held by every request at a time, larger ones by [`MAX_LARGE_BODIES`] only. Most images are smaller; so
/// the others cannot fill the memory, however many requests there are.
const LARGE_BODY_BYTES: usize = 1 << 20;

/// Large bodies at a time.
const MAX_LARGE_BODIES: usize = 8;

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ClientError(reqwest::Error);

/// What a host gave.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    /// Held as long as a large body is.
    _large: Option<OwnedSemaphorePermit>,
}

/// Why a URL gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchFailure {
    pub(crate) reason: FetchReason,
    pub(crate) message: String,
    /// How long the host asks to wait before the next request.
    retry_after: Option<Duration>,
}

impl FetchFailure {
    fn new(reason: FetchReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }
}

/// Asks hosts for images. Connections are kept and shared by all requests.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client,
    hosts: Hosts,
    large_bodies: Arc<Semaphore>,
    options: FetchOptions,
}

impl Fetcher {
    pub(crate) fn new(options: FetchOptions) -> Result<Self, ClientError> {
        let resolver = PublicResolver::new(options.allow_private_hosts);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, "identity".parse().expect("a word is a header's value"));
        let client = Client::builder()
            .user_agent(options.user_agent())
            .default_headers(headers)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(Arc::new(resolver))
            .build()
            .map_err(ClientError)?;
        let (hosts, large_bodies) =
            (Hosts::new(options.max_requests_per_host), Semaphore::new(MAX_LARGE_BODIES));
        Ok(Self { client, hosts, large_bodies: Arc::new(large_bodies), options })
    }

    /// Fetches the body behind a URL, with as many attempts as the options allow.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Fetched, FetchFailure> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..self.options.retries {
            match self.attempt(url).await {
                Err(failure) if failure.reason.is_retryable() => {
                    let asked = failure.retry_after.unwrap_or_default();
                    if asked > MAX_RETRY_AFTER {
                        return Err(failure);
                    }
                    sleep(pause.max(asked)).await;
                    pause *= 2;
                }
                ended => return ended,
            }
        }
        self.attempt(url).await
    }

    async fn attempt(&self, url: &str) -> Result<Fetched, FetchFailure> {
        let limit = self.options.total_timeout;
        timeout(limit, self.follow(url)).await.unwrap_or_else(|_| {
            let message = format!("not done within {} s", limit.as_secs_f64());
            Err(FetchFailure::new(FetchReason::TotalTimeout, message))
        })
    }

    /// Follows redirects to an answer, and reads it.
    async fn follow(&self, url: &str) -> Result<Fetched, FetchFailure> {
        let mut url =
            Url::parse(url).map_err(|error| FetchFailure::new(FetchReason::InvalidUrl, error.to_string()))?;
        for _ in 0..=self.options.max_redirects {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(FetchFailure::new(FetchReason::SchemeRefused, format!("`{}`", url.scheme())));
            }
            if !self.options.allow_private_hosts {
                check_literal(&url)?;
            }
            // Waiting for a turn counts for the limit of the whole, but holds no connection.
            let _turn = self.hosts.turn(&url).await;
            let answer = self.client.get(url.clone()).send().await.map_err(|error| reason::of(&error))?;
            opt_out::check(answer.headers(), &self.options)?;
            if !answer.status().is_redirection() {
                return self.read(answer).await;
            }
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| {
                FetchFailure::new(FetchReason::Protocol, format!("{} leads nowhere", answer.status()))
            })?;
        }
        let message = format!("more than {}", self.options.max_redirects);
        Err(FetchFailure::new(FetchReason::TooManyRedirects, message))
    }

    async fn read(&self, mut answer: Response) -> Result<Fetched, FetchFailure> {
        let status = answer.status();
        if !status.is_success() {
            let retry_after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
            let retry_after = retry_after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
            let failure = FetchFailure::new(FetchReason::HttpStatus(status.as_u16()), status.to_string());
            return Err(FetchFailure { retry_after, ..failure });
        }
        if let Some(encoding) =
            answer.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity")
        {
            return Err(FetchFailure::new(FetchReason::Encoded, format!("{encoding:?}")));
        }
        let max_bytes = self.options.max_bytes;
        let too_large = |num_bytes: u64| {
            FetchFailure::new(
                FetchReason::BodyTooLarge,
                format!("{num_bytes} bytes, the limit is {max_bytes}"),
            )
        };
        if let Some(announced) = answer.content_length().filter(|length| *length > max_bytes) {
            return Err(too_large(announced));
        }
        // What a host announces is believed as far as a small body goes: it may announce anything.
        let announced = answer.content_length().unwrap_or_default().min(LARGE_BODY_BYTES as u64);
        let (mut body, mut large) = (BytesMut::with_capacity(announced as usize), None);
        while let Some(piece) = answer.chunk().await.map_err(|error| reason::of(&error))? {
            let num_bytes = (body.len() + piece.len()) as u64;
            if num_bytes > max_bytes {
                return Err(too_large(num_bytes));
            }
            if body.len() + piece.len() > LARGE_BODY_BYTES && large.is_none() {
                let permit = Arc::clone(&self.large_bodies).acquire_owned().await;
                large = Some(permit.expect("the semaphore is never closed"));
            }
            body.extend_from_slice(&piece);
        }
        if body.is_empty() {
            return Err(FetchFailure::new(FetchReason::EmptyBody, status.to_string()));
        }
        Ok(Fetched { bytes: body.freeze(), _large: large })
    }
}

#[cfg(test)]
mod tests;
