//! Images from hosts that nobody vouches for.
//!
//! A list of URLs is hostile input: it may name the machine next door, a host that never answers, or one that never ends. So
//! names are resolved here and addresses of private networks refused, for every redirect anew ([`resolver`], [`address`]); redirects are
//! followed here, each answer's wish not to be trained on is heard ([`opt_out`]); and every wait and every length has a limit.
//! Each failure has an identifier that stays the same between versions ([`FetchReason`]), and is the host's and not ours ([`network`]).
//!
//! Bodies are asked for as they are. What a host compresses nevertheless is refused: a few kilobytes may stand for gigabytes.
//!
//! A row waits for its host ([`hosts`]), then for one of the requests of the run, then for the host's answer. Only the last is timed, and
//! whoever waits for a host holds no request: slow hosts do not hold up others.

mod address;
mod bodies;
mod client_error;
mod deadline;
mod hosts;
mod network;
mod opt_out;
mod options;
mod reason;
mod resolver;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

pub use network::Outage;
pub(crate) use network::Row;
pub use options::{DnsOptions, FetchOptions};
pub use reason::FetchReason;

use crate::progress::Progress;
use crate::stop::Stop;
use address::AddressRule;
use bodies::{BodyMemory, Reservation, SMALL_BODY_BYTES};
use client_error::failure_of;
use deadline::Deadline;
use hosts::{Hosts, Turn};
use network::{Attempt, Network, Verdict};
use resolver::Resolver;

/// Longest pause that a host may ask for; whoever wants more is not asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// First pause before another attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The client could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The HTTP client.
    #[error("could not set up the HTTP client")]
    Http(#[source] reqwest::Error),
    /// The DNS resolver.
    #[error("could not set up the DNS resolver")]
    Resolver(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a host gave. While it is held, so is the request that brought it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    _memory: Reservation,
    _request: OwnedSemaphorePermit,
}

/// Why a URL gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchFailure {
    pub(crate) reason: FetchReason,
    pub(crate) message: String,
    /// Whether another attempt is worth it.
    is_retryable: bool,
    /// Whether it is known not to be ours, however it looks.
    is_certain: bool,
}

impl FetchFailure {
    fn new(reason: FetchReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_retryable: reason.is_retryable(), is_certain: false }
    }
}

/// How asking for a URL ended without an image.
#[derive(Debug)]
pub(crate) enum Unfetched {
    /// The host is to blame.
    Failed(FetchFailure),
    /// Our network is: nothing was learned.
    Offline(Outage),
    /// It was not to begin any more.
    Skipped,
}

/// Asks hosts for images. Connections are kept and shared by all requests.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client,
    resolver: Resolver,
    rule: AddressRule,
    hosts: Hosts,
    requests: Arc<Semaphore>,
    bodies: BodyMemory,
    network: Arc<Network>,
    progress: Progress,
    options: FetchOptions,
}

/// Says whether a row that has waited for its turn is still wanted.
pub(crate) type IsWanted<'a> = &'a (dyn Fn() -> bool + Sync);

/// A step of an attempt: where it is, and what it has left.
struct Step<'a> {
    is_wanted: IsWanted<'a>,
    attempt: &'a mut Attempt,
    deadline: &'a mut Deadline,
}

