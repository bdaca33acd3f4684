//! How the ranks of a run come together.
//!
//! Rank 0 serves a small key-value store; everybody writes down who they are and waits until all have. That is done with
//! the store and not left to the process group, because a group that times out cannot say who was missing, and because
//! ranks that were started with different settings should learn it before the first step and not from its result.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use fastclip_torch_ext::{
    Backend, FailureKind, GroupOptions, Listen, ProcessGroup, StoreError, StoreOptions, TcpStore, silence_log,
};
use serde::{Deserialize, Serialize};
use tch::Device;

use super::environment::{Environment, Meeting};
use super::keys::Keys;
use super::verdict::{RankName, Verdict};
use super::watch::{Watch, WatchOptions, json};
use super::{Alone, CommError, Communicator, Group};
use crate::launch;

/// How often a rank looks who has come.
const POLL: Duration = Duration::from_millis(50);

/// How long a name may take to be known.
const NAMING: Duration = Duration::from_secs(30);

/// How long the server of the store stays, within the time-out, for the others to read why the run ends. Ranks that were
/// started together come within this time, even from a slow disk; those that come later find nobody.
const FAREWELL: Duration = Duration::from_secs(30);

/// What all ranks of a run must have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The program with its version.
    pub program: String,
    /// The configuration, a setting a line: the first lines that differ are what an error quotes.
    pub configuration: String,
}

impl Agreement {
    /// Returns what differs, its value here and there.
    fn difference(&self, other: &Agreement) -> Option<(&'static str, String, String)> {
        if self.program != other.program {
            return Some(("program", self.program.clone(), other.program.clone()));
        }
        if self.configuration == other.configuration {
            return None;
        }
        let lines = |agreement: &Agreement| agreement.configuration.lines().map(str::to_owned).collect();
        let (own, others): (Vec<String>, Vec<String>) = (lines(self), lines(other));
        let at = own.iter().zip(&others).take_while(|(own, other)| own == other).count();
        // A configuration may stop where the other goes on.
        let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
        Some(("setting", line(&own), line(&others)))
    }
}

/// What ranks come together with.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Bounds coming together and every collective. Finding out whom to blame takes up to a quarter of it more.
    pub timeout: Duration,
    /// What all ranks must have in common.
    pub agreement: Agreement,
    /// Where the tensors of this rank are: NCCL carries those on a GPU, Gloo those on the CPU.
    pub device: Device,
}

/// Joins the run that the environment describes, or returns a world of one.
///
/// # Errors
///
/// Within the time-out, and naming the ranks that did not come or that were started with something else. Rank 0 fails at
/// once if it cannot serve the store.
pub fn connect(
    environment: &Environment,
    options: &ConnectOptions,
) -> Result<Box<dyn Communicator>, CommError> {
    if let Some(pid) = environment.launcher_pid {
        launch::follow(pid).map_err(|source| CommError::Launcher { pid, source })?;
    }
    match &environment.meeting {
        None => Ok(Box::new(Alone::new())),
        Some(meeting) => {
            if !environment.keeps_torch_log {
                silence_log();
            }
            Ok(Box::new(join(environment, meeting, options)?))
        }
    }
}

fn join(environment: &Environment, meeting: &Meeting, options: &ConnectOptions) -> Result<Group, CommError> {
    let timeout = options.timeout;
    let backend = backend(environment, meeting, options.device)?;
    let is_server = environment.rank == 0 && !meeting.is_served_by_launcher;
    let store = connect_store(meeting, is_server, timeout)?;
    let arrival = Arrival {
        store: &store,
        keys: Keys::new(&meeting.attempt),
        identity: Identity {
            name: RankName { rank: environment.rank, host: host_name(), pid: std::process::id() },
            world_size: environment.world_size,
            agreement: options.agreement.clone(),
        },
        is_server,
        timeout,
    };
    let names = arrival.wait_for_all()?;
    let keys = arrival.keys;
    let watch = Watch::start(WatchOptions {
        store: connect_store(meeting, false, timeout)?,
        keys: keys.clone(),
        rank: environment.rank,
        names,
        is_served_by_rank_zero: !meeting.is_served_by_launcher,
        timeout,
    })
    .map_err(|source| CommError::Watch { source })?;
    let group_options = GroupOptions {
        backend,
        prefix: keys.group(),
        rank: environment.rank,
        world_size: environment.world_size,
        timeout,
    };
    match ProcessGroup::new(&store, &group_options) {
        Ok(group) => Ok(Group::new(group, watch, store)),
        Err(source) if source.kind == FailureKind::Refused => {
            watch.announce(&source.source.to_string(), false);
            Err(CommError::Refused { source: Box::new(source) })
        }
        Err(source) => {
            let verdict = Box::new(watch.diagnose(&source));
            Err(CommError::Peer { verdict, source: Box::new(source) })
        }
    }
}

