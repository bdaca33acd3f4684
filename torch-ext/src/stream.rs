//! Queues of work on a device, and marks in them.
//!
//! A CPU has no queue: what is put on its stream is done when the call returns, and every mark has been passed. So code that
//! orders its work by streams and marks runs on both, and is tested where there is no GPU.

#![expect(unsafe_code, reason = "calls the C interface of c10's streams and events")]

use std::ptr::NonNull;

use tch::{Device, Tensor};

use crate::TorchError;
use crate::ffi::{self, checked};

pub(crate) fn device_index(device: usize) -> i32 {
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
        checked(|message| make(device_index(device), &mut handle, message))
            .map_err(|failure| failure.error)?;
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

/// Copies a tensor into another, which may be of another kind and in another memory.
///
/// Between a GPU and page-locked memory it only joins the current stream: neither may be touched until the stream has come
/// so far. All other copies are done when this returns.
///
/// # Errors
///
/// What libtorch refuses.
pub fn copy_async(to: &Tensor, from: &Tensor) -> Result<(), TorchError> {
    checked(|message| {
        // SAFETY: both tensors are borrowed for the call.
        unsafe { ffi::fc_copy_async(to.as_ptr(), from.as_ptr(), message) }
    })
    .map_err(|failure| failure.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

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
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_and_no_crash() {
        if tch::Cuda::is_available() {
            eprintln!("skipped: this machine has a GPU");
            return;
        }
        let message = Stream::beside(Device::Cuda(0)).unwrap_err().to_string();
        let expected = if crate::HAS_CUDA { "NVIDIA" } else { "CUDA" };
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_copy_rounds_to_the_kind_of_its_target() {
        let from = Tensor::from_slice(&[1.0f32, 1.003, -7.0]);
        let to = Tensor::zeros([3], (Kind::BFloat16, Device::Cpu));
        copy_async(&to, &from).unwrap();
        assert!(to.equal(&from.to_kind(Kind::BFloat16)));
        let message = copy_async(&to, &Tensor::zeros([2], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(message.to_string().contains("must match"), "{message}");
    }
}
