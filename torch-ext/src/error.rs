//! What can go wrong, in words a caller can act on.
//!
//! libtorch throws exceptions whose text is meant for its own developers: a first line that says what happened, then a
//! C++ backtrace. The C++ side classifies the exception and drops the backtrace; the classification is what callers
//! branch on, the first line is only ever shown.

use std::fmt;
use std::time::Duration;

/// What libtorch said: the first line of its exception.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TorchError {
    message: String,
}

impl TorchError {
    /// Wraps the text of an exception.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// Returns the text as libtorch wrote it.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Something else listens on the port that this process should serve.
    #[error("could not serve the store at {address}: the port is in use")]
    AddressInUse {
        /// Host and port.
        address: String,
    },
    /// No server answered within the time-out.
    #[error("could not reach the store at {address} within {} s", timeout.as_secs_f32())]
    Unreachable {
        /// Host and port.
        address: String,
        /// How long this process tried.
        timeout: Duration,
        /// What libtorch said.
        source: TorchError,
    },
    /// Keys were not set within the time-out.
    #[error("nobody set {keys} in the store at {address} within {} s", timeout.as_secs_f32())]
    Timeout {
        /// Host and port.
        address: String,
        /// The keys that were waited for, as a list.
        keys: String,
        /// How long this process waited.
        timeout: Duration,
    },
    /// The connection to the server broke: the process that serves it is gone.
    #[error("lost the connection to the store at {address}")]
    Lost {
        /// Host and port.
        address: String,
        /// What libtorch said.
        source: TorchError,
    },
    /// Any other refusal.
    #[error("could not use the store at {address}")]
    Refused {
        /// Host and port.
        address: String,
        /// What libtorch said.
        source: TorchError,
    },
}

/// The operations of a process group, as errors and counters name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Collective {
    /// Building the group: every rank connects to every other.
    Connect,
    /// Every rank gets the reduction of all tensors.
    AllReduce,
    /// The same for one of the [`GradientBuckets`](crate::GradientBuckets), started by backward.
    GradientBucket {
        /// Which, from 0, in the order in which they leave.
        index: usize,
        /// How many there are.
        num_buckets: usize,
    },
    /// Every rank gets all tensors, one after another.
    AllGather,
    /// Every rank gets its part of the reduction.
    ReduceScatter,
    /// Every rank gets the tensor of one.
    Broadcast,
    /// Nobody leaves before everybody came.
    Barrier,
}

impl Collective {
    /// Returns the name of the operation, in `snake_case`.
    pub const fn name(self) -> &'static str {
        match self {
            Collective::Connect => "connect",
            Collective::AllReduce | Collective::GradientBucket { .. } => "all_reduce",
            Collective::AllGather => "all_gather",
            Collective::ReduceScatter => "reduce_scatter",
            Collective::Broadcast => "broadcast",
            Collective::Barrier => "barrier",
        }
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Collective::GradientBucket { index, num_buckets } => {
                write!(f, " of gradient bucket {} of {num_buckets}", index + 1)
            }
            _ => Ok(()),
        }
    }
}

/// In which of the ways that matter to a caller a collective failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The other ranks did not come within the time-out; they may still be alive.
    TimedOut,
    /// A connection to another rank broke; that rank is most likely gone.
    ConnectionLost,
    /// The operation itself was refused, such as a tensor of an unsupported type.
    Refused,
}

/// A collective that did not complete.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.describe())]
pub struct CollectiveError {
    /// The rank that reports.
    pub rank: usize,
    /// Ranks in the group.
    pub world_size: usize,
    /// What was running.
    pub collective: Collective,
    /// The running number of the collective on this rank, from 1; all ranks count alike.
    pub sequence: u64,
    /// Address of the rank at the other end of the broken connection, if libtorch named it.
    pub peer: Option<String>,
    /// How it failed.
    pub kind: FailureKind,
    /// The time-out of the group.
    pub timeout: Duration,
    /// What libtorch said.
    pub source: TorchError,
}

impl CollectiveError {
    fn describe(&self) -> String {
        let Self { rank, world_size, collective, sequence, .. } = self;
        let subject = format!("{collective} (collective {sequence}) on rank {rank} of {world_size}");
        match (self.kind, &self.peer) {
            (FailureKind::TimedOut, _) => {
                format!("{subject} timed out after {} s", self.timeout.as_secs_f32())
            }
            (FailureKind::ConnectionLost, Some(peer)) => format!("{subject} lost its connection to {peer}"),
            (FailureKind::ConnectionLost, None) => format!("{subject} lost its connection to another rank"),
            (FailureKind::Refused, _) => format!("{subject} was refused"),
        }
    }
}
