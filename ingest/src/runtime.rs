use std::io;
use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};

/// Enough where images have threads of their own: one drives uploads while the other waits for the disk.
pub(crate) const IO_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// A runtime for storage and network.
pub(crate) fn runtime(threads: NonZeroUsize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()
}

thread_local! {
    static OF_THREAD: io::Result<Runtime> = Builder::new_current_thread().enable_all().build();
}

/// Waits for a store on this thread.
///
/// # Panics
/// When the thread runs asynchronous code.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> io::Result<T> {
    OF_THREAD.with(|runtime| match runtime {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    })
}
