//! Memory for the bodies of answers, which nobody vouches for.
//!
//! Most images are small, and every request may hold a small body. Larger ones share a budget. Where the length was announced, all of it is
//! reserved before the body is read. Elsewhere the reservation grows with the body; then all might hold a part and wait for the rest, so one
//! of them at a time may go beyond the budget, and thus comes to an end and gives back what it has.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What every request may hold without asking.
pub(super) const SMALL_BODY_BYTES: usize = 256 << 10;

/// Budgets are counted in so many bytes, for permits are counted in 32 bits.
const UNIT_BYTES: usize = 1 << 10;

/// A reservation grows to so many times what it was.
const GROWTH: usize = 4;

/// The budget of larger bodies.
#[derive(Debug)]
pub(super) struct BodyMemory {
    budget: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
    max_bytes: usize,
}

/// Memory for one body, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Reservation {
    num_bytes: usize,
    budget: Option<OwnedSemaphorePermit>,
    /// Held by the one that may go beyond the budget.
    _beyond: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    /// A budget for bodies of at most `max_bytes` each. It is at least as large as one of them.
    pub(super) fn new(budget_bytes: usize, max_bytes: usize) -> Self {
        let units = budget_bytes.max(max_bytes).div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { budget: Arc::new(Semaphore::new(units)), beyond: Arc::new(Semaphore::new(1)), max_bytes }
    }

    /// Waits for the memory of a body whose length was announced.
    pub(super) async fn reserve(&self, num_bytes: usize) -> Reservation {
        if num_bytes <= SMALL_BODY_BYTES {
            return Reservation { num_bytes: SMALL_BODY_BYTES, ..Reservation::default() };
        }
        let permit = Arc::clone(&self.budget).acquire_many_owned(units(num_bytes)).await;
        let permit = permit.expect("the semaphore is never closed");
        Reservation { num_bytes, budget: Some(permit), _beyond: None }
    }

    /// Appends to a body that has a reservation for it, without taking more memory than that.
    pub(super) fn append(body: &mut Vec<u8>, piece: &[u8], reservation: &Reservation) {
        let num_bytes = body.len() + piece.len();
        if num_bytes > body.capacity() {
            // Small ones grow as vectors do; large ones have their place at once.
            let doubled = (2 * body.capacity()).max(num_bytes).min(SMALL_BODY_BYTES);
            let capacity = if num_bytes <= SMALL_BODY_BYTES { doubled } else { reservation.num_bytes };
            body.reserve_exact(capacity - body.len());
        }
        body.extend_from_slice(piece);
    }

    /// Waits until a reservation has room for `num_bytes`, which are at most `max_bytes`.
    pub(super) async fn grow(&self, reservation: &mut Reservation, num_bytes: usize) {
        while reservation.num_bytes < num_bytes {
            let larger = (reservation.num_bytes * GROWTH).min(self.max_bytes).max(num_bytes);
            let more = Arc::clone(&self.budget).acquire_many_owned(units(larger - reservation.num_bytes));
            tokio::select! {
                biased;
                more = more => {
                    let more = more.expect("the semaphore is never closed");
                    match &mut reservation.budget {
                        Some(held) => held.merge(more),
                        none => *none = Some(more),
                    }
                    reservation.num_bytes = larger;
                }
                beyond = Arc::clone(&self.beyond).acquire_owned() => {
                    reservation._beyond = Some(beyond.expect("the semaphore is never closed"));
                    reservation.num_bytes = self.max_bytes.max(num_bytes);
                }
            }
        }
    }
}

fn units(num_bytes: usize) -> u32 {
    u32::try_from(num_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn small_bodies_never_wait_and_large_ones_share() {
        let memory = BodyMemory::new(8 * MIB, 4 * MIB);
        let held = [memory.reserve(4 * MIB).await, memory.reserve(4 * MIB).await];
        assert!(memory.reserve(SMALL_BODY_BYTES).now_or_never().is_some());
        assert!(memory.reserve(SMALL_BODY_BYTES + 1).now_or_never().is_none());
        drop(held);
        assert!(memory.reserve(4 * MIB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn bodies_take_no_more_than_was_reserved() {
        let memory = BodyMemory::new(8 * MIB, 4 * MIB);
        for announced in [0, 3 * MIB] {
            let (mut body, mut reservation) = (Vec::new(), memory.reserve(announced).await);
            while body.len() < 3 * MIB {
                memory.grow(&mut reservation, body.len() + 9999).await;
                BodyMemory::append(&mut body, &[7; 9999], &reservation);
                assert!(body.capacity() <= reservation.num_bytes, "{} of {reservation:?}", body.capacity());
            }
        }
    }

    #[tokio::test]
    async fn bodies_that_grow_do_not_wait_for_each_other_for_ever() {
        let memory = BodyMemory::new(4 * MIB, 4 * MIB);
        let mut grown: Vec<Reservation> = Vec::new();
        for _ in 0..6 {
            let mut reservation = memory.reserve(0).await;
            if memory.grow(&mut reservation, MIB).now_or_never().is_some() {
                grown.push(reservation);
            }
        }
        // Five of them fill the budget, one is beyond it; all want to be larger still.
        let beyond = grown.iter().position(|reservation| reservation._beyond.is_some()).unwrap();
        let mut lucky = grown.remove(beyond);
        assert!(memory.grow(&mut lucky, 4 * MIB).now_or_never().is_some());
        let mut waiting = grown.pop().unwrap();
        assert!(memory.grow(&mut waiting, 4 * MIB).now_or_never().is_none());
        drop(lucky);
        assert!(memory.grow(&mut waiting, 4 * MIB).now_or_never().is_some());
    }
}
