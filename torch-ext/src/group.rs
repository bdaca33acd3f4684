//! Process groups: collectives between the ranks of a run.

#![expect(unsafe_code, reason = "calls the C interface of c10d's process groups")]

use std::fmt;
use std::net::IpAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tch::Tensor;

use crate::error::{Collective, CollectiveError, FailureKind};
use crate::ffi::{self, Failure, checked};
use crate::store::milliseconds;
use crate::{TcpStore, TorchError};

/// What carries the collectives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// TCP between processes that compute on CPUs.
    Gloo(Listen),
    /// NCCL between processes that compute on one GPU each.
    #[cfg(feature = "cuda")]
    Nccl {
        /// The GPU of this process.
        device_index: usize,
    },
}

/// Where Gloo accepts the connections of other ranks.
///
/// There is no default on purpose: c10d's own asks what the name of the machine resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On an address of this machine that the others can reach.
    Address(IpAddr),
    /// On the address of a network interface, such as `eth0`.
    Interface(String),
}

/// How ranks are reduced to one value.
///
/// There is no mean: Gloo refuses it, and dividing the sum is exact enough for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl ReduceOp {
    const fn number(self) -> i32 {
        match self {
            ReduceOp::Sum => 0,
            ReduceOp::Max => 1,
            ReduceOp::Min => 2,
        }
    }
}

/// What a group is built from, besides its store.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// What carries the collectives.
    pub backend: Backend,
    /// What the names of the group's keys in the store begin with; differs from that of any other group there.
    pub prefix: String,
    /// This process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Bounds every collective, and connecting.
    pub timeout: Duration,
}

/// The connections of one rank to all others.
///
/// All ranks call the same collectives in the same order with tensors of the same shape and kind. Tensors must be
/// contiguous. After an error nothing but dropping the group makes sense: which of the others got through is unknown.
///
/// Dropping a group waits for collectives that still run (each ends within the time-out) and closes the connections.
pub struct ProcessGroup {
    handle: NonNull<ffi::Group>,
    options: GroupOptions,
    sequence: Sequence,
}

/// How many collectives a rank has started in a group, to be read while it waits in one.
///
/// All ranks count alike, so the numbers of two ranks tell which of them is behind.
#[derive(Debug, Clone, Default)]
pub struct Sequence(Arc<AtomicU64>);

impl Sequence {
    /// Returns the running number of the collective that was started last, from 1.
    pub fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// SAFETY: c10d's groups run collectives on threads of their own and tie nothing to the thread that built them. Not Sync:
// two threads would race for the order of collectives.
unsafe impl Send for ProcessGroup {}

impl ProcessGroup {
    /// Connects this rank to all others.
    ///
    /// # Errors
    ///
    /// Fails after the time-out if another rank does not come; which one, the store's user must find out.
    pub fn new(store: &TcpStore, options: &GroupOptions) -> Result<Self, CollectiveError> {
        let mut handle = std::ptr::null_mut();
        checked(|message| start_group(store, options, &mut handle, message))
            .map_err(|failure| error(options, Collective::Connect, 0, failure))?;
        let handle = NonNull::new(handle).expect("a group without a failure is a group");
        Ok(Self { handle, options: options.clone(), sequence: Sequence::default() })
    }

    /// Returns which of the ranks this process is.
    pub fn rank(&self) -> usize {
        self.options.rank
    }

    /// Returns the number of ranks.
    pub fn world_size(&self) -> usize {
        self.options.world_size
    }

    /// Returns the count of the collectives that this rank has started.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Lends the handle to the other modules of this crate.
    pub(crate) fn handle(&self) -> *mut ffi::Group {
        self.handle.as_ptr()
    }

    /// Lends the counter to what starts collectives without this type; that must count each.
    pub(crate) fn counter(&self) -> *mut u64 {
        self.sequence.0.as_ptr()
    }

    /// Wraps a collective that was started by other means than [`start`](Self::start).
    pub(crate) fn adopt(&self, handle: NonNull<ffi::Work>, collective: Collective, sequence: u64) -> Work {
        Work { handle, options: self.options.clone(), collective, sequence, is_waited_for: false }
    }

    /// Words a failure of such a collective.
    pub(crate) fn failed(&self, collective: Collective, sequence: u64, failure: Failure) -> CollectiveError {
        error(&self.options, collective, sequence, failure)
    }

