//! Settings of libtorch that hold for the whole process.

#![expect(unsafe_code, reason = "calls the C interface of libtorch's settings")]

use std::ffi::CStr;
use std::num::NonZeroUsize;

use crate::TorchError;
use crate::ffi::{self, checked};

/// Returns the version of libtorch that this crate was compiled against, such as `2.11.0`.
pub fn torch_version() -> &'static str {
    // SAFETY: the function returns a string literal, which ends with a zero byte and lives as long as the process.
    let version = unsafe { CStr::from_ptr(ffi::fc_torch_version()) };
    version.to_str().unwrap_or("unknown")
}

/// Sets the number of threads that one operation on the CPU may use.
///
/// Results of reductions can depend on it: runs that should agree bit for bit need the same number.
pub fn set_num_threads(num_threads: NonZeroUsize) -> Result<(), TorchError> {
    let num_threads = i32::try_from(num_threads.get()).unwrap_or(i32::MAX);
    // SAFETY: nothing is borrowed but the place for a message.
    checked(|message| unsafe { ffi::fc_set_num_threads(num_threads, message) })
        .map_err(|failure| failure.error)
}

/// Returns the number of threads that one operation on the CPU may use.
pub fn num_threads() -> usize {
    // SAFETY: reads a number.
    let num_threads = unsafe { ffi::fc_num_threads() };
    usize::try_from(num_threads).unwrap_or(1)
}

/// Lets products of matrices and convolutions of `f32` on a GPU round their factors to TF32: 10 bits of fraction in place
/// of 23, sums in `f32`.
pub fn set_tf32(is_allowed: bool) -> Result<(), TorchError> {
    // SAFETY: nothing is borrowed but the place for a message.
    checked(|message| unsafe { ffi::fc_set_tf32(is_allowed.into(), message) })
        .map_err(|failure| failure.error)
}

/// Lets cuDNN compute attention on a GPU where libtorch prefers it; the alternative are libtorch's own kernels.
pub fn set_cudnn_attention(is_allowed: bool) -> Result<(), TorchError> {
    // SAFETY: nothing is borrowed but the place for a message.
    checked(|message| unsafe { ffi::fc_set_cudnn_attention(is_allowed.into(), message) })
        .map_err(|failure| failure.error)
}

/// Makes operations that have no deterministic form fail, and all others use theirs.
pub fn set_deterministic(is_deterministic: bool) -> Result<(), TorchError> {
    // SAFETY: nothing is borrowed but the place for a message.
    checked(|message| unsafe { ffi::fc_set_deterministic(is_deterministic.into(), message) })
        .map_err(|failure| failure.error)
}

/// Stops libtorch from writing warnings and errors to the error stream.
///
/// It writes most of what it throws there as well, with pages of C++ frames that bury the message which this crate hands to
/// its caller.
pub fn silence_log() {
    // SAFETY: writes a number that libtorch reads without a lock; at worst a line still appears.
    unsafe { ffi::fc_silence_log() };
}
