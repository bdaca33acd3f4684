//! Why ranks could not work together.

use std::io;
use std::time::Duration;

use fastclip_torch_ext::{CollectiveError, StoreError, TorchError};

use super::environment::EnvironmentError;
use super::verdict::{RankName, Verdict};

/// A run that cannot start or go on together.
///
/// An error that another rank caused names that rank, and all ranks name the same one. What is large in it lies behind a
/// pointer, since every collective returns one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// The launcher's variables do not describe a rank.
    #[error("could not tell which rank this process is")]
    Environment(#[from] EnvironmentError),
    /// Something else listens where rank 0 should serve the store.
    #[error("could not serve the meeting of ranks at {address}, because the port is in use")]
    AddressInUse {
        /// Host and port.
        address: String,
    },
    /// Nobody serves the store.
    #[error("rank 0 did not come to {address} within {} s", timeout.as_secs_f32())]
    Unreachable {
        /// Host and port.
        address: String,
        /// The time-out.
        timeout: Duration,
        /// What failed.
        source: Box<StoreError>,
    },
    /// Ranks did not come in time.
    #[error("{verdict} to {address} within {} s; the world size is {world_size}", timeout.as_secs_f32())]
    Missing {
        /// The ranks.
        verdict: Box<Verdict>,
        /// Ranks in the run.
        world_size: usize,
        /// Host and port.
        address: String,
        /// The time-out.
        timeout: Duration,
    },
    /// Ranks were started with different settings or versions.
    #[error("{verdict}")]
    Disagreement {
        /// The rank and both values.
        verdict: Box<Verdict>,
    },
    /// Two processes say that they are the same rank.
    #[error("{holder} has come to {address} already: two runs share the address")]
    Taken {
        /// Who came first.
        holder: RankName,
        /// Host and port.
        address: String,
    },
    /// The store went away or refused while ranks were meeting.
    #[error("the meeting of ranks broke up")]
    Meeting {
        /// What failed.
        source: Box<StoreError>,
    },
    /// A rank wrote something into the store that no rank of this version writes.
    #[error("the store at {address} holds a strange `{key}`")]
    StrangeEntry {
        /// Host and port.
        address: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No address of this machine leads to the meeting.
    #[error("could not find the address of this machine that leads to `{host}`")]
    Route {
        /// The machine of rank 0.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The launcher that this process belongs to is no more.
    #[error("could not stay with the launcher, process {pid}")]
    Launcher {
        /// Its process.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that watches the other ranks could not be started.
    #[error("could not start to watch the other ranks")]
    Watch {
        /// What the system said.
        source: io::Error,
    },
    /// Several ranks on GPUs need NCCL, which this build leaves out.
    #[error("this build cannot run {world_size} ranks on GPUs")]
    NoNccl {
        /// Ranks in the run.
        world_size: usize,
    },
    /// The call itself was wrong, on this rank and presumably on all.
    #[error("could not run {collective} on a tensor of shape {shape:?}: {reason}")]
    Argument {
        /// The collective that was called.
        collective: &'static str,
        /// Shape of the tensor.
        shape: Vec<i64>,
        /// What is wrong with it.
        reason: String,
    },
    /// Gradients did not come as buckets need them: each parameter's once in a backward pass.
    #[error("could not collect gradients in buckets")]
    Buckets {
        /// What libtorch said.
        source: TorchError,
    },
    /// libtorch refused a collective on this rank.
    #[error("could not run a collective")]
    Refused {
        /// Which, and why.
        source: Box<CollectiveError>,
    },
    /// A collective failed because of another rank.
    #[error("{verdict}")]
    Peer {
        /// The first cause, on which all ranks agreed.
        verdict: Box<Verdict>,
        /// What this rank was doing.
        source: Box<CollectiveError>,
    },
}

impl CommError {
    /// Returns the ranks that the error blames, if it blames any.
    pub fn ranks(&self) -> Vec<usize> {
        match self {
            CommError::Missing { verdict, .. }
            | CommError::Disagreement { verdict }
            | CommError::Peer { verdict, .. } => verdict.ranks(),
            CommError::Unreachable { .. } => vec![0],
            CommError::Taken { holder, .. } => vec![holder.rank],
            _ => Vec::new(),
        }
    }

    /// Returns whether the run was refused for what it was asked to do, as opposed to having broken on the way. A port that
    /// somebody else has is no refusal: it may be a rank of the attempt before that has not ended yet.
    pub fn is_refusal(&self) -> bool {
        match self {
            CommError::Environment(_) | CommError::NoNccl { .. } | CommError::Argument { .. } => true,
            CommError::Disagreement { verdict } | CommError::Peer { verdict, .. } => verdict.is_refusal(),
            _ => false,
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            CommError::AddressInUse { .. } | CommError::Taken { .. } => {
                Some("another run may be using it; end that run or set MASTER_PORT to a free port")
            }
            CommError::Unreachable { .. } => Some(
                "see that rank 0 runs, and that MASTER_ADDR and MASTER_PORT lead to it from every machine",
            ),
            CommError::Missing { .. } => Some("look at the logs of these ranks, or raise --dist-timeout"),
            CommError::Disagreement { .. } => Some("start all ranks with the same binary and configuration"),
            CommError::Route { .. } => {
                Some("set GLOO_SOCKET_IFNAME to the network interface that the machines share")
            }
            CommError::NoNccl { .. } => Some("build with --features cuda"),
            CommError::Peer { source, .. }
                if source.collective == fastclip_torch_ext::Collective::Connect =>
            {
                Some("set GLOO_SOCKET_IFNAME to the network interface that the machines share")
            }
            CommError::Peer { .. } => Some("look at the logs of the rank that is named"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meeting_place_that_is_taken_may_be_free_the_next_time() {
        let address = "127.0.0.1:4000".to_owned();
        let holder = RankName { rank: 1, host: "gpu03".to_owned(), pid: 77 };
        let taken = CommError::Taken { holder, address: address.clone() };
        for error in [CommError::AddressInUse { address }, taken] {
            assert!(!error.is_refusal(), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }
}
