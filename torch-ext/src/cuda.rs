//! What only CUDA has: devices to describe, recorded work, and a way to tell where the host waits.
//!
//! All of it exists without the feature `cuda`, too, and then says that it is missing: what uses it needs no second form.

#![cfg_attr(
    feature = "cuda",
    expect(unsafe_code, reason = "calls the C interface of CUDA's devices, graphs and settings")
)]

use std::fmt;
#[cfg(feature = "cuda")]
use std::ptr::NonNull;

use crate::TorchError;
#[cfg(feature = "cuda")]
use crate::ffi::{self, checked};

/// Whether this build has the CUDA part.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

#[cfg(not(feature = "cuda"))]
fn missing() -> TorchError {
    TorchError::new("this program was built without the feature `cuda`")
}

/// A GPU and what drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Its name.
    pub name: String,
    /// Its compute capability, as in `9.0`.
    pub capability: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Newest CUDA that the driver knows, as in `13.0`.
    pub driver: String,
    /// CUDA that libtorch was built for.
    pub runtime: String,
}

impl fmt::Display for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        let Self { name, capability, driver, runtime, .. } = self;
        write!(
            f,
            "{name}, {gib:.0} GiB, sm {capability}, driver for CUDA {driver}, libtorch for CUDA {runtime}"
        )
    }
}

#[cfg(feature = "cuda")]
impl CudaDevice {
    /// Looks at the GPU with this number.
    ///
    /// # Errors
    /// Says which is missing or does not fit: driver, its version, or the GPU.
    pub fn describe(index: usize) -> Result<Self, TorchError> {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let (mut text, mut text_len) = (std::ptr::null_mut(), 0);
        // SAFETY: both places are on this stack.
        checked(|message| unsafe { ffi::fc_cuda_describe(index, &mut text, &mut text_len, message) })
            .map_err(|failure| failure.error)?;
        // SAFETY: after a success that many bytes are there, and ours until they are given back in the next line.
        let found =
            String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(text, text_len) }).into_owned();
        // SAFETY: see above; nothing refers to them any more.
        unsafe { ffi::fc_bytes_free(text) };
        Ok(Self::parse(&found))
    }

    fn parse(found: &str) -> Self {
        let mut fields = found.split('\t').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let (name, capability, memory, driver, runtime) = (next(), next(), next(), next(), next());
        // CUDA writes 13.0 as 13000.
        let version = |number: String| {
            let number: u32 = number.parse().unwrap_or(0);
            format!("{}.{}", number / 1000, number % 1000 / 10)
        };
        Self {
            name,
            capability,
            memory_bytes: memory.parse().unwrap_or(0),
            driver: version(driver),
            runtime: version(runtime),
        }
    }
}

#[cfg(not(feature = "cuda"))]
impl CudaDevice {
    /// Looks at the GPU with this number.
    ///
    /// # Errors
    /// Always: this build has no CUDA part.
    pub fn describe(_index: usize) -> Result<Self, TorchError> {
        Err(missing())
    }
}

/// What libtorch does where an operation makes the host wait for a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostWaits {
    /// Nothing.
    Allowed = 0,
    /// Fails, so that it is found.
    Refused = 2,
}

/// Chooses what happens where an operation makes the host wait for a GPU. For all threads of the process.
///
/// libtorch looks for it in its own operations; waiting for an [`Event`](crate::Event) is always allowed.
///
/// # Errors
/// When this build has no CUDA part.
#[cfg(feature = "cuda")]
pub fn set_host_waits(waits: HostWaits) -> Result<(), TorchError> {
    // SAFETY: writes a number that libtorch reads without a lock.
    checked(|message| unsafe { ffi::fc_cuda_set_sync_debug(waits as i32, message) })
        .map_err(|failure| failure.error)
}

/// Chooses what happens where an operation makes the host wait for a GPU.
///
/// # Errors
/// Always: this build has no CUDA part.
#[cfg(not(feature = "cuda"))]
pub fn set_host_waits(_waits: HostWaits) -> Result<(), TorchError> {
    Err(missing())
}

