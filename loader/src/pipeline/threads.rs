use std::any::Any;
use std::thread::{self, JoinHandle};

use crate::{LoadError, Stage};

/// The threads of a stream. Dropping it joins them; whoever holds it must have told them to end.
#[derive(Debug, Default)]
pub(super) struct Threads(Vec<(Stage, JoinHandle<()>)>);

impl Threads {
    pub(super) fn spawn(
        &mut self,
        stage: Stage,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), LoadError> {
        let name = format!("fastclip-{stage}");
        let handle = thread::Builder::new()
            .name(name)
            .spawn(work)
            .map_err(|source| LoadError::Start { stage, source })?;
        self.0.push((stage, handle));
        Ok(())
    }

    /// Leaves the threads to themselves.
    pub(super) fn abandon(mut self) {
        // A handle that is dropped lets go of its thread.
        self.0.clear();
    }

    /// Waits for all threads, and returns the first panic among them: the only way to end that is not clean.
    pub(super) fn join(&mut self) -> Option<LoadError> {
        let mut first = None;
        for (stage, handle) in self.0.drain(..) {
            if let Err(panic) = handle.join() {
                first.get_or_insert_with(|| LoadError::Panicked { stage, message: words(&*panic) });
            }
        }
        first
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A panic was reported by the thread's own hook; whoever wanted it as an error has called `join`.
        self.join();
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_reported_with_its_stage_and_words() {
        let mut threads = Threads::default();
        threads.spawn(Stage::Read, || ()).unwrap();
        threads.spawn(Stage::Decode, || panic!("slot {} is gone", 7)).unwrap();
        let error = threads.join().unwrap().to_string();
        assert_eq!(error, "the decoding stage panicked: slot 7 is gone");
        assert!(threads.join().is_none());
    }
}
