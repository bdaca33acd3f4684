use std::fmt;
use std::io;
use std::ptr::NonNull;

/// A piece of host memory that a batch can be written into.
///
/// # Safety
/// For the life of the value, `num_bytes` initialised bytes lie at `start`, which never changes; nobody but the value's
/// owner reads or writes them, and they may be reached from any thread. The memory is given back when the value is
/// dropped. `start` is a multiple of [`ALIGNMENT`], so that the memory can be read as numbers of any kind.
#[expect(
    unsafe_code,
    reason = "implementers vouch for memory that comes from elsewhere, such as the CUDA runtime"
)]
pub unsafe trait HostMemory: fmt::Debug + Send + Sync {
    /// Where the memory begins.
    fn start(&self) -> NonNull<u8>;

    /// Its length.
    fn num_bytes(&self) -> usize;
}

/// What addresses of host memory are multiples of: the widest vector of a processor.
pub const ALIGNMENT: usize = 64;

/// Where the memory of batches comes from.
pub trait HostAllocator: fmt::Debug + Send + Sync {
    /// Returns memory of at least `num_bytes`, all zeros.
    ///
    /// Called a few times at the start of a stream, and when more batches are kept than ever before.
    ///
    /// # Errors
    /// When there is no such memory.
    fn allocate(&self, num_bytes: usize) -> io::Result<Box<dyn HostMemory>>;
}

/// Ordinary memory.
#[derive(Debug)]
pub struct Pageable {
    lines: NonNull<[Line]>,
    num_bytes: usize,
}

/// Bytes at an address that the trait promises.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read and written through pointers only")] [u8; ALIGNMENT]);

/// Takes ordinary memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageableAllocator;

impl HostAllocator for PageableAllocator {
    fn allocate(&self, num_bytes: usize) -> io::Result<Box<dyn HostMemory>> {
        let num_lines = num_bytes.div_ceil(ALIGNMENT);
        let mut lines = Vec::new();
        lines.try_reserve_exact(num_lines).map_err(io::Error::other)?;
        lines.resize(num_lines, Line([0; ALIGNMENT]));
        Ok(Box::new(Pageable { lines: NonNull::from(Box::leak(lines.into_boxed_slice())), num_bytes }))
    }
}

// SAFETY: the lines are owned like those of a `Box<[Line]>`, which is `Send`.
#[expect(unsafe_code, reason = "a pointer to bytes that are owned")]
unsafe impl Send for Pageable {}
// SAFETY: `&Pageable` gives out a pointer and a length, and touches no byte.
#[expect(unsafe_code, reason = "a pointer to bytes that are owned")]
unsafe impl Sync for Pageable {}

// SAFETY: `lines` came from a leaked box, initialised to zeros, that only `drop` frees; a line has no padding, and as many
// are there as `num_bytes` fill. The pointer is never changed or given to anyone but the caller.
#[expect(unsafe_code, reason = "memory from a leaked box")]
unsafe impl HostMemory for Pageable {
    fn start(&self) -> NonNull<u8> {
        self.lines.cast()
    }

    fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for Pageable {
    #[expect(unsafe_code, reason = "the box was leaked so that its bytes can be shared out")]
    fn drop(&mut self) {
        // SAFETY: `lines` came from `Box::leak` and is freed only here, once.
        drop(unsafe { Box::from_raw(self.lines.as_ptr()) });
    }
}
