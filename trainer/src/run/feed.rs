//! Batches on their way to the device.
//!
//! Two places on the device are filled in turn. While a step computes on one, the next batch is copied into the other, on
//! a stream of its own: it waits there for the step that used the place before, and the step that uses it waits for the
//! copy. The host waits for neither. A batch goes back to the loader when the device has read it.

use fastclip_loader::Batch;
use fastclip_torch_ext::{Event, Stream, TorchError, Transfer, copy_async, upload};
use tch::{Device, Kind, Tensor};

use crate::step::Inputs;

/// On a GPU captions are padded to multiples of this, so that there are few shapes to record and to tune for.
const LENGTH_STEP: i64 = 16;

/// What orders the copies of batches and the steps that use them.
trait Lanes<B> {
    /// A copy that owns its batch until the device has read it.
    type Transfer;
    /// A place in the queue of steps.
    type Mark;

    /// Makes copies that start from now on wait until steps have come to the mark.
    fn hold_copies(&self, until: &Self::Mark) -> Result<(), TorchError>;
    /// Starts to copy a batch into a place.
    fn copy(&self, place: usize, batch: B) -> Result<Self::Transfer, TorchError>;
    /// Makes steps that start from now on wait for the copy.
    fn hold_steps(&self, until: &Self::Transfer) -> Result<(), TorchError>;
    /// Marks the end of the steps so far.
    fn mark(&self) -> Result<Self::Mark, TorchError>;
    /// Whether the device has read the batch.
    fn is_done(&self, transfer: &Self::Transfer) -> Result<bool, TorchError>;
}

/// Two places that are filled in turn.
#[derive(Debug)]
struct DoubleBuffer<T, M> {
    places: [Place<T, M>; 2],
    next: usize,
}

#[derive(Debug)]
struct Place<T, M> {
    /// The last copy into it, until its batch has gone back.
    transfer: Option<T>,
    /// End of the last step that used it.
    used: Option<M>,
}

impl<T, M> DoubleBuffer<T, M> {
    fn new() -> Self {
        let place = || Place { transfer: None, used: None };
        Self { places: [place(), place()], next: 0 }
    }

    /// Copies a batch into the next place, lets `step` put its work on the queue, and notes where it ends.
    fn feed<B, R>(
        &mut self,
        lanes: &impl Lanes<B, Transfer = T, Mark = M>,
        batch: B,
        step: impl FnOnce(usize, &T) -> R,
    ) -> Result<R, TorchError> {
        self.release(lanes)?;
        let index = self.next;
        let place = &mut self.places[index];
        // Its batch would have to wait for this one's step to be read. Dropping waits for the copy, which began two
        // batches ago.
        place.transfer = None;
        if let Some(used) = &place.used {
            lanes.hold_copies(used)?;
        }
        let transfer = place.transfer.insert(lanes.copy(index, batch)?);
        lanes.hold_steps(transfer)?;
        let result = step(index, transfer);
        place.used = Some(lanes.mark()?);
        self.next = 1 - index;
        self.release(lanes)?;
        Ok(result)
    }

    /// Gives batches back that the device has read.
    fn release<B>(&mut self, lanes: &impl Lanes<B, Transfer = T, Mark = M>) -> Result<(), TorchError> {
        for place in &mut self.places {
            if let Some(transfer) = &place.transfer
                && lanes.is_done(transfer)?
            {
                place.transfer = None;
            }
        }
        Ok(())
    }
}

/// The places on the device, and the stream on which they are filled.
#[derive(Debug)]
struct OnDevice {
    device: Device,
    copies: Stream,
    places: [Tensors; 2],
}

/// A place for a batch.
#[derive(Debug)]
struct Tensors {
    images: Tensor, // [batch, 3, size, size]
    tokens: Tensor, // [batch · context]
}

impl OnDevice {
    /// Columns of tokens that are given to the model.
    fn num_columns(&self, batch: &Batch) -> i64 {
        let longest = batch.lengths().iter().copied().max().unwrap_or(0).into();
        if self.device.is_cuda() { round_up(longest, batch.context_length() as i64) } else { longest }
    }
}

/// Returns the length that captions of at most `longest` tokens are padded to.
fn round_up(longest: i64, context_length: i64) -> i64 {
    let rest = longest.max(1) % LENGTH_STEP;
    let padding = if rest == 0 { 0 } else { LENGTH_STEP - rest };
    (longest.max(1) + padding).min(context_length)
}

impl Lanes<Batch> for OnDevice {
    type Transfer = Transfer<Batch>;
    type Mark = Event;

    fn hold_copies(&self, until: &Event) -> Result<(), TorchError> {
        self.copies.wait_for(until)
    }

    fn copy(&self, place: usize, batch: Batch) -> Result<Transfer<Batch>, TorchError> {
        let num_samples = batch.len() as i64;
        let num_columns = self.num_columns(&batch);
        let tokens = Tensor::from_slice(batch.tokens()).view([num_samples, batch.context_length() as i64]);
        let tokens = tokens.narrow(1, 0, num_columns).contiguous();
        let place = &self.places[place];
        let there = place.tokens.narrow(0, 0, num_samples * num_columns).view([num_samples, num_columns]);
        let images = place.images.narrow(0, 0, num_samples);
        self.copies.within(|| {
            copy_async(&there, &upload(&tokens, self.device)?)?;
            Transfer::start(&images, batch, Batch::images)
        })?
    }

    fn hold_steps(&self, until: &Transfer<Batch>) -> Result<(), TorchError> {
        Stream::current(self.device)?.wait_for(until.mark())
    }

