use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use fastclip_ingest::{DnsOptions, FetchOptions};
use ipnet::IpNet;

use super::files::{Files, TooFewFiles};
use super::parse_seconds;

/// How hosts are asked, for the commands that do.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(256).expect("not zero"), help_heading = "Requests")]
    thread_count: NonZeroUsize,
    /// Requests to one host at a time
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_requests_per_host, help_heading = "Requests")]
    max_requests_per_host: NonZeroUsize,
    /// Requests to one host a second [default: no limit]
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Requests")]
    max_requests_per_second_per_host: Option<f64>,
    /// Seconds to wait for a connection, and for the next bytes of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds, help_heading = "Requests")]
    timeout: f64,
    /// Seconds for one attempt as a whole
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = parse_seconds, help_heading = "Requests")]
    total_timeout: f64,
    /// Least bytes a second of an image that has taken --timeout; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().min_bytes_per_second, help_heading = "Requests")]
    min_bytes_per_second: u64,
    /// Redirects that are followed
    #[arg(long, value_name = "N", default_value_t = FetchOptions::default().max_redirects, help_heading = "Requests")]
    max_redirects: u32,
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
    /// Private networks to ask, such as 10.1.0.0/16, separated by commas
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', help_heading = "Requests")]
    allow_networks: Vec<IpNet>,

    /// DNS servers, with or without a port, separated by commas [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', value_parser = parse_dns_server, help_heading = "Network")]
    dns_servers: Vec<SocketAddr>,
    /// Seconds to wait for an answer of a DNS server
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_seconds, help_heading = "Network")]
    dns_timeout: f64,
    /// Names that are looked up at a time
    #[arg(long, value_name = "N", default_value_t = DnsOptions::default().max_lookups, help_heading = "Network")]
    max_dns_lookups: NonZeroUsize,
    /// Seconds to wait when no host can be reached any more, before the run stops; `off` counts such rows as failed
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_outage, help_heading = "Network")]
    max_outage: MaxOutage,
}

/// How long to wait for the network, if it is waited for.
#[derive(Debug, Clone, Copy)]
struct MaxOutage(Option<Duration>);

impl RequestArgs {
    pub(super) fn resolve(self) -> Result<FetchOptions, TooFewFiles> {
        let timeout = Duration::from_secs_f64(self.timeout);
        let files = Files::for_requests(self.thread_count, self.max_dns_lookups)?;
        let directives = self.disallowed_header_directives.split(',').map(str::trim);
        Ok(FetchOptions {
            connect_timeout: timeout,
            read_timeout: timeout,
            total_timeout: Duration::from_secs_f64(self.total_timeout),
            min_bytes_per_second: self.min_bytes_per_second,
            max_bytes: self.max_file_bytes,
            max_redirects: self.max_redirects,
            retries: self.retries,
            max_requests: self.thread_count,
            max_requests_per_host: self.max_requests_per_host,
            interval_per_host: self
                .max_requests_per_second_per_host
                .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())),
            idle_timeout: files.idle_timeout(),
            dns: DnsOptions {
                servers: self.dns_servers,
                timeout: Duration::from_secs_f64(self.dns_timeout),
                max_lookups: self.max_dns_lookups,
            },
            max_outage: self.max_outage.0,
            user_agent_token: self.user_agent_token,
            disallowed_directives: directives.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            allow_private_hosts: self.allow_private_hosts,
            allowed_networks: self.allow_networks,
            ..FetchOptions::default()
        })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 1e-6 && rate.is_finite() => Ok(rate),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn parse_dns_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse().map(|address: IpAddr| (address, 53).into()));
    address.map_err(|_| "expected an address, such as 9.9.9.9 or [2620:fe::fe]:53".to_owned())
}

fn parse_outage(text: &str) -> Result<MaxOutage, String> {
    match text.parse::<f64>() {
        _ if text == "off" => Ok(MaxOutage(None)),
        Ok(seconds) if (0.0..1e9).contains(&seconds) => Ok(MaxOutage(Some(Duration::from_secs_f64(seconds)))),
        _ => Err("expected a number of seconds, or `off`".to_owned()),
    }
}
