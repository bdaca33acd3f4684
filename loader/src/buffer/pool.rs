use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Frames, HostAllocator, HostMemory};
use crate::LoadError;

/// The memory of batches, used again and again.
///
/// It never waits: how many batches are under way is bounded by the channel that delivers them, and what the caller
/// keeps is the caller's. A pool that waited for the caller to return batches would hang one who collects them.
#[derive(Debug)]
pub(crate) struct Pool {
    allocator: Arc<dyn HostAllocator>,
    num_slots: usize,
    slot_bytes: usize,
    /// Idle memory kept; what comes back beyond it is freed.
    most_idle: usize,
    idle: Mutex<Vec<Box<dyn HostMemory>>>,
    num_lent: Arc<AtomicUsize>,
}

impl Pool {
    pub(crate) fn new(
        allocator: Arc<dyn HostAllocator>,
        num_slots: usize,
        slot_bytes: usize,
        most_idle: usize,
    ) -> Self {
        Self { allocator, num_slots, slot_bytes, most_idle, idle: Mutex::default(), num_lent: Arc::default() }
    }

    pub(crate) fn take(&self) -> Result<Frames, LoadError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = match idle {
            Some(memory) => memory,
            None => {
                let num_bytes = self.num_slots * self.slot_bytes;
                self.allocator
                    .allocate(num_bytes)
                    .map_err(|source| LoadError::Memory { num_bytes, source })?
            }
        };
        Ok(Frames::new(memory, self.slot_bytes, Loan::new(&self.num_lent)))
    }

    pub(crate) fn put_back(&self, frames: Frames) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle {
            idle.push(frames.into_memory());
        }
    }

    /// Frames that were taken and are still there.
    pub(crate) fn num_lent(&self) -> usize {
        self.num_lent.load(Ordering::Relaxed)
    }
}

/// Counts frames while they live.
#[derive(Debug, Default)]
pub(crate) struct Loan(Arc<AtomicUsize>);

impl Loan {
    fn new(num_lent: &Arc<AtomicUsize>) -> Self {
        num_lent.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(num_lent))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::PageableAllocator;
    use super::*;

    #[test]
    fn memory_that_comes_back_is_used_again_and_no_more_than_allowed_is_kept() {
        let pool = Pool::new(Arc::new(PageableAllocator), 2, 10, 1);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(pool.num_lent(), 2);
        let address = first.bytes().as_ptr();
        pool.put_back(first);
        pool.put_back(second);
        assert_eq!((pool.num_lent(), pool.idle.lock().unwrap().len()), (0, 1));
        assert_eq!(pool.take().unwrap().bytes().as_ptr(), address);
    }

    #[test]
    fn frames_that_are_lost_while_split_are_counted_as_gone() {
        let pool = Pool::new(Arc::new(PageableAllocator), 2, 10, 1);
        let (split, slots) = pool.take().unwrap().split(2);
        drop(split);
        assert_eq!(pool.num_lent(), 1);
        drop(slots);
        assert_eq!(pool.num_lent(), 0);
    }
}
