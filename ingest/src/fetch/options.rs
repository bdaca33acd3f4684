use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

/// How images are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchOptions {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes of an answer.
    pub read_timeout: Duration,
    /// Longest time of one attempt with all its redirects.
    pub total_timeout: Duration,
    /// Least bytes a second of a body, once it has taken as long as [`Self::read_timeout`]. 0 for no limit.
    pub min_bytes_per_second: u64,
    /// Most bytes of an image file.
    pub max_bytes: u64,
    /// Memory for bodies of more than 256 KiB; each request may hold a smaller one besides. One body may go beyond it.
    pub body_memory_bytes: usize,
    /// Redirects that are followed.
    pub max_redirects: u32,
    /// Further attempts after failures that may pass.
    pub retries: u32,
    /// Requests at a time.
    pub max_requests: NonZeroUsize,
    /// Requests to one host at a time.
    pub max_requests_per_host: NonZeroUsize,
    /// Least time between the beginnings of two requests to one host.
    pub interval_per_host: Duration,
    /// How long a connection that nobody uses is kept.
    pub idle_timeout: Duration,
    /// How names are resolved.
    pub dns: DnsOptions,
    /// How long to wait for our own network, when nothing can be reached, before the run ends. Without it, rows of such times count as
    /// failed.
    pub max_outage: Option<Duration>,
    /// Name that hosts know this program by, and may address in `X-Robots-Tag`.
    pub user_agent_token: Option<String>,
    /// Directives of `X-Robots-Tag` that keep an image out.
    pub disallowed_directives: Vec<String>,
    /// Whether addresses of private networks and of this machine are asked.
    pub allow_private_hosts: bool,
    /// Private networks that are asked nevertheless.
    pub allowed_networks: Vec<IpNet>,
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsOptions {
    /// Servers to ask; none for those of the system.
    pub servers: Vec<SocketAddr>,
    /// Longest wait for the answer of a server.
    pub timeout: Duration,
    /// Names that are looked up at a time.
    pub max_lookups: NonZeroUsize,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            max_lookups: NonZeroUsize::new(256).expect("not zero"),
        }
    }
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(30),
            min_bytes_per_second: 1000,
            max_bytes: 64 << 20,
            body_memory_bytes: 128 << 20,
            max_redirects: 5,
            retries: 1,
            max_requests: NonZeroUsize::new(256).expect("not zero"),
            max_requests_per_host: NonZeroUsize::new(64).expect("not zero"),
            interval_per_host: Duration::ZERO,
            idle_timeout: Duration::from_secs(10),
            dns: DnsOptions::default(),
            max_outage: Some(Duration::from_secs(600)),
            user_agent_token: None,
            disallowed_directives: ["noai", "noimageai", "noindex", "noimageindex"]
                .map(str::to_owned)
                .to_vec(),
            allow_private_hosts: false,
            allowed_networks: Vec::new(),
        }
    }
}

impl FetchOptions {
    /// What hosts see. Many answer only what looks like a browser, so it begins as one does.
    pub(super) fn user_agent(&self) -> String {
        let token = self.user_agent_token.as_deref().unwrap_or("fastclip-ingest");
        format!("Mozilla/5.0 (compatible; {token}/{})", env!("CARGO_PKG_VERSION"))
    }
}
