//! What libtorch does, operation by operation.

#![expect(unsafe_code, reason = "calls the C interface of libtorch's profiler")]

use std::path::Path;
use std::ptr;

use crate::TorchError;
use crate::ffi::{self, checked};

/// Ends the observation when it is dropped, without writing it.
struct Observation;

impl Observation {
    fn begin() -> Result<Self, TorchError> {
        // SAFETY: nothing is borrowed but the place for a message.
        checked(|message| unsafe { ffi::fc_profile_begin(message) }).map_err(|failure| failure.error)?;
        Ok(Self)
    }

    fn write(self, path: &str) -> Result<(), TorchError> {
        std::mem::forget(self);
        // SAFETY: the text lives during the call.
        checked(|message| unsafe { ffi::fc_profile_end(path.as_ptr(), path.len(), message) })
            .map_err(|failure| failure.error)
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        // SAFETY: null stands for no file. What fails here fails on the way out of another failure.
        let _ = checked(|message| unsafe { ffi::fc_profile_end(ptr::null(), 0, message) });
    }
}

/// Runs `work` and writes a trace of it: every operation of libtorch on this thread and in backward passes that it starts,
/// with shapes, and on a GPU every kernel and copy. The file is JSON in Chrome's format, which <https://ui.perfetto.dev> shows.
///
/// The work takes longer than it does unobserved. Wait for a device before this ends: what it does later is not seen. At
/// most one observation at a time in a process.
///
/// # Errors
/// When libtorch cannot observe. Whether the file could be written is not known: libtorch only logs it if not.
pub fn profile<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, TorchError> {
    let observation = Observation::begin()?;
    let result = work();
    observation.write(&path.to_string_lossy())?;
    Ok(result)
}
