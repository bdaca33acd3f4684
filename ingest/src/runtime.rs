use std::io;
use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};

/// Enough where images have threads of their own: one drives uploads while the other waits for the disk.
pub(crate) const IO_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// A runtime for storage and network.
pub(crate) fn runtime(threads: NonZeroUsize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()
}