fn connect_store(meeting: &Meeting, is_server: bool, timeout: Duration) -> Result<TcpStore, CommError> {
    let options = StoreOptions { host: meeting.host.clone(), port: meeting.port, is_server, timeout };
    TcpStore::connect(&options).map_err(|source| match source {
        StoreError::AddressInUse { address } => CommError::AddressInUse { address },
        StoreError::Unreachable { ref address, .. } => {
            CommError::Unreachable { address: address.clone(), timeout, source: Box::new(source) }
        }
        source => meeting_broke(source),
    })
}

/// Picks what carries the collectives, and for Gloo where this rank listens.
fn backend(environment: &Environment, meeting: &Meeting, device: Device) -> Result<Backend, CommError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device_index) => Ok(Backend::Nccl { device_index }),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err(CommError::NoNccl { world_size: environment.world_size }),
        _ => Ok(Backend::Gloo(match &environment.interface {
            Some(interface) => Listen::Interface(interface.clone()),
            None => Listen::Address(
                address_in_time(&meeting.host, meeting.port)
                    .map_err(|source| CommError::Route { host: meeting.host.clone(), source })?,
            ),
        })),
    }
}

/// Returns the address of this machine that packets to `host` leave from, once the name of the host is known: a cluster
/// may name its machines while they start.
fn address_in_time(host: &str, port: u16) -> io::Result<IpAddr> {
    let deadline = Instant::now() + NAMING;
    loop {
        match address_towards(host, port) {
            Err(_) if Instant::now() < deadline => thread::sleep(POLL),
            found => return found,
        }
    }
}

