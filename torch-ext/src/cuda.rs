//! What GPUs there are. Without the feature `cuda` this says that it is missing: what uses it needs no second form.

#![cfg_attr(
    feature = "cuda",
    expect(unsafe_code, reason = "calls the C interface of CUDA's description of devices")
)]

use std::fmt;

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
