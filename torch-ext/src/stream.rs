//! Queues of work on a device, and marks in them.
//!
//! A CPU has no queue: what is put on its stream is done when the call returns, and every mark has been passed. So code that
//! orders its work by streams and marks runs on both, and is tested where there is no GPU.

#![expect(unsafe_code, reason = "calls the C interface of c10's streams and events")]

use std::ptr::NonNull;

use tch::Device;

use crate::TorchError;
use crate::ffi::{self, checked};

fn index(device: usize) -> i32 {
    // A number that does not fit is no device, and -1 is refused.
    i32::try_from(device).unwrap_or(-1)
}

/// A queue of work on a device: what is put on it runs in its order, and beside that of other queues.
#[derive(Debug)]
pub struct Stream {
    /// None on a CPU.
    handle: Option<NonNull<ffi::Stream>>,
}

// SAFETY: the handle owns a number and a device, and is tied to no thread.
unsafe impl Send for Stream {}

impl Stream {
    /// Returns a stream beside the one that work goes to by default.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn beside(device: Device) -> Result<Self, TorchError> {
        // SAFETY: `handle` is a place on the caller's stack, filled on success.
        Self::made(device, |index, handle, message| unsafe { ffi::fc_stream_new(index, handle, message) })
    }

    /// Returns the stream that this thread puts its work on.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn current(device: Device) -> Result<Self, TorchError> {
        // SAFETY: as above.
        Self::made(device, |index, handle, message| unsafe { ffi::fc_stream_current(index, handle, message) })
    }

    fn made(
        device: Device,
        make: impl FnOnce(i32, *mut *mut ffi::Stream, ffi::Message) -> ffi::Status,
    ) -> Result<Self, TorchError> {
        let Device::Cuda(device) = device else { return Ok(Self { handle: None }) };
        let mut handle = std::ptr::null_mut();
        checked(|message| make(index(device), &mut handle, message)).map_err(|failure| failure.error)?;
        Ok(Self { handle: NonNull::new(handle) })
    }

    /// Puts what `work` does on this stream.
    ///
    /// # Errors
    /// When the device refuses; `work` may not have run then.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> Result<T, TorchError> {
        let _entered = self.enter()?;
        Ok(work())
    }

    fn enter(&self) -> Result<Entered, TorchError> {
        let Some(handle) = self.handle else { return Ok(Entered(None)) };
        let mut previous = std::ptr::null_mut();
        // SAFETY: the handle is valid until `self` is dropped, and the place for the other one is on this stack.
        checked(|message| unsafe { ffi::fc_stream_enter(handle.as_ptr(), &mut previous, message) })
            .map_err(|failure| failure.error)?;
        Ok(Entered(NonNull::new(previous).map(|handle| Self { handle: Some(handle) })))
    }

    /// Makes work that is put here from now on wait for the mark.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn wait_for(&self, event: &Event) -> Result<(), TorchError> {
        let (Some(stream), Some(event)) = (self.handle, event.handle) else { return Ok(()) };
        // SAFETY: both handles are valid while they are borrowed.
        checked(|message| unsafe { ffi::fc_event_block(event.as_ptr(), stream.as_ptr(), message) })
            .map_err(|failure| failure.error)
    }

    /// Makes this thread wait until the stream has nothing left to do.
    ///
    /// # Errors
    /// With what went wrong on the device in the meantime.
    pub fn synchronize(&self) -> Result<(), TorchError> {
        let Some(stream) = self.handle else { return Ok(()) };
        // SAFETY: as above.
        checked(|message| unsafe { ffi::fc_stream_synchronize(stream.as_ptr(), message) })
            .map_err(|failure| failure.error)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            // SAFETY: the handle came from the C++ side, and this is the only place that gives it back.
            unsafe { ffi::fc_stream_free(handle.as_ptr()) };
        }
    }
}