    /// Starts to replace `tensor` by the reduction over ranks.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Work, CollectiveError> {
        self.start(Collective::AllReduce, &[tensor], |group, work, message| {
            // SAFETY: see `start`; the tensor outlives the call, and the work shares its ownership.
            unsafe { ffi::fc_group_all_reduce(group, tensor.as_ptr(), op.number(), work, message) }
        })
    }

    /// Starts to fill `output` with the inputs of all ranks in their order; it has `world_size` times their elements.
    pub fn all_gather_into(&self, output: &Tensor, input: &Tensor) -> Result<Work, CollectiveError> {
        self.start(Collective::AllGather, &[output, input], |group, work, message| {
            // SAFETY: as in `all_reduce`.
            unsafe { ffi::fc_group_all_gather(group, output.as_ptr(), input.as_ptr(), work, message) }
        })
    }

    /// Starts to fill `output` with this rank's part of the reduction of `input`, which has `world_size` times its
    /// elements.
    pub fn reduce_scatter_into(
        &self,
        output: &Tensor,
        input: &Tensor,
        op: ReduceOp,
    ) -> Result<Work, CollectiveError> {
        self.start(Collective::ReduceScatter, &[output, input], |group, work, message| {
            // SAFETY: as in `all_reduce`.
            unsafe {
                ffi::fc_group_reduce_scatter(
                    group,
                    output.as_ptr(),
                    input.as_ptr(),
                    op.number(),
                    work,
                    message,
                )
            }
        })
    }

