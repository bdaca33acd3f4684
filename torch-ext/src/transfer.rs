//! Copies between the host and a device for which neither waits.
//!
//! They go from page-locked memory or into it, which a GPU reads and writes by itself. libtorch keeps such memory for later
//! copies, and never gives it away before the device has come so far, so that small copies need no ring of buffers of ours.

#![expect(unsafe_code, reason = "calls the C interface of copies that outlast the call")]

use std::fmt;

use tch::{Device, Tensor};

use crate::ffi::{self, checked};
use crate::stream::device_index;
use crate::{Event, Stream, TorchError};

/// A copy of bytes into a tensor, and the owner of those bytes, who is kept until the device has read them.
///
/// From ordinary memory to a GPU, and between tensors of the CPU, the copy is done when it has started.
///
/// Dropping a transfer waits for its end.
pub struct Transfer<T> {
    /// In a box, so that bytes which lie in the owner itself do not move. None once it was handed back.
    source: Option<Box<T>>,
    is_done: Event,
}

impl<T> Transfer<T> {
    /// Puts a copy of the bytes that `bytes` finds in `source` on the stream that this thread works on.
    ///
    /// # Errors
    /// When there are more or fewer bytes than the tensor holds, or the device refuses; `source` is dropped then.
    pub fn start(to: &Tensor, source: T, bytes: impl FnOnce(&T) -> &[u8]) -> Result<Self, TorchError> {
        let mut is_done = Event::new(to.device())?;
        let stream = Stream::current(to.device())?;
        let source = Box::new(source);
        let found = bytes(&source);
        checked(|message| {
            // SAFETY: the bytes belong to `source`, which lies in a box that is not touched but through `&T` before the
            // mark was passed: `finish` and `drop` wait for it. One who forgets a transfer leaves the box where it is.
            unsafe { ffi::fc_copy_bytes_async(to.as_ptr(), found.as_ptr(), found.len(), message) }
        })
        .map_err(|failure| failure.error)?;
        if let Err(error) = is_done.record(&stream) {
            // Without a mark nobody knows when the bytes have been read.
            std::mem::forget(source);
            return Err(error);
        }
        Ok(Self { source: Some(source), is_done })
    }

    /// Returns the owner of the bytes.
    pub fn source(&self) -> &T {
        self.source.as_ref().expect("the owner is taken by `finish` only, which consumes the transfer")
    }

    /// Returns the mark behind the copy.
    pub fn mark(&self) -> &Event {
        &self.is_done
    }

    /// Waits for the end of the copy, and hands the owner of the bytes back.
    ///
    /// # Errors
    /// With what went wrong on the device in the meantime.
    pub fn finish(mut self) -> Result<T, TorchError> {
        self.is_done.synchronize()?;
        let source = self.source.take().expect("the owner is taken here only");
        Ok(*source)
    }
}

impl<T> Drop for Transfer<T> {
    fn drop(&mut self) {
        if self.source.is_some() && self.is_done.synchronize().is_err() {
            // The device is lost, and whether it still reads is not known.
            std::mem::forget(self.source.take());
        }
    }
}

impl<T> fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

/// Returns a tensor of the host as one on a device, which is there for all that is put on the current stream from now on.
/// On a CPU it is the same tensor.
///
/// # Errors
/// When the device refuses.
pub fn upload(tensor: &Tensor, device: Device) -> Result<Tensor, TorchError> {
    let Device::Cuda(index) = device else { return Ok(tensor.shallow_clone()) };
    let mut copy = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: the tensor is borrowed for the call, and the place for the copy is on this stack.
        unsafe { ffi::fc_upload(tensor.as_ptr(), device_index(index), &mut copy, message) }
    })
    .map_err(|failure| failure.error)?;
    // SAFETY: after a success `copy` is a new tensor on the heap, made like those of tch, which takes it over.
    Ok(unsafe { Tensor::from_ptr(copy) })
}

/// Values of a tensor on their way to the host.
#[derive(Debug)]
pub struct Download {
    copy: Tensor,
    is_done: Event,
}

impl Download {
    /// Sends the values on their way, behind the work of the current stream that makes them. What changes the tensor
    /// afterwards does not change them.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn start(tensor: &Tensor) -> Result<Self, TorchError> {
        let mut is_done = Event::new(tensor.device())?;
        let mut copy = std::ptr::null_mut();
        checked(|message| {
            // SAFETY: the tensor is borrowed for the call, and the place for the copy is on this stack.
            unsafe { ffi::fc_download(tensor.as_ptr(), &mut copy, message) }
        })
        .map_err(|failure| failure.error)?;
        // SAFETY: after a success `copy` is a new tensor on the heap, made like those of tch, which takes it over.
        let copy = unsafe { Tensor::from_ptr(copy) };
        is_done.record(&Stream::current(tensor.device())?)?;
        Ok(Self { copy, is_done })
    }

    /// Waits until the values have come.
    ///
    /// # Errors
    /// With what went wrong on the device in the meantime.
    pub fn finish(self) -> Result<Tensor, TorchError> {
        self.is_done.synchronize()?;
        Ok(self.copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn bytes_arrive_and_their_owner_comes_back() {
        let to = Tensor::zeros([2, 3], (Kind::Uint8, Device::Cpu));
        let transfer = Transfer::start(&to, [1u8, 2, 3, 4, 5, 6], |bytes| bytes).unwrap();
        assert!(transfer.mark().has_passed().unwrap());
        assert_eq!(transfer.source()[5], 6);
        assert_eq!(transfer.finish().unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(Vec::<u8>::try_from(to.reshape([-1])).unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn bytes_that_do_not_fill_the_tensor_are_refused() {
        let to = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let error = Transfer::start(&to, vec![0u8; 15], |bytes| bytes).unwrap_err();
        assert_eq!(error.to_string(), "15 bytes do not fill a tensor of 16");
    }

    #[test]
    fn what_was_sent_to_the_host_is_what_was_there_then() {
        let tensor = Tensor::from_slice(&[1.0f32, -2.0]);
        let underway = Download::start(&tensor).unwrap();
        let _ = tensor.shallow_clone().fill_(7.0);
        assert_eq!(Vec::<f32>::try_from(underway.finish().unwrap()).unwrap(), [1.0, -2.0]);
    }

    #[test]
    fn nothing_is_copied_from_a_cpu_to_itself() {
        let tensor = Tensor::from_slice(&[1i64, 2]);
        let there = upload(&tensor, Device::Cpu).unwrap();
        assert_eq!(there.data_ptr(), tensor.data_ptr());
    }
}
