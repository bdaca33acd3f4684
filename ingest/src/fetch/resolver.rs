use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver as DnsResolver, TokioResolver};
use moka::sync::Cache;
use reqwest::dns::{Addrs, Name as HostName, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::address::AddressRule;
use super::{ClientError, DnsOptions, FetchFailure, FetchReason};

/// Answers that are kept. A list names millions of hosts, and some again and again.
const CACHED_ANSWERS: u64 = 1 << 15;

/// An answer is kept at least so long, also where its server says 0: a host is asked for many images in a row.
const MIN_ANSWER_TTL: Duration = Duration::from_secs(30);

/// A name without addresses may get some.
const MAX_UNKNOWN_TTL: Duration = Duration::from_secs(300);

/// How long a name is left alone that is known to have no address or broken servers, which took seconds to find out.
const FAILURE_TTL: Duration = Duration::from_secs(30);

/// Attempts to learn the addresses of a name, over all servers.
const TRIES: u32 = 2;

/// Pause before the second attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Why a name has no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    /// There is no such name, or it has no address.
    #[error("`{host}` has no address")]
    Unknown { host: String },
    /// The servers do not know.
    #[error("the DNS servers failed for `{host}`: {message}")]
    Failed { host: String, message: String },
    /// The servers are silent, or nobody is there.
    #[error("no DNS server answered for `{host}`: {message}")]
    Silent { host: String, message: String },
    /// This machine cannot ask.
    #[error("could not ask a DNS server: {message}")]
    Local { message: String },
    /// All its addresses are private.
    #[error("`{host}` is {address}, which is private")]
    Private { host: String, address: IpAddr },
}

impl From<Unresolved> for FetchFailure {
    fn from(unresolved: Unresolved) -> Self {
        let reason = match unresolved {
            Unresolved::Unknown { .. } => FetchReason::DnsUnknown,
            Unresolved::Failed { .. } => FetchReason::DnsFailure,
            Unresolved::Silent { .. } => FetchReason::DnsTimeout,
            Unresolved::Local { .. } => FetchReason::LocalFailure,
            Unresolved::Private { .. } => FetchReason::PrivateAddress,
        };
        FetchFailure::new(reason, unresolved.to_string())
    }
}

/// Resolves names, and leaves private addresses out. The client connects to what this returns and asks nobody else, so that
/// a name cannot mean one address when it is checked and another when it is used.
///
/// The system's resolver would take a thread for each name and keep no answers: with hundreds of requests at a time for a million
/// hosts, names are what a run waits for.
#[derive(Clone)]
pub(super) struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    dns: TokioResolver,
    rule: AddressRule,
    timeout: Duration,
    /// Kinds of addresses, in the order in which they are asked for.
    kinds: [RecordType; 2],
    lookups: Semaphore,
    /// Failures that are known to be the name's and not ours. Answers are kept by the resolver below.
    failures: Cache<String, FetchFailure>,
}

impl Resolver {
    pub(super) fn new(options: &DnsOptions, rule: AddressRule) -> Result<Self, ClientError> {
        let (config, system) = configuration(&options.servers);
        let mut builder = DnsResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let settings = builder.options_mut();
        *settings = system;
        settings.timeout = options.timeout;
        // Tried again here, after a pause.
        settings.attempts = 0;
        settings.cache_size = CACHED_ANSWERS;
        settings.positive_min_ttl = Some(MIN_ANSWER_TTL);
        settings.negative_max_ttl = Some(MAX_UNKNOWN_TTL);
        settings.max_active_requests = options.max_lookups.get();
        let dns = builder.build().map_err(|source| ClientError::Resolver(source.into()))?;
        let failures = Cache::builder().max_capacity(CACHED_ANSWERS).time_to_live(FAILURE_TTL).build();
        let (timeout, lookups) = (options.timeout, Semaphore::new(options.max_lookups.get()));
        Ok(Self { shared: Arc::new(Shared { dns, rule, timeout, kinds: kinds(), lookups, failures }) })
    }