impl Fetcher {
    pub(crate) fn new(options: FetchOptions, progress: Progress, stop: Stop) -> Result<Self, ClientError> {
        let rule = AddressRule::new(options.allow_private_hosts, options.allowed_networks.clone());
        let resolver = Resolver::new(&options.dns, rule.clone())?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, "identity".parse().expect("a word is a header's value"));
        let client = Client::builder()
            .user_agent(options.user_agent())
            .default_headers(headers)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .pool_idle_timeout(options.idle_timeout)
            // What comes before it is read is held by the client.
            .http2_initial_stream_window_size(SMALL_BODY_BYTES as u32)
            .http2_initial_connection_window_size(4 * SMALL_BODY_BYTES as u32)
            .pool_max_idle_per_host(options.max_requests_per_host.get())
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(Arc::new(resolver.clone()))
            .build()
            .map_err(ClientError::Http)?;
        let max_bytes = usize::try_from(options.max_bytes).unwrap_or(usize::MAX);
        Ok(Self {
            client,
            resolver,
            rule,
            hosts: Hosts::new(options.max_requests_per_host, options.interval_per_host),
            requests: Arc::new(Semaphore::new(options.max_requests.get())),
            bodies: BodyMemory::new(options.body_memory_bytes, max_bytes),
            network: Arc::new(Network::new(options.max_outage, progress.clone(), stop)),
            progress,
            options,
        })
    }

    /// Announces a row, which is on its way until the result is dropped.
    pub(crate) fn row(&self) -> Row {
        self.network.row()
    }

    /// Says that no rows follow.
    pub(crate) fn end_rows(&self) {
        self.network.end_rows();
    }

    /// Fetches the body behind a URL, with as many attempts as the options allow.
    pub(crate) async fn fetch(&self, url: &str, is_wanted: IsWanted<'_>) -> Result<Fetched, Unfetched> {
        let (mut pause, mut retries) = (FIRST_PAUSE, self.options.retries);
        let mut probe = None;
        loop {
            let mut attempt = self.network.begin(probe.take()).await.map_err(Unfetched::Offline)?;
            // Boxed, because thousands of rows wait in this function, and few of them are being asked for.
            let (failure, host) = match Box::pin(self.attempt(url, &mut attempt, is_wanted)).await {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => return Err(Unfetched::Skipped),
                Err(failed) => failed,
            };
            match self.network.judge(attempt, &host, &failure).await {
                Verdict::Genuine if retries > 0 && failure.is_retryable => {
                    retries -= 1;
                    sleep(pause).await;
                    pause *= 2;
                }
                Verdict::Genuine => {
                    self.resolver.remember_failure(&host, &failure);
                    return Err(Unfetched::Failed(failure));
                }
                Verdict::TryAgain => self.resolver.forget(&host),
                Verdict::Probe(permit) => {
                    self.resolver.forget(&host);
                    probe = Some(permit);
                }
                Verdict::Stop(outage) => return Err(Unfetched::Offline(outage)),
            }
        }
    }

    /// Follows redirects to an answer, and reads it, if it is still wanted. A failure comes with the host it is of.
    async fn attempt(
        &self,
        url: &str,
        attempt: &mut Attempt,
        is_wanted: IsWanted<'_>,
    ) -> Result<Option<Fetched>, (FetchFailure, String)> {
        let deadline = &mut Deadline::after(self.options.total_timeout);
        let mut step = Step { is_wanted, attempt, deadline };
        let nowhere = |failure| (failure, String::new());
        let mut url = Url::parse(url)
            .map_err(|error| nowhere(FetchFailure::new(FetchReason::InvalidUrl, error.to_string())))?;
        for _ in 0..=self.options.max_redirects {
            if !matches!(url.scheme(), "http" | "https") {
                let failure = FetchFailure::new(FetchReason::SchemeRefused, format!("`{}`", url.scheme()));
                return Err(nowhere(failure));
            }
            self.rule.check_literal(&url).map_err(nowhere)?;
            let host = url.host_str().unwrap_or_default().to_owned();
            match self.visit(url, &mut step).await.map_err(|failure| (failure, host))? {
                Visited::Body(fetched) => return Ok(Some(fetched)),
                Visited::Redirect(next) => url = next,
                Visited::Skipped => return Ok(None),
            }
        }
        let message = format!("more than {}", self.options.max_redirects);
        Err(nowhere(FetchFailure::new(FetchReason::TooManyRedirects, message)))
    }

    /// Asks one host.
    async fn visit(&self, url: Url, step: &mut Step<'_>) -> Result<Visited, FetchFailure> {
        let host = url.host_str().unwrap_or_default();
        let (turn, _) = step.deadline.besides(self.hosts.turn(host)).await;
        let (request, _) = step.deadline.besides(Arc::clone(&self.requests).acquire_owned()).await;
        let request = request.expect("the semaphore is never closed");
        if !(step.is_wanted)() {
            return Ok(Visited::Skipped);
        }
        let _in_flight = self.progress.in_flight();
        if let Some(name) = url.domain() {
            if let Some(failure) = self.resolver.known_failure(name) {
                return Err(failure);
            }
            // The client finds the answer again when it connects. Asked for there, the wait would count as one for a connection.
            step.deadline.within(self.resolver.addresses(name)).await??;
        }
        let answer = step.deadline.within(self.client.get(url.clone()).send()).await?;
        let answer = answer.map_err(|error| {
            let failure = failure_of(&error);
            if !failure.reason.may_be_ours() {
                self.network.reached(step.attempt);
            }
            failure
        })?;
        self.network.reached(step.attempt);
        opt_out::check(answer.headers(), &self.options)?;
        if !answer.status().is_redirection() {
            return self.read(answer, &turn, request, step).await.map(Visited::Body);
        }
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        next.map(Visited::Redirect).ok_or_else(|| {
            FetchFailure::new(FetchReason::Protocol, format!("{} leads nowhere", answer.status()))
        })
    }

    async fn read(
        &self,
        mut answer: Response,
        turn: &Turn,
        request: OwnedSemaphorePermit,
        step: &mut Step<'_>,
    ) -> Result<Fetched, FetchFailure> {
        let status = answer.status();
        let is_without_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        if is_without_body || !status.is_success() {
            let mut failure = FetchFailure::new(FetchReason::HttpStatus(status.as_u16()), status.to_string());
            match retry_after(answer.headers()) {
                Some(pause) if pause <= MAX_RETRY_AFTER => turn.close_host_for(pause),
                Some(_) => failure.is_retryable = false,
                None => {}
            }
            return Err(failure);
        }
        if let Some(encoding) =
            answer.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity")
        {
            return Err(FetchFailure::new(FetchReason::Encoded, format!("{encoding:?}")));
        }
        let max_bytes = self.options.max_bytes;
        let too_large = |num_bytes: u64| {
            let message = format!("{num_bytes} bytes, the limit is {max_bytes}");
            FetchFailure::new(FetchReason::BodyTooLarge, message)
        };
        let announced = answer.content_length().unwrap_or_default();
        if announced > max_bytes {
            return Err(too_large(announced));
        }
        let (mut memory, _) = step.deadline.besides(self.bodies.reserve(announced as usize)).await;
        // What a host announces is believed as far as a small body goes: it may announce anything.
        let mut body = Vec::with_capacity((announced as usize).min(SMALL_BODY_BYTES));
        let mut began = Instant::now();
        while let Some(piece) =
            step.deadline.within(answer.chunk()).await?.map_err(|error| failure_of(&error))?
        {
            self.progress.receive(piece.len() as u64);
            let num_bytes = body.len() + piece.len();
            if num_bytes as u64 > max_bytes {
                return Err(too_large(num_bytes as u64));
            }
            let ((), waited) = step.deadline.besides(self.bodies.grow(&mut memory, num_bytes)).await;
            began += waited;
            BodyMemory::append(&mut body, &piece, &memory);
            self.check_rate(body.len(), began.elapsed())?;
        }
        if body.is_empty() {
            return Err(FetchFailure::new(FetchReason::EmptyBody, status.to_string()));
        }
        Ok(Fetched { bytes: body.into(), _memory: memory, _request: request })
    }

    fn check_rate(&self, num_bytes: usize, elapsed: Duration) -> Result<(), FetchFailure> {
        let least = self.options.min_bytes_per_second;
        let rate = num_bytes as f64 / elapsed.as_secs_f64();
        if elapsed <= self.options.read_timeout || rate >= least as f64 {
            return Ok(());
        }
        let message = format!("{rate:.0} bytes/s, the least is {least}");
        Err(FetchFailure::new(FetchReason::TooSlow, message))
    }
}

/// What a host that was asked once has said.
enum Visited {
    Body(Fetched),
    Redirect(Url),
    /// It was not asked.
    Skipped,
}

/// The pause that a host asks for. Those that name a date instead of seconds are few, and clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