/// The stream to return to, whatever happens.
struct Entered(Option<Stream>);

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(previous) = self.0.take() {
            // A stream that work went to before can be gone back to; a failure would be that of a lost device.
            let _ = previous.enter().map(|mut entered| entered.0.take());
        }
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    /// None on a CPU, where all is passed.
    handle: Option<NonNull<ffi::Event>>,
}

// SAFETY: an event is tied to no thread.
unsafe impl Send for Event {}

impl Event {
    /// Makes a mark that is nowhere yet, and counts as passed.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn new(device: Device) -> Result<Self, TorchError> {
        if !device.is_cuda() {
            return Ok(Self { handle: None });
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: the place for the handle is on this stack.
        checked(|message| unsafe { ffi::fc_event_new(&mut handle, message) })
            .map_err(|failure| failure.error)?;
        Ok(Self { handle: NonNull::new(handle) })
    }

    /// Puts the mark at the current end of a stream, away from where it was.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn record(&mut self, stream: &Stream) -> Result<(), TorchError> {
        let (Some(stream), Some(event)) = (stream.handle, self.handle) else { return Ok(()) };
        // SAFETY: both handles are valid while they are borrowed.
        checked(|message| unsafe { ffi::fc_event_record(event.as_ptr(), stream.as_ptr(), message) })
            .map_err(|failure| failure.error)
    }

    /// Whether the device has passed the mark. Does not wait.
    ///
    /// # Errors
    /// With what went wrong on the device in the meantime.
    pub fn has_passed(&self) -> Result<bool, TorchError> {
        let Some(event) = self.handle else { return Ok(true) };
        let mut has_passed = 0;
        // SAFETY: as above, and the place for the answer is on this stack.
        checked(|message| unsafe { ffi::fc_event_query(event.as_ptr(), &mut has_passed, message) })
            .map_err(|failure| failure.error)?;
        Ok(has_passed != 0)
    }

    /// Makes this thread wait for the mark.
    ///
    /// # Errors
    /// With what went wrong on the device in the meantime.
    pub fn synchronize(&self) -> Result<(), TorchError> {
        let Some(event) = self.handle else { return Ok(()) };
        // SAFETY: as above.
        checked(|message| unsafe { ffi::fc_event_synchronize(event.as_ptr(), message) })
            .map_err(|failure| failure.error)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            // SAFETY: the handle came from the C++ side, and this is the only place that gives it back.
            unsafe { ffi::fc_event_free(handle.as_ptr()) };
        }
    }
}

/// Most bytes that were in use on a device since [`reset_memory_peak`].
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
    checked(|message| unsafe { ffi::fc_memory_peak(index(device), &mut allocated, &mut reserved, message) })
        .map_err(|failure| failure.error)?;
    let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Some(MemoryPeak { allocated: bytes(allocated), reserved: bytes(reserved) }))
}

/// Begins to look for the peak anew.
///
/// # Errors
/// When nothing has been done on the device.
pub fn reset_memory_peak(device: Device) -> Result<(), TorchError> {
    let Device::Cuda(device) = device else { return Ok(()) };
    // SAFETY: nothing is borrowed but the place for a message.
    checked(|message| unsafe { ffi::fc_memory_reset_peak(index(device), message) })
        .map_err(|failure| failure.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_cpu_all_is_done_when_the_call_returns() {
        let device = Device::Cpu;
        let stream = Stream::beside(device).unwrap();
        let mut event = Event::new(device).unwrap();
        assert_eq!(stream.within(|| 7).unwrap(), 7);
        event.record(&stream).unwrap();
        Stream::current(device).unwrap().wait_for(&event).unwrap();
        assert!(event.has_passed().unwrap());
        event.synchronize().unwrap();
        stream.synchronize().unwrap();
        assert_eq!(memory_peak(device).unwrap(), None);
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_and_no_crash() {
        if tch::Cuda::is_available() {
            eprintln!("skipped: this machine has a GPU");
            return;
        }
        let message = Stream::beside(Device::Cuda(0)).unwrap_err().to_string();
        assert!(!message.is_empty());
        assert!(memory_peak(Device::Cuda(0)).is_err());
    }
}
