use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use fastclip_schemas::Position;

use crate::buffer::{Pool, Slot, SplitFrames};
use crate::sample::Prepared;
use crate::{BadSample, LoadError};

/// A batch while its slots are filled.
#[derive(Debug)]
pub(super) struct PendingBatch {
    pub(super) position: Position,
    pub(super) num_slots: usize,
    pub(super) frames: SplitFrames,
    /// Closed when all slots are gone: then the batch is complete, or never will be.
    pub(super) outcomes: Receiver<Outcome>,
}

/// The duty to fill one slot of a batch. Fields are dropped in this order: when the channel is seen closed, nobody has
/// access to the frames any more.
#[derive(Debug)]
pub(super) struct OpenSlot {
    pub(super) slot: Slot,
    pub(super) position: Position,
    outcome: Sender<Outcome>,
}

/// What became of a slot.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) slot: usize,
    pub(super) result: Result<Filled, LoadError>,
}

#[derive(Debug)]
pub(super) struct Filled {
    /// Nothing where a bad sample is left out.
    pub(super) sample: Option<Prepared>,
    /// The sample that should have been here.
    pub(super) bad: Option<BadSample>,
}

impl PendingBatch {
    pub(super) fn open(
        pool: &Arc<Pool>,
        position: Position,
        num_slots: usize,
    ) -> Result<(Self, Vec<OpenSlot>), LoadError> {
        let (frames, slots) = pool.take()?.split(num_slots);
        // Room for all, so that no decoder ever waits for the caller.
        let (outcome, outcomes) = bounded(num_slots);
        let slots =
            slots.into_iter().map(|slot| OpenSlot { slot, position, outcome: outcome.clone() }).collect();
        Ok((Self { position, num_slots, frames, outcomes }, slots))
    }
}

impl OpenSlot {
    pub(super) fn close(self, result: Result<Filled, LoadError>) {
        let outcome = Outcome { slot: self.slot.index(), result };
        // Fails when the stream was dropped, and then nobody wants to know.
        let _ = self.outcome.send(outcome);
    }
}
