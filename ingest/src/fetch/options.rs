use std::num::NonZeroUsize;
use std::time::Duration;

/// How images are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOptions {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes of an answer.
    pub read_timeout: Duration,
    /// Longest time of one attempt with all its redirects.
    pub total_timeout: Duration,
    /// Most bytes of an image file.
    pub max_bytes: u64,
    /// Redirects that are followed.
    pub max_redirects: u32,
    /// Further attempts after failures that may pass.
    pub retries: u32,
    /// Requests to one host at a time.
    pub max_requests_per_host: NonZeroUsize,
    /// Name that hosts know this program by, and may address in `X-Robots-Tag`.
    pub user_agent_token: Option<String>,
    /// Directives of `X-Robots-Tag` that keep an image out.
    pub disallowed_directives: Vec<String>,
    /// Whether addresses of private networks and of this machine are asked.
    pub allow_private_hosts: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(30),
            max_bytes: 64 << 20,
            max_redirects: 5,
            retries: 1,
            max_requests_per_host: NonZeroUsize::new(64).expect("not zero"),
            user_agent_token: None,
            disallowed_directives: ["noai", "noimageai", "noindex", "noimageindex"]
                .map(str::to_owned)
                .to_vec(),
            allow_private_hosts: false,
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
