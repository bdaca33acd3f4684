use std::num::NonZeroUsize;
use std::time::Duration;

use fastclip_ingest::FetchOptions;

/// How hosts are asked, for the commands that do.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(256).expect("not zero"), help_heading = "Requests")]
    pub(super) thread_count: NonZeroUsize,
    /// Requests to one host at a time
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_requests_per_host, help_heading = "Requests")]
    max_requests_per_host: NonZeroUsize,
    /// Seconds to wait for a connection, and for the next bytes of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds, help_heading = "Requests")]
    timeout: f64,
    /// Seconds for one attempt as a whole
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = parse_seconds, help_heading = "Requests")]
    total_timeout: f64,
    /// Further attempts after failures that may pass
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Requests")]
    retries: u32,
    /// Bytes of an image file
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_bytes, help_heading = "Requests")]
    max_file_bytes: u64,
    /// Name that hosts may address in X-Robots-Tag
    #[arg(long, value_name = "NAME", help_heading = "Requests")]
    user_agent_token: Option<String>,
    /// Directives of X-Robots-Tag that keep an image out, separated by commas; empty for none
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "noai,noimageai,noindex,noimageindex",
        help_heading = "Requests"
    )]
    disallowed_header_directives: String,
    /// Ask hosts in private networks and on this machine, too
    #[arg(long, help_heading = "Requests")]
    allow_private_hosts: bool,
}

impl RequestArgs {
    pub(super) fn resolve(self) -> FetchOptions {
        let timeout = Duration::from_secs_f64(self.timeout);
        let directives = self.disallowed_header_directives.split(',').map(str::trim);
        FetchOptions {
            connect_timeout: timeout,
            read_timeout: timeout,
            total_timeout: Duration::from_secs_f64(self.total_timeout),
            max_bytes: self.max_file_bytes,
            retries: self.retries,
            max_requests_per_host: self.max_requests_per_host,
            user_agent_token: self.user_agent_token,
            disallowed_directives: directives.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            allow_private_hosts: self.allow_private_hosts,
            ..FetchOptions::default()
        }
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e6 => Ok(seconds),
        _ => Err("expected a number of seconds above 0".to_owned()),
    }
}