    /// Starts to replace `tensor` by that of rank `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work, CollectiveError> {
        self.start(Collective::Broadcast, &[tensor], |group, work, message| {
            // SAFETY: as in `all_reduce`. A root that does not fit is no rank, and -1 is refused.
            unsafe {
                let root = i32::try_from(root).unwrap_or(-1);
                ffi::fc_group_broadcast(group, tensor.as_ptr(), root, work, message)
            }
        })
    }

    /// Starts to wait for all ranks.
    pub fn barrier(&self) -> Result<Work, CollectiveError> {
        let device_index = match self.options.backend {
            Backend::Gloo(_) => -1,
            #[cfg(feature = "cuda")]
            Backend::Nccl { device_index } => i32::try_from(device_index).unwrap_or(-1),
        };
        self.start(Collective::Barrier, &[], |group, work, message| {
            // SAFETY: see `start`.
            unsafe { ffi::fc_group_barrier(group, device_index, work, message) }
        })
    }

    /// Numbers a collective, starts it by `call` and wraps what it hands out.
    ///
    /// `call` gets a valid group and a place for the work, on this stack.
    fn start(
        &self,
        collective: Collective,
        tensors: &[&Tensor],
        call: impl FnOnce(*mut ffi::Group, *mut *mut ffi::Work, ffi::Message) -> ffi::Status,
    ) -> Result<Work, CollectiveError> {
        let sequence = self.sequence.0.fetch_add(1, Ordering::Relaxed) + 1;
        // Backends read and write flat memory; some check this, some do not.
        if let Some(tensor) = tensors.iter().find(|tensor| !tensor.is_contiguous()) {
            let reason = format!("the tensor of shape {:?} is not contiguous", tensor.size());
            let failure = Failure { status: ffi::OK, error: TorchError::new(reason) };
            return Err(self.failed(collective, sequence, failure));
        }
        let mut handle = std::ptr::null_mut();
        checked(|message| call(self.handle.as_ptr(), &mut handle, message))
            .map_err(|failure| self.failed(collective, sequence, failure))?;
        let handle = NonNull::new(handle).expect("a collective that started is running");
        Ok(self.adopt(handle, collective, sequence))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: the handle came from the C++ side, and this is the only place that gives it back. Works share the
        // ownership of what they need of it.
        unsafe { ffi::fc_group_free(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessGroup")
            .field("options", &self.options)
            .field("sequence", &self.sequence.last())
            .finish()
    }
}

/// A collective that was started.
///
/// Until [`wait`](Work::wait) has returned, another thread writes the tensors that were handed in: neither read nor write
/// them before. The memory itself is safe, as the work shares its ownership. Dropping a work waits too, and ignores how
/// it ended.
#[must_use = "a collective is not done before it was waited for"]
pub struct Work {
    handle: NonNull<ffi::Work>,
    options: GroupOptions,
    collective: Collective,
    sequence: u64,
    is_waited_for: bool,
}

// SAFETY: a work is a shared handle with a lock inside; waiting for it is possible from any thread.
unsafe impl Send for Work {}

impl Work {
    /// Waits for the end of the collective.
    ///
    /// On a GPU this orders the streams and returns at once: operations that follow see the result.
    pub fn wait(mut self) -> Result<(), CollectiveError> {
        self.wait_once().map_err(|failure| error(&self.options, self.collective, self.sequence, failure))
    }

    fn wait_once(&mut self) -> Result<(), Failure> {
        self.is_waited_for = true;
        let timeout_ms = match self.options.backend {
            // Gloo's own time-out should win, as it knows which connection it waited for; this one is there in case
            // that the collective is stuck behind another.
            Backend::Gloo(_) => milliseconds(self.options.timeout + Duration::from_millis(500)),
            // Any other value would block this thread until the GPU is done; the watchdog of NCCL keeps the time.
            #[cfg(feature = "cuda")]
            Backend::Nccl { .. } => 0,
        };
        checked(|message| {
            // SAFETY: the handle is valid until `self` is dropped.
            unsafe { ffi::fc_work_wait(self.handle.as_ptr(), timeout_ms, message) }
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.is_waited_for {
            // The one who dropped it has decided not to know.
            let _ = self.wait_once();
        }
        // SAFETY: the handle came from the C++ side, and this is the only place that gives it back.
        unsafe { ffi::fc_work_free(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("collective", &self.collective)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

fn start_group(
    store: &TcpStore,
    options: &GroupOptions,
    handle: &mut *mut ffi::Group,
    message: ffi::Message,
) -> ffi::Status {
    // Numbers that do not fit become -1, which c10d refuses like any other impossible rank.
    let rank = i32::try_from(options.rank).unwrap_or(-1);
    let world_size = i32::try_from(options.world_size).unwrap_or(-1);
    let timeout_ms = milliseconds(options.timeout);
    match &options.backend {
        Backend::Gloo(listen) => {
            let (place, is_interface) = match listen {
                Listen::Address(address) => (address.to_string(), 0),
                Listen::Interface(name) => (name.clone(), 1),
            };
            // SAFETY: the store's handle is valid, prefix and place are borrowed for the call, and the group shares the ownership
            // of the store from then on.
            unsafe {
                ffi::fc_group_gloo_new(
                    store.handle(),
                    options.prefix.as_ptr(),
                    options.prefix.len(),
                    rank,
                    world_size,
                    timeout_ms,
                    place.as_ptr(),
                    place.len(),
                    is_interface,
                    handle,
                    message,
                )
            }
        }
        #[cfg(feature = "cuda")]
        Backend::Nccl { device_index } => {
            let device_index = i32::try_from(*device_index).unwrap_or(-1);
            // SAFETY: as above.
            unsafe {
                ffi::fc_group_nccl_new(
                    store.handle(),
                    options.prefix.as_ptr(),
                    options.prefix.len(),
                    rank,
                    world_size,
                    timeout_ms,
                    device_index,
                    handle,
                    message,
                )
            }
        }
    }
}

fn error(options: &GroupOptions, collective: Collective, sequence: u64, failure: Failure) -> CollectiveError {
    let kind = match failure.status {
        ffi::TIMED_OUT => FailureKind::TimedOut,
        ffi::CONNECTION_LOST => FailureKind::ConnectionLost,
        _ => FailureKind::Refused,
    };
    CollectiveError {
        rank: options.rank,
        world_size: options.world_size,
        collective,
        sequence,
        peer: peer(failure.error.message()),
        kind,
        timeout: options.timeout,
        source: failure.error,
    }
}

/// Returns the address that Gloo names in a message as `[address]:port`.
fn peer(message: &str) -> Option<String> {
    let start = message.find('[')?;
    let end = start + message[start..].find("]:")? + 2;
    let port = message[end..].bytes().take_while(u8::is_ascii_digit).count();
    (port > 0).then(|| message[start..end + port].to_owned())
}

#[cfg(test)]
mod tests {
    use super::peer;

    #[test]
    fn the_address_of_a_lost_peer_is_found_in_gloos_words() {
        assert_eq!(peer("Connection closed by peer [10.0.0.7]:4242.").as_deref(), Some("[10.0.0.7]:4242"));
        assert_eq!(peer("a tensor of shape [2, 3]: no"), None);
    }
}
