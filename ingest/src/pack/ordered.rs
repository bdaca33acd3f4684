use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Rows in flight for each thread. Enough that none waits while one row takes long; each may hold a whole image.
const ITEMS_PER_THREAD: usize = 8;

/// Maps items on threads and consumes the results on this one, in the order of the items.
///
/// At most [`ITEMS_PER_THREAD`] times `threads` items are between source and consumer: the source must take a ticket for
/// each, and the consumer gives it back when it is that item's turn. So one slow item makes the others wait instead of
/// piling up behind it. An error of the source or the consumer ends everything; threads are joined before this returns.
///
/// # Panics
/// When a worker panics, after the other threads have ended.
pub(super) fn map_in_order<T, W, R, E>(
    mut source: impl Iterator<Item = Result<T, E>> + Send,
    threads: NonZeroUsize,
    worker: impl Fn() -> Result<W, E> + Sync,
    work: impl Fn(&mut W, T) -> R + Sync,
    mut consume: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    R: Send,
    E: Send,
{
    let window = threads.get() * ITEMS_PER_THREAD;
    let (tickets, returned) = bounded::<()>(window);
    let (items, todo) = bounded::<(u64, Result<T, E>)>(window);
    let (results, done) = bounded::<Message<R, E>>(window);
    let (worker, work) = (&worker, &work);
    thread::scope(move |scope| {
        scope.spawn(move || {
            let mut number = 0;
            // Closed channels mean that the consumer has ended, for whatever reason; it knows why.
            while tickets.send(()).is_ok() {
                let Some(item) = source.next() else { break };
                if items.send((number, item)).is_err() {
                    break;
                }
                number += 1;
            }
        });
        for _ in 0..threads.get() {
            let (todo, results) = (todo.clone(), results.clone());
            scope.spawn(move || run_worker(&todo, &results, worker, work));
        }
        drop((todo, results));
        // By value: once it returns, both channels are closed, and no thread waits for them.
        deliver(done, returned, &mut consume)
    })
}

enum Message<R, E> {
    Result(u64, Result<R, E>),
    /// The worker is unwinding. Without this the consumer would wait for its item for ever.
    Panicked,
}

struct PanicGuard<'a, R, E>(&'a Sender<Message<R, E>>);

impl<R, E> Drop for PanicGuard<'_, R, E> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Message::Panicked);
        }
    }
}

fn run_worker<T, W, R, E>(
    todo: &Receiver<(u64, Result<T, E>)>,
    results: &Sender<Message<R, E>>,
    worker: &(impl Fn() -> Result<W, E> + Sync),
    work: &(impl Fn(&mut W, T) -> R + Sync),
) {
    let _guard = PanicGuard(results);
    let mut worker = worker();
    for (number, item) in todo {
        let result = match (&mut worker, item) {
            (Ok(worker), Ok(item)) => Ok(work(worker, item)),
            (Ok(_), Err(error)) => Err(error),
            (Err(_), _) => {
                // Reported in place of the first item that came; there is nothing more to do here.
                if let Err(error) = worker {
                    let _ = results.send(Message::Result(number, Err(error)));
                }
                return;
            }
        };
        if results.send(Message::Result(number, result)).is_err() {
            return;
        }
    }
}

fn deliver<R, E>(
    done: Receiver<Message<R, E>>,
    tickets: Receiver<()>,
    consume: &mut impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for message in done {
        // The scope panics again in our place once all threads have ended.
        let Message::Result(number, result) = message else { return Ok(()) };
        early.insert(number, result);
        while let Some(result) = early.remove(&next) {
            consume(result?)?;
            next += 1;
            tickets.recv().expect("a ticket was taken for each item");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    fn square_all(
        source: impl Iterator<Item = Result<u64, String>> + Send,
        count: usize,
    ) -> (Vec<u64>, Result<(), String>) {
        let mut results = Vec::new();
        let ended = map_in_order(
            source,
            threads(count),
            || Ok(()),
            |(), item| item * item,
            |result| {
                results.push(result);
                Ok(())
            },
        );
        (results, ended)
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [1, 2, 7] {
            let (results, ended) = square_all((0..500).map(Ok), count);
            assert_eq!(results, (0..500).map(|item| item * item).collect::<Vec<_>>());
            assert_eq!(ended, Ok(()));
        }
    }

    #[test]
    fn an_error_of_the_source_comes_after_all_items_before_it() {
        let source = (0..100).map(|item| if item == 40 { Err("cut".to_owned()) } else { Ok(item) });
        let (results, ended) = square_all(source, 3);
        assert_eq!((results.len(), ended), (40, Err("cut".to_owned())));
    }

    #[test]
    fn an_error_of_the_consumer_ends_an_endless_source() {
        let consume = |item| if item == 30 { Err("full") } else { Ok(()) };
        let ended = map_in_order((0..).map(Ok), threads(4), || Ok(()), |(), item: u64| item, consume);
        assert_eq!(ended, Err("full"));
    }

    #[test]
    fn a_worker_that_cannot_start_says_why() {
        let ended = map_in_order(
            (0..).map(Ok),
            threads(2),
            || Err::<(), _>("no decoder"),
            |(), item: u64| item,
            |_| Ok(()),
        );
        assert_eq!(ended, Err("no decoder"));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_of_a_worker_does_not_hang() {
        let work = |(): &mut (), item: u64| assert_ne!(item, 20);
        let _ = map_in_order((0..).map(Ok::<_, ()>), threads(2), || Ok(()), work, |()| Ok(()));
    }

    #[test]
    fn items_in_flight_stay_within_the_window() {
        let started = AtomicUsize::new(0);
        let finished = AtomicUsize::new(0);
        let source = (0..2000).map(|item: u64| {
            started.fetch_add(1, Ordering::SeqCst);
            Ok::<_, ()>(item)
        });
        let consume = |_| {
            let in_flight = started.load(Ordering::SeqCst) - finished.fetch_add(1, Ordering::SeqCst);
            assert!(in_flight <= 3 * ITEMS_PER_THREAD + 1, "{in_flight} items in flight");
            Ok(())
        };
        map_in_order(source, threads(3), || Ok(()), |(), item| item, consume).unwrap();
    }
}
