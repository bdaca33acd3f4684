//! Numbers on their way from a device to the host.
//!
//! Reading a tensor of a GPU makes the host wait until the device has done all that was asked of it, and the device then
//! wait for the host to ask for more. So numbers are copied into page-locked memory behind the work that makes them, with a
//! mark after the copy, and are read when the mark has been passed: usually long after.

use std::fmt;

use fastclip_torch_ext::{Event, Stream, TorchError, copy_async};
use tch::{Device, Kind, Tensor};

/// A few places in page-locked memory, taken in turn.
pub struct Ring {
    device: Device,
    places: Vec<Tensor>,
    next: usize,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("device", &self.device)
            .field("num_places", &self.places.len())
            .finish_non_exhaustive()
    }
}

/// Numbers that will have come when a mark on the device has been passed.
#[derive(Debug)]
pub struct Readback {
    numbers: Tensor,
    has_come: Event,
}

impl Ring {
    /// Makes places for so many vectors that are underway at a time, each of `length` numbers.
    pub fn new(device: Device, num_places: usize, length: i64) -> Self {
        let place = || {
            let place = Tensor::zeros([length], (Kind::Double, Device::Cpu));
            if device.is_cuda() { place.pin_memory(device) } else { place }
        };
        Self { device, places: (0..num_places).map(|_| place()).collect(), next: 0 }
    }

    /// Sends a vector on its way, behind the work that makes it. The place of the one that was sent `num_places` calls
    /// ago is taken: that one must have been read.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn send(&mut self, numbers: &Tensor) -> Result<Readback, TorchError> {
        let place = &self.places[self.next];
        self.next = (self.next + 1) % self.places.len();
        copy_async(place, &numbers.to_kind(Kind::Double))?;
        let mut has_come = Event::new(self.device)?;
        has_come.record(&Stream::current(self.device)?)?;
        Ok(Readback { numbers: place.shallow_clone(), has_come })
    }
}

impl Readback {
    /// Waits until the numbers have come.
    ///
    /// # Errors
    /// With what went wrong on the device in the meantime.
    pub fn read(self) -> Result<Vec<f64>, TorchError> {
        self.has_come.synchronize()?;
        Ok(Vec::try_from(&self.numbers).expect("places are vectors of doubles"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vector_keeps_its_place_until_the_ring_has_turned() {
        let mut ring = Ring::new(Device::Cpu, 2, 3);
        let mut send = |first: f32| ring.send(&Tensor::from_slice(&[first, 0.5, -1.0])).unwrap();
        let (first, second) = (send(1.0), send(2.0));
        assert_eq!(second.read().unwrap(), [2.0, 0.5, -1.0]);
        assert_eq!(first.read().unwrap(), [1.0, 0.5, -1.0]);
        let third = send(3.0);
        assert_eq!(third.read().unwrap(), [3.0, 0.5, -1.0]);
    }
}