/// Work that was recorded once and is put on a stream again and again, by one call instead of thousands.
///
/// It reads and writes the very memory that it was recorded with: tensors that go in or come out must live as long as the
/// graph does, and be written in place.
#[derive(Debug)]
pub struct CudaGraph {
    #[cfg(feature = "cuda")]
    handle: NonNull<ffi::Graph>,
}

#[cfg(feature = "cuda")]
// SAFETY: a graph is tied to no thread; it is recorded and replayed by whoever has it.
unsafe impl Send for CudaGraph {}

#[cfg(feature = "cuda")]
impl CudaGraph {
    /// Records what `work` puts on the current stream, which must be one [beside](crate::Stream::beside) the default one.
    /// Nothing of it runs. Graphs that never run at the same time may share the memory of `pool`.
    ///
    /// # Errors
    /// With the first thing that cannot be recorded, such as an operation for whose result the host waits. The stream can be
    /// used again.
    pub fn record<T>(pool: Option<&CudaGraph>, work: impl FnOnce() -> T) -> Result<(Self, T), TorchError> {
        let pool = pool.map_or(std::ptr::null_mut(), |graph| graph.handle.as_ptr());
        let mut handle = std::ptr::null_mut();
        // SAFETY: `pool` is null or a graph that is borrowed, and the place for the handle is on this stack.
        checked(|message| unsafe { ffi::fc_graph_begin(pool, &mut handle, message) })
            .map_err(|failure| failure.error)?;
        let graph = Self { handle: NonNull::new(handle).expect("a recording that began has a graph") };
        let ended = Recording(&graph);
        let result = work();
        ended.end()?;
        Ok((graph, result))
    }

    /// Puts what was recorded on the current stream.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn replay(&self) -> Result<(), TorchError> {
        // SAFETY: the handle is valid until `self` is dropped.
        checked(|message| unsafe { ffi::fc_graph_replay(self.handle.as_ptr(), message) })
            .map_err(|failure| failure.error)
    }
}

#[cfg(feature = "cuda")]
impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: the handle came from the C++ side, and this is the only place that gives it back.
        unsafe { ffi::fc_graph_free(self.handle.as_ptr()) };
    }
}

/// Ends a recording, also when what is recorded panics.
#[cfg(feature = "cuda")]
struct Recording<'a>(&'a CudaGraph);

#[cfg(feature = "cuda")]
impl Recording<'_> {
    fn end(self) -> Result<(), TorchError> {
        let result = self.end_once();
        std::mem::forget(self);
        result
    }

    fn end_once(&self) -> Result<(), TorchError> {
        // SAFETY: the graph is borrowed and its recording runs.
        checked(|message| unsafe { ffi::fc_graph_end(self.0.handle.as_ptr(), message) })
            .map_err(|failure| failure.error)
    }
}

#[cfg(feature = "cuda")]
impl Drop for Recording<'_> {
    fn drop(&mut self) {
        // Something else failed already, and is on its way up.
        let _ = self.end_once();
    }
}

#[cfg(not(feature = "cuda"))]
impl CudaGraph {
    /// Records work.
    ///
    /// # Errors
    /// Always, before `work` is called: this build has no CUDA part.
    pub fn record<T>(_pool: Option<&CudaGraph>, _work: impl FnOnce() -> T) -> Result<(Self, T), TorchError> {
        Err(missing())
    }

    /// Puts what was recorded on the current stream.
    ///
    /// # Errors
    /// Always: this build has no CUDA part.
    pub fn replay(&self) -> Result<(), TorchError> {
        Err(missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_is_told_in_words() {
        if tch::Cuda::is_available() {
            eprintln!("skipped: this machine has a GPU");
            return;
        }
        let message = CudaDevice::describe(0).unwrap_err().to_string();
        let expected = if HAS_CUDA { "NVIDIA driver" } else { "feature `cuda`" };
        assert!(message.contains(expected), "{message}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_description_is_read() {
        let device = CudaDevice::parse("NVIDIA H200\t9.0\t150754820096\t13010\t13000");
        assert_eq!(
            device.to_string(),
            "NVIDIA H200, 140 GiB, sm 9.0, driver for CUDA 13.1, libtorch for CUDA 13.0"
        );
    }
}