    /// Addresses of a host that may be asked; never none.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.ask(host).await {
                Err(Unresolved::Failed { .. } | Unresolved::Silent { .. }) => sleep(pause).await,
                ended => return ended,
            }
            pause *= 2;
        }
        self.ask(host).await
    }

    /// The failure of a name, if it is known to be its own.
    pub(super) fn known_failure(&self, host: &str) -> Option<FetchFailure> {
        self.shared.failures.get(host)
    }

    /// Remembers that a failure is the name's.
    pub(super) fn remember_failure(&self, host: &str, failure: &FetchFailure) {
        use FetchReason::{DnsFailure, DnsTimeout, DnsUnknown};
        if !failure.is_certain && matches!(failure.reason, DnsUnknown | DnsFailure | DnsTimeout) {
            let failure = FetchFailure { is_certain: true, ..failure.clone() };
            self.shared.failures.insert(host.to_owned(), failure);
        }
    }

    /// Forgets what was learned of a host while it may have been our network that failed.
    pub(super) fn forget(&self, host: &str) {
        if let Ok(name) = name_of(host) {
            for kind in self.shared.kinds {
                self.shared.dns.clear_lookup_cache(name.clone(), kind);
            }
        }
    }

    async fn ask(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let Shared { dns, rule, timeout: limit, kinds, lookups, .. } = &*self.shared;
        let unknown = || Unresolved::Unknown { host: host.to_owned() };
        let name = name_of(host).map_err(|_| unknown())?;
        let _slot = lookups.acquire().await.expect("the semaphore is never closed");
        let mut found: Vec<IpAddr> = Vec::new();
        for kind in *kinds {
            // The resolver's own limit is for one server.
            let lookup = timeout(2 * *limit, dns.lookup(name.clone(), kind)).await;
            match lookup.unwrap_or(Err(NetError::Timeout)) {
                Ok(answer) => found.extend(LookupIp::from(answer).iter()),
                Err(error) if error.is_no_records_found() && !error.is_nx_domain() => {}
                Err(error) => return Err(unresolved(host, &error)),
            }
            if !found.is_empty() {
                break;
            }
        }
        let allowed: Vec<IpAddr> = found.iter().copied().filter(|address| rule.allows(*address)).collect();
        match (allowed.is_empty(), found.first()) {
            (true, Some(address)) => Err(Unresolved::Private { host: host.to_owned(), address: *address }),
            (true, None) => Err(unknown()),
            _ => Ok(allowed),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: HostName) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("rule", &self.shared.rule).finish_non_exhaustive()
    }
}

fn name_of(host: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_str_relaxed(host)?;
    // Of a list, names with dots are whole. Otherwise each that does not exist would be looked for in all domains of this
    // machine.
    if host.contains('.') {
        name.set_fqdn(true);
    }
    Ok(name)
}

fn unresolved(host: &str, error: &NetError) -> Unresolved {
    let (host, message) = (host.to_owned(), error.to_string());
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => Unresolved::Unknown { host },
        NetError::Dns(_) | NetError::Proto(_) | NetError::Truncated => Unresolved::Failed { host, message },
        NetError::Io(source) if is_local(source) => Unresolved::Local { message },
        NetError::Io(_) | NetError::Timeout | NetError::NoConnections => Unresolved::Silent { host, message },
        _ => Unresolved::Failed { host, message },
    }
}

/// Whether this machine lacks what a connection needs, so that no host is to blame.
pub(super) fn is_local(error: &io::Error) -> bool {
    const LOCAL: [rustix::io::Errno; 4] = [
        rustix::io::Errno::MFILE,
        rustix::io::Errno::NFILE,
        rustix::io::Errno::NOBUFS,
        rustix::io::Errno::NOMEM,
    ];
    rustix::io::Errno::from_io_error(error).is_some_and(|errno| LOCAL.contains(&errno))
}

/// The servers that were named, or else those of the system. Where it has none either, resolv.conf(5) promises one on this machine.
fn configuration(servers: &[SocketAddr]) -> (ResolverConfig, ResolverOpts) {
    let here = [SocketAddr::from((Ipv4Addr::LOCALHOST, 53))];
    let (servers, options) = match (servers, read_system_conf()) {
        ([], Ok(system)) => return system,
        ([], Err(_)) => (&here[..], ResolverOpts::default()),
        (named, _) => (named, ResolverOpts::default()),
    };
    let servers = servers.iter().map(|server| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = server.port());
        NameServerConfig::new(server.ip(), true, connections)
    });
    (ResolverConfig::from_name_servers(servers.collect()), options)
}

/// One kind of address is asked for after the other, for nearly all hosts have the first: half the questions. IPv6 comes first where
/// there is no way for IPv4 packets.
fn kinds() -> [RecordType; 2] {
    // Connecting a UDP socket sends nothing. It only finds a route.
    let has_route = |from: IpAddr, to: IpAddr| {
        UdpSocket::bind((from, 0)).and_then(|socket| socket.connect((to, 53))).is_ok()
    };
    let somewhere_v4 = Ipv4Addr::new(192, 0, 32, 10).into();
    let somewhere_v6 = Ipv6Addr::new(0x2001, 0x500, 0x88, 0x200, 0, 0, 0, 10).into();
    let is_v6_only = !has_route(Ipv4Addr::UNSPECIFIED.into(), somewhere_v4)
        && has_route(Ipv6Addr::UNSPECIFIED.into(), somewhere_v6);
    if is_v6_only { [RecordType::AAAA, RecordType::A] } else { [RecordType::A, RecordType::AAAA] }
}