/// Returns the address of this machine that packets to `host` leave from; sends none.
fn address_towards(host: &str, port: u16) -> io::Result<IpAddr> {
    let mut targets: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    // IPv4 first: in containers a name may have an IPv6 address that leads nowhere.
    targets.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for target in targets {
        let unspecified = match target {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let local = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        });
        match local {
            Ok(local) => return Ok(local.ip()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What a rank writes down when it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    name: RankName,
    world_size: usize,
    agreement: Agreement,
}

impl Identity {
    /// Returns what is wrong if this rank cannot work with rank 0.
    fn disagreement(&self, zero: &Identity) -> Option<Verdict> {
        let (about, theirs, expected) = if self.world_size != zero.world_size {
            ("world size", self.world_size.to_string(), zero.world_size.to_string())
        } else {
            self.agreement.difference(&zero.agreement)?
        };
        Some(Verdict::Disagreement { rank: self.name.clone(), about: about.to_owned(), theirs, expected })
    }
}

/// A rank at the meeting.
struct Arrival<'a> {
    store: &'a TcpStore,
    keys: Keys,
    identity: Identity,
    is_server: bool,
    timeout: Duration,
}

impl Arrival<'_> {
    /// Writes down who this rank is and returns the names of all, once all have come and none disagrees.
    fn wait_for_all(&self) -> Result<Vec<RankName>, CommError> {
        let deadline = Instant::now() + self.timeout;
        let own_key = self.keys.joined(self.identity.name.rank);
        let holder = self.store.set_once(&own_key, &json(&self.identity)).map_err(meeting_broke)?;
        let holder: Identity = self.parse(&own_key, &holder)?;
        if holder != self.identity {
            return Err(CommError::Taken { holder: holder.name, address: self.store.address().to_owned() });
        }
        while !self.have_all_come()? {
            if let Some(bytes) = self.store.peek(&self.keys.verdict()).map_err(meeting_broke)? {
                return Err(self.give_up(&bytes));
            }
            // Compared at once and not when all have come: a rank that was started wrongly may be why others never do.
            if let Some(zero) = self.identity_of(0)?
                && let Some(verdict) = self.identity.disagreement(&zero)
            {
                return Err(self.propose(&verdict));
            }
            if Instant::now() >= deadline {
                return Err(self.propose(&Verdict::Missing { ranks: self.missing()? }));
            }
            thread::sleep(POLL);
        }
        self.compare_all()
    }

    fn have_all_come(&self) -> Result<bool, CommError> {
        let keys: Vec<String> = (0..self.identity.world_size).map(|rank| self.keys.joined(rank)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.store.check(&keys).map_err(meeting_broke)
    }

    fn missing(&self) -> Result<Vec<usize>, CommError> {
        let mut missing = Vec::new();
        for rank in 0..self.identity.world_size {
            if !self.store.check(&[&self.keys.joined(rank)]).map_err(meeting_broke)? {
                missing.push(rank);
            }
        }
        Ok(missing)
    }

    fn compare_all(&self) -> Result<Vec<RankName>, CommError> {
        let mut identities: Vec<Identity> = Vec::with_capacity(self.identity.world_size);
        for rank in 0..self.identity.world_size {
            let key = self.keys.joined(rank);
            let bytes = self.store.get(&key).map_err(meeting_broke)?;
            identities.push(self.parse(&key, &bytes)?);
        }
        let zero = &identities[0];
        match identities.iter().find_map(|identity| identity.disagreement(zero)) {
            Some(verdict) => Err(self.propose(&verdict)),
            None => Ok(identities.into_iter().map(|identity| identity.name).collect()),
        }
    }

    fn identity_of(&self, rank: usize) -> Result<Option<Identity>, CommError> {
        let key = self.keys.joined(rank);
        let bytes = self.store.peek(&key).map_err(meeting_broke)?;
        bytes.map(|bytes| self.parse(&key, &bytes)).transpose()
    }

    /// Ends the meeting with this verdict, or with one that another rank was faster to write.
    fn propose(&self, verdict: &Verdict) -> CommError {
        match self.store.set_once(&self.keys.verdict(), &json(verdict)) {
            Ok(bytes) => self.give_up(&bytes),
            Err(source) => meeting_broke(source),
        }
    }

    /// Reads the verdict, says so, and, if this rank serves the store, lets the others read it too.
    fn give_up(&self, bytes: &[u8]) -> CommError {
        let verdict = match self.parse(&self.keys.verdict(), bytes) {
            Ok(verdict) => verdict,
            Err(error) => return error,
        };
        // Both are favours to the others: this rank knows all that it needs.
        let _ = self.store.set(&self.keys.seen(self.identity.name.rank), b"");
        if self.is_server {
            let _ = self.wait_until_seen(&verdict);
        }
        let address = self.store.address().to_owned();
        match verdict {
            Verdict::Missing { .. } => CommError::Missing {
                verdict: Box::new(verdict),
                world_size: self.identity.world_size,
                address,
                timeout: self.timeout,
            },
            verdict => CommError::Disagreement { verdict: Box::new(verdict) },
        }
    }

    fn wait_until_seen(&self, verdict: &Verdict) -> Result<(), StoreError> {
        let deadline = Instant::now() + FAREWELL.min(self.timeout);
        let missing = match verdict {
            Verdict::Missing { ranks } => ranks.as_slice(),
            _ => &[],
        };
        let keys: Vec<String> = (0..self.identity.world_size)
            .filter(|rank| !missing.contains(rank))
            .map(|rank| self.keys.seen(rank))
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        while !self.store.check(&keys)? && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, key: &str, bytes: &[u8]) -> Result<T, CommError> {
        serde_json::from_slice(bytes).map_err(|source| CommError::StrangeEntry {
            address: self.store.address().to_owned(),
            key: key.to_owned(),
            source,
        })
    }
}

fn meeting_broke(source: StoreError) -> CommError {
    CommError::Meeting { source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_loopback_starts_there() {
        assert_eq!(address_towards("127.0.0.1", 4000).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn ranks_disagree_about_world_size_before_anything_else() {
        let name = RankName { rank: 0, host: "a".to_owned(), pid: 1 };
        let zero = Identity { name, world_size: 2, agreement: Agreement::default() };
        let agreement = Agreement { program: "y".to_owned(), ..Agreement::default() };
        let other = Identity { world_size: 4, agreement, ..zero.clone() };
        assert_eq!(zero.disagreement(&zero), None);
        let verdict = other.disagreement(&zero).unwrap().to_string();
        assert_eq!(verdict, "rank 0 (process 1 on `a`) has the world size `4`, rank 0 has `2`");
    }

    #[test]
    fn the_first_setting_that_differs_is_quoted() {
        let run = |configuration: &str| Agreement {
            program: "train 1.0".to_owned(),
            configuration: configuration.to_owned(),
        };
        let expected = ("setting", "lr = 0.1".to_owned(), "lr = 0.2".to_owned());
        assert_eq!(run("seed = 1\nlr = 0.1\n").difference(&run("seed = 1\nlr = 0.2\n")), Some(expected));
        let longer = ("setting", String::new(), "lr = 0.2".to_owned());
        assert_eq!(run("seed = 1\n").difference(&run("seed = 1\nlr = 0.2\n")), Some(longer));
        assert_eq!(run("seed = 1\n").difference(&run("seed = 1\n")), None);
    }
}