    fn mark(&self) -> Result<Event, TorchError> {
        let mut end = Event::new(self.device)?;
        end.record(&Stream::current(self.device)?)?;
        Ok(end)
    }

    fn is_done(&self, transfer: &Transfer<Batch>) -> Result<bool, TorchError> {
        transfer.mark().has_passed()
    }
}

/// Brings batches to the device, each just before its step.
#[derive(Debug)]
pub(super) struct Feed {
    // First, so that it is dropped first: that waits for copies into the tensors of the other.
    buffer: DoubleBuffer<Transfer<Batch>, Event>,
    lanes: OnDevice,
}

impl Feed {
    /// Makes places for batches of so many images of this side, and captions of this length.
    pub(super) fn new(
        device: Device,
        num_samples: i64,
        side: i64,
        context_length: i64,
    ) -> Result<Self, TorchError> {
        let place = || Tensors {
            images: Tensor::zeros([num_samples, 3, side, side], (Kind::Uint8, device)),
            tokens: Tensor::zeros([num_samples * context_length], (Kind::Int, device)),
        };
        let lanes = OnDevice { device, copies: Stream::beside(device)?, places: [place(), place()] };
        // The memory may have belonged to something that the other stream still works on.
        lanes.hold_copies(&lanes.mark()?)?;
        Ok(Self { lanes, buffer: DoubleBuffer::new() })
    }

    /// Takes a step with a batch.
    pub(super) fn step<R>(
        &mut self,
        batch: Batch,
        step: impl FnOnce(&Inputs<'_>) -> R,
    ) -> Result<R, TorchError> {
        let Self { buffer, lanes } = self;
        let lanes = &*lanes;
        buffer.feed(lanes, batch, |place, transfer| {
            let (place, batch) = (&lanes.places[place], transfer.source());
            let (num_samples, num_columns) = (batch.len() as i64, lanes.num_columns(batch));
            let tokens = place.tokens.narrow(0, 0, num_samples * num_columns);
            step(&Inputs {
                images: place.images.narrow(0, 0, num_samples),
                tokens: tokens.view([num_samples, num_columns]),
                ids: batch.sample_ids(),
                epoch: batch.position().epoch,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::rc::Rc;

    use super::*;

    /// A device whose queues do nothing until they are told to: it notes what is asked of it.
    #[derive(Default)]
    struct Slow {
        events: Rc<RefCell<Vec<String>>>,
        done: RefCell<HashSet<u32>>,
        num_marks: RefCell<u32>,
    }

    /// A batch that tells when it goes back.
    struct Numbered(u32, Rc<RefCell<Vec<String>>>);

    impl Drop for Numbered {
        fn drop(&mut self) {
            self.1.borrow_mut().push(format!("batch {} goes back", self.0));
        }
    }

    impl Slow {
        fn note(&self, event: String) {
            self.events.borrow_mut().push(event);
        }
    }

    impl Lanes<Numbered> for Slow {
        type Transfer = Numbered;
        type Mark = u32;

        fn hold_copies(&self, until: &u32) -> Result<(), TorchError> {
            self.note(format!("copies wait for step {until}"));
            Ok(())
        }

        fn copy(&self, place: usize, batch: Numbered) -> Result<Numbered, TorchError> {
            self.note(format!("batch {} into place {place}", batch.0));
            Ok(batch)
        }

        fn hold_steps(&self, until: &Numbered) -> Result<(), TorchError> {
            self.note(format!("steps wait for batch {}", until.0));
            Ok(())
        }

        fn mark(&self) -> Result<u32, TorchError> {
            *self.num_marks.borrow_mut() += 1;
            Ok(*self.num_marks.borrow() - 1)
        }

        fn is_done(&self, transfer: &Numbered) -> Result<bool, TorchError> {
            Ok(self.done.borrow().contains(&transfer.0))
        }
    }

    /// Feeds batches, of which the device has read those in `done` before the last one comes.
    fn feed(num_batches: u32, done: &[u32]) -> Vec<String> {
        let slow = Slow::default();
        let mut buffer = DoubleBuffer::new();
        for number in 0..num_batches {
            if number + 1 == num_batches {
                slow.done.borrow_mut().extend(done);
                slow.events.borrow_mut().clear();
            }
            let events = Rc::clone(&slow.events);
            let batch = Numbered(number, Rc::clone(&events));
            buffer
                .feed(&slow, batch, |place, _| {
                    events.borrow_mut().push(format!("step {number} in place {place}"));
                })
                .unwrap();
        }
        slow.events.borrow().clone()
    }

    #[test]
    fn a_copy_waits_for_the_step_before_in_its_place_and_the_step_for_the_copy() {
        assert_eq!(feed(1, &[]), ["batch 0 into place 0", "steps wait for batch 0", "step 0 in place 0"]);
        assert_eq!(
            feed(3, &[0]),
            [
                "batch 0 goes back",
                "copies wait for step 0",
                "batch 2 into place 0",
                "steps wait for batch 2",
                "step 2 in place 0"
            ]
        );
    }

    #[test]
    fn a_batch_stays_while_the_device_may_read_it() {
        let events = feed(2, &[]);
        assert!(!events.iter().any(|event| event.contains("goes back")), "{events:?}");
        let events = feed(2, &[0]);
        assert_eq!(events[0], "batch 0 goes back", "as soon as it was read, not when its place is needed");
    }

    #[test]
    fn captions_are_padded_to_few_lengths() {
        let lengths: Vec<i64> = [0, 2, 16, 17, 64, 65, 77].map(|longest| round_up(longest, 77)).into();
        assert_eq!(lengths, [16, 16, 16, 32, 64, 77, 77]);
        assert_eq!(round_up(7, 8), 8);
    }
}
