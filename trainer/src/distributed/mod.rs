//! How ranks talk to each other.
//!
//! The trainer sees one trait, [`Communicator`], and never asks whether it runs alone: [`Alone`] answers every
//! collective by the same formula with a world of one. That is what makes a distributed run comparable with a run in
//! one process, and what lets the step be tested without a launcher. The alternative, `if world_size > 1` around each
//! collective, loses because a collective that one rank skips hangs all others (promise 10: all ranks call the same
//! collectives in the same order).
//!
//! | file | holds |
//! |---|---|
//! | `environment` | [`Environment`]: which rank this is, as the launcher says |
//! | `rendezvous` | [`connect`]: ranks find each other and compare what they were started with |
//! | `alone`, `group` | [`Alone`], [`Group`]: the two kinds of world |
//! | `watch`, `verdict` | [`Verdict`]: signs of life, and who was the first cause when they stop |

mod alone;
mod counters;
mod environment;
mod error;
mod group;
mod keys;
mod rendezvous;
mod verdict;
mod watch;

use fastclip_torch_ext::GradientBuckets;
use tch::Tensor;

pub use alone::Alone;
pub use counters::{CommCounters, Traffic};
pub use environment::{
    Environment, EnvironmentError, LAUNCHER_PID_VARIABLE, Launcher, Meeting, RESTARTS_VARIABLE,
};
pub use error::CommError;
pub use group::Group;
pub use rendezvous::{Agreement, ConnectOptions, connect};
pub use verdict::{RankName, Verdict};

/// The ranks of a run, as one of them sees them.
///
/// The methods that return a `Result` are *collectives*: all ranks must call it, in the same order and
/// with tensors of equal shape and kind. A collective returns when its result can be read by operations that follow on
/// the tensor's device; on a CPU that means: when it is done. Results carry no gradient and share no memory with what
/// was handed in.
///
/// An error ends the run: after one, the state of the other ranks is unknown and nothing but dropping the communicator
/// is allowed. No call waits much longer than the time-out that the communicator was made with.
///
/// Dropping a communicator closes its connections; ranks that still wait for this one then fail instead of hanging.
pub trait Communicator: Send {
    /// Returns which of the ranks this process is, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks.
    fn world_size(&self) -> usize;

    /// Replaces `tensor` on every rank by the sum over ranks.
    ///
    /// All ranks get the same bits.
    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<(), CommError>;

    /// Runs `backward`, and meanwhile replaces each bucket on every rank by its sum over ranks, as soon as it is full.
    ///
    /// Each bucket counts as an all-reduce of its own. `backward` is called once; it is a backward pass over the
    /// parameters of the buckets and calls no collective.
    fn all_reduce_during(
        &self,
        buckets: &mut GradientBuckets,
        backward: &mut dyn FnMut(),
    ) -> Result<(), CommError>;

    /// Returns the tensors of all ranks, concatenated along dimension 0 in the order of ranks.
    ///
    /// A tensor without dimensions counts as one row.
    fn all_gather(&self, local: &Tensor) -> Result<Tensor, CommError>;

    /// Replaces `tensor` on every rank by that of rank `root`.
    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), CommError>;

    /// Returns after all ranks have called it.
    fn barrier(&self) -> Result<(), CommError>;

    /// Tells the other ranks that this one cannot go on, and why, so that their errors name the cause; and whether it
    /// refused what it was asked to do, so that they end as it does.
    ///
    /// Not a collective: call it on the way out of a failure of this rank's own. A failure that came out of a collective
    /// needs no announcement. Whether the others hear it is not known.
    fn announce_failure(&self, cause: &str, is_refusal: bool);

    /// Returns what this rank's collectives have moved so far.
    fn counters(&self) -> CommCounters;
}
