//! From the plan to batches, on threads.
//!
//! ```text
//!              runs, in order of first use          jobs                    batches, in order
//! reader  ───────────────────────────► dispatcher ─────────► decoders ··· outcomes ···►  caller
//! (tokio)  bounded by bytes in flight   (1 thread)  bounded   (n threads)  one a slot     (`Batches`)
//!                                           └──────────────────────────────────────────────►
//!                                                      bounded by prefetch_batches
//! ```
//!
//! Reader and dispatcher walk the same `Schedule`, each for itself; as it is a pure function they agree on what comes
//! next without talking about it. The reader requests runs ahead in the order in which they are first used, and the
//! dispatcher receives them in that order. A run's bytes are freed when its last sample has been decoded.
//!
//! **Why this cannot lock up.** Runs take their share of the byte budget in the order of first use. When the dispatcher
//! needs a run, all earlier ones are finished and freed, or still open; the bytes of open runs are known beforehand, and
//! a schedule whose open runs exceed the budget ends with [`LoadError::MemoryBound`](crate::LoadError) instead.
//!
//! **Failures** travel with the batches, in order, so that what the caller sees does not depend on timing. A closed
//! channel is the end; a channel that closes before the schedule has ended means a panic, whose words are found when the
//! threads are joined.
//!
//! **Stalls.** Every wait that another party must end is entered in a `Watch`. The caller's own wait is bounded: when no
//! batch comes and nothing moves, it says which stage waits for what, and in the end fails with
//! [`LoadError::Stalled`](crate::LoadError).
//!
//! **Stopping.** Dropping [`Batches`] cancels the token that all stages look at before the next piece of work, and closes the
//! channel of batches: the reader and a dispatcher that waits for runs or for room end at once, and decoders with the image
//! that they are at.

mod bad_sample_log;
mod batches;
mod budget;
mod decoder;
mod dispatcher;
mod index_cache;
mod pending;
mod reader;
mod schedule;
mod threads;
mod watch;

pub use batches::Batches;
pub(crate) use batches::StreamSettings;
pub(crate) use index_cache::IndexCache;
