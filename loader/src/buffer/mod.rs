//! Memory that batches are written into, by many threads at once.
//!
//! Decode workers write their images straight to where the batch needs them: copying 150 KB an image through a channel
//! would cost as much as tokenising. A `Frames` is the memory of one batch. It is either whole, with one owner who may
//! read and write all of it, or split into `Slot`s that cover it without overlap, each with one owner. It becomes whole
//! again only when every slot is gone.

mod memory;
#[cfg(feature = "cuda")]
mod pinned;
mod pool;

pub use memory::{ALIGNMENT, HostAllocator, HostMemory, Pageable, PageableAllocator};
#[cfg(feature = "cuda")]
pub use pinned::{PinnedAllocator, PinnedError, WithoutCuda, page_locked};
pub(crate) use pool::{Loan, Pool};

use std::sync::Arc;

/// The images of one batch: a piece of host memory in equal parts.
#[derive(Debug)]
pub(crate) struct Frames {
    memory: Box<dyn HostMemory>,
    slot_bytes: usize,
    /// Tells the pool when these are gone, wherever and however that happens.
    _loan: Loan,
}

impl Frames {
    /// Takes memory for `num_bytes / slot_bytes` images; what remains is not used.
    pub(crate) fn new(memory: Box<dyn HostMemory>, slot_bytes: usize, loan: Loan) -> Self {
        Self { memory, slot_bytes, _loan: loan }
    }

    /// Gives out one writer for each of the first `num_slots` parts.
    pub(crate) fn split(self, num_slots: usize) -> (SplitFrames, Vec<Slot>) {
        let needed = num_slots.checked_mul(self.slot_bytes).expect("slots lie in memory");
        assert!(needed <= self.memory.num_bytes(), "{num_slots} slots do not fit into {:?}", self.memory);
        let frames = Arc::new(self);
        let slots = (0..num_slots).map(|index| Slot { frames: Arc::clone(&frames), index }).collect();
        (SplitFrames(frames), slots)
    }

    #[expect(unsafe_code, reason = "the memory may be page-locked, hence is not a Vec")]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `HostMemory` promises initialised bytes at an address that stays. `self` is whole, as `split` consumes
        // it and `SplitFrames::join` returns it when no slot is left: nobody writes while `&self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr(), self.memory.num_bytes()) }
    }

    #[expect(unsafe_code, reason = "the memory may be page-locked, hence is not a Vec")]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only reference into the memory.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start().as_ptr(), self.memory.num_bytes()) }
    }

    pub(crate) fn into_memory(self) -> Box<dyn HostMemory> {
        self.memory
    }
}

/// A batch's images while others write them.
#[derive(Debug)]
pub(crate) struct SplitFrames(Arc<Frames>);

impl SplitFrames {
    /// Makes the memory whole again.
    ///
    /// # Panics
    /// When a slot is still there.
    pub(crate) fn join(self) -> Frames {
        Arc::try_unwrap(self.0).expect("all slots were dropped")
    }
}

/// The right to write one image of a batch.
#[derive(Debug)]
pub(crate) struct Slot {
    frames: Arc<Frames>,
    index: usize,
}

impl Slot {
    /// Number of the slot in the batch of this rank.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The memory of the image.
    #[expect(unsafe_code, reason = "slots of one allocation are written by several threads")]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.frames.slot_bytes;
        // SAFETY: `split` made exactly one slot for each index, all within the memory, and slots cannot be cloned: this
        // range has one owner, who lends it through `&mut self`. While slots exist nobody holds `Frames` by value or
        // `&mut`, and the only references to it are those in the `Arc`s here, which never touch the bytes.
        // `HostMemory` promises initialised bytes at an address that stays.
        unsafe {
            let start = self.frames.memory.start().as_ptr().add(self.index * bytes);
            std::slice::from_raw_parts_mut(start, bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_written_by_many_threads_make_up_the_batch() {
        let memory = PageableAllocator.allocate(1000).unwrap();
        let (split, slots) = Frames::new(memory, 99, Loan::default()).split(10);
        std::thread::scope(|scope| {
            for mut slot in slots {
                scope.spawn(move || {
                    let value = slot.index() as u8 + 1;
                    slot.bytes_mut().fill(value);
                });
            }
        });
        let mut frames = split.join();
        for (index, part) in frames.bytes()[..990].chunks_exact(99).enumerate() {
            assert!(part.iter().all(|&byte| byte == index as u8 + 1), "slot {index}");
        }
        assert!(frames.bytes()[990..].iter().all(|&byte| byte == 0));
        frames.bytes_mut().fill(7);
        assert!(frames.bytes().iter().all(|&byte| byte == 7));
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn slots_beyond_the_memory_are_refused() {
        let _ = Frames::new(PageableAllocator.allocate(100).unwrap(), 51, Loan::default()).split(2);
    }
}
