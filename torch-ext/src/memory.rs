//! How much memory tensors take.

#![expect(unsafe_code, reason = "calls the C interface of libtorch's reports on memory")]

use std::ptr::NonNull;

use tch::Device;

use crate::TorchError;
use crate::ffi::{self, checked};

/// Ends the measurement when it is dropped.
struct Meter(NonNull<ffi::Meter>);

impl Drop for Meter {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the C++ side, on this thread, as the type is not `Send`.
        unsafe { ffi::fc_meter_free(self.0.as_ptr()) };
    }
}

/// Runs `work` and returns, beside its result, the most bytes that tensors took at once, beyond those that were there.
///
/// Counts what libtorch allocates on this thread and in backward passes that it starts; what other threads allocate is not
/// seen. The count is exact, and the same in every run on a CPU; the memory of the process comes on top.
///
/// # Errors
///
/// When libtorch refuses.
pub fn peak_memory<T>(work: impl FnOnce() -> T) -> Result<(T, u64), TorchError> {
    let mut meter = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: the place for the meter is on this stack.
        unsafe { ffi::fc_meter_new(&mut meter, message) }
    })
    .map_err(|failure| failure.error)?;
    let meter = Meter(NonNull::new(meter).expect("a success hands out a meter"));
    let result = work();
    // SAFETY: the meter lives until the end of this function.
    let peak = unsafe { ffi::fc_meter_peak(meter.0.as_ptr()) };
    Ok((result, u64::try_from(peak).unwrap_or(0)))
}

/// Most bytes that were in use on a device at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPeak {
    /// By tensors.
    pub allocated: u64,
    /// Taken from the driver for them.
    pub reserved: u64,
}

/// Returns the peak of memory on a device; nothing for a CPU, where libtorch does not count.
///
/// # Errors
/// When nothing has been done on the device.
pub fn memory_peak(device: Device) -> Result<Option<MemoryPeak>, TorchError> {
    let Device::Cuda(device) = device else { return Ok(None) };
    let (mut allocated, mut reserved) = (0, 0);
    // SAFETY: the places for both numbers are on this stack.
    checked(|message| unsafe { ffi::fc_memory_peak(device as i32, &mut allocated, &mut reserved, message) })
        .map_err(|failure| failure.error)?;
    let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Some(MemoryPeak { allocated: bytes(allocated), reserved: bytes(reserved) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_those_of_gpus() {
        assert_eq!(memory_peak(Device::Cpu).unwrap(), None);
        if tch::Cuda::is_available() {
            eprintln!("skipped: this machine has a GPU");
            return;
        }
        let message = memory_peak(Device::Cuda(0)).unwrap_err().to_string();
        assert!(message.contains("no tensor has been made on a GPU"), "{message}");
    }
}
