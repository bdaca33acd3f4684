use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, unbounded};
use fastclip_images::DecoderError;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::DownloadError;
use super::outcome::{Failure, ImageFacts, Outcome, Report, Status};
use super::rows::UrlRow;
use super::spool::Spool;
use crate::duplicates::{DuplicateOptions, FingerprintMaker};
use crate::fetch::{FetchFailure, FetchOptions, Fetched, Fetcher, Unfetched};
use crate::hash::HashKind;
use crate::picture::{PictureFailure, PictureMaker, PictureOptions};
use crate::progress::{Progress, SUCCESS};
use crate::stop::Stop;

/// Rows between the slowest one and the newest. What is ready among them waits on the disk; some twenty bytes of each stay in
/// memory.
const WINDOW_ROWS: usize = 1 << 16;

/// Rows that wait for their hosts, at most. A slow host holds back its own rows only, as long as others are among so many.
const WAITING_ROWS: usize = 1 << 13;

/// Outcomes that wait to be put in order, for each thread.
const OUTCOMES_PER_THREAD: usize = 4;

/// How often whoever waits for room in the window looks whether there is still somebody to make it.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// What is needed to turn rows into outcomes.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) picture: PictureOptions,
    /// What images are compared by.
    pub(super) duplicates: DuplicateOptions,
    /// Which hash of the bytes is kept.
    pub(super) hash: Option<HashKind>,
    pub(super) fetch: FetchOptions,
    /// Threads that make pictures.
    pub(super) threads: NonZeroUsize,
}

/// A row on its way to a shard.
#[derive(Debug)]
pub(super) struct ShardRow {
    /// Number of the shard. It does not fall from one row to the next.
    pub(super) shard: u64,
    pub(super) row: UrlRow,
}

/// Rows in the order in which they are written.
pub(super) type ShardRows<'a> = Box<dyn Iterator<Item = Result<ShardRow, DownloadError>> + Send + 'a>;

/// Tells where the outcome of a row goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    ordinal: u64,
    shard: u64,
}

/// A row with what its host said.
struct Answered {
    place: Place,
    row: UrlRow,
    answer: Result<Fetched, Failure>,
}

type Outcomes = Sender<Result<Outcome, DownloadError>>;

/// Fetches rows, makes pictures of what comes, and consumes the outcomes in the order of the rows.
///
/// Asked to stop, it ends with the newest shard for which a host has been asked.
pub(super) fn run(
    work: &Work,
    runtime: &Runtime,
    rows: ShardRows<'_>,
    (progress, stop): (&Progress, &Stop),
    mut consume: impl FnMut(Outcome) -> Result<(), DownloadError>,
) -> Result<(), DownloadError> {
    let fetcher = Fetcher::new(work.fetch.clone(), progress.clone(), stop.clone());
    let fetcher = fetcher.map_err(DownloadError::Client)?;
    let threads = work.threads.get();
    let makers = (0..threads).map(|_| Maker::new(work));
    let makers = makers.collect::<Result<Vec<_>, _>>().map_err(DownloadError::Decoder)?;
    let (tickets, returned) = bounded::<()>(WINDOW_ROWS);
    // Bounded by the tickets, and what is large in it by the requests.
    let (fetched, to_make) = unbounded::<Answered>();
    let (outcomes, done) = bounded(threads * OUTCOMES_PER_THREAD);
    let (to_fetch, admitted) = mpsc::channel(work.fetch.max_requests.get());
    let (alive, ended) = oneshot::channel::<()>();
    let begun = Arc::new(BegunShards::new(stop));
    let fetching = Arc::clone(&begun);
    thread::scope(move |scope| {
        for maker in makers {
            let (to_make, outcomes) = (to_make.clone(), outcomes.clone());
            scope.spawn(move || make_pictures(maker, progress, &to_make, &outcomes));
        }
        drop(to_make);
        scope.spawn(move || admit_rows(rows, &begun, &tickets, &to_fetch));
        scope.spawn(move || {
            runtime.block_on(fetch_rows(admitted, fetcher, fetching, fetched, outcomes, alive))
        });
        // By value: once it returns, the channels are closed, and no thread waits for them.
        deliver(done, returned, ended, &mut consume)
    })
}

/// The shards for which hosts have been asked.
struct BegunShards {
    newest: Mutex<Option<u64>>,
    stop: Stop,
}

impl BegunShards {
    fn new(stop: &Stop) -> Self {
        Self { newest: Mutex::new(None), stop: stop.clone() }
    }

    /// Whether to ask for a row of a shard. When the run is to stop, begun ones are still completed, and no new one begins: thousands of
    /// rows wait for their turn.
    fn wants(&self, shard: u64) -> bool {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: a shard is wanted either for all of its rows or for none.
        if !self.stop.is_requested() {
            *newest = (*newest).max(Some(shard));
        }
        Some(shard) <= *newest
    }

    /// Whether no row of a shard will be asked for any more. Does not begin it.
    fn refuses(&self, shard: u64) -> bool {
        // In this order: who takes the lock after the request begins no shard.
        self.stop.is_requested() && Some(shard) > *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads rows as far as the window allows, and while somebody wants them.
fn admit_rows(
    rows: ShardRows<'_>,
    begun: &BegunShards,
    tickets: &Sender<()>,
    to_fetch: &mpsc::Sender<Result<ShardRow, DownloadError>>,
) {
    let mut shard = None;
    for row in rows {
        if let Ok(row) = &row {
            shard = Some(row.shard);
        }
        // Rows of a shard that has not begun give no ticket back, so that there is no waiting for one behind them.
        let is_refused = || shard.is_some_and(|shard| begun.refuses(shard));
        while !is_refused() {
            match tickets.send_timeout((), LOOK_AROUND) {
                Ok(()) => break,
                Err(SendTimeoutError::Timeout(())) => {}
                // The consumer has ended, for whatever reason; it knows why.
                Err(SendTimeoutError::Disconnected(())) => return,
            }
        }
        if is_refused() || to_fetch.blocking_send(row).is_err() {
            return;
        }
    }
}

/// Asks for rows, many at a time, until there are no more or nobody is there to take them.
async fn fetch_rows(
    mut rows: mpsc::Receiver<Result<ShardRow, DownloadError>>,
    fetcher: Fetcher,
    begun: Arc<BegunShards>,
    fetched: Sender<Answered>,
    outcomes: Outcomes,
    mut alive: oneshot::Sender<()>,
) {
    let fetcher = Arc::new(fetcher);
    let places = Arc::new(Semaphore::new(WAITING_ROWS));
    let mut requests = JoinSet::new();
    let all = async {
        let mut ordinal = 0;
        while let Some(row) = rows.recv().await {
            let ShardRow { shard, row } = match row {
                Ok(row) => row,
                Err(error) => {
                    // Closed means that the consumer has ended, and knows why.
                    let _ = outcomes.send(Err(error));
                    return;
                }
            };
            let place = Place { ordinal, shard };
            ordinal += 1;
            let waiting = Arc::clone(&places).acquire_owned().await;
            let waiting = waiting.expect("the semaphore is never closed");
            let (fetcher, fetched, outcomes) = (Arc::clone(&fetcher), fetched.clone(), outcomes.clone());
            let begun = Arc::clone(&begun);
            let on_its_way = fetcher.row();
            requests.spawn(async move {
                let (mut row, _held) = (row, (waiting, on_its_way));
                let answer = match row.fault.take() {
                    Some(fault) => Err(fault),
                    None => match fetcher.fetch(&row.url, &|| begun.wants(place.shard)).await {
                        Ok(body) => Ok(body),
                        Err(Unfetched::Failed(failure)) => Err(failure.into()),
                        Err(Unfetched::Skipped) => return,
                        Err(Unfetched::Offline(outage)) => {
                            let _ = outcomes.send(Err(DownloadError::Offline(outage)));
                            return;
                        }
                    },
                };
                let _ = fetched.send(Answered { place, row, answer });
            });
            while requests.try_join_next().is_some() {}
        }
        fetcher.end_rows();
        while requests.join_next().await.is_some() {}
    };
    tokio::select! {
        () = all => {}
        // Requests on their way are dropped with their set.
        () = alive.closed() => {}
    }
}

/// What a thread needs for its images.
struct Maker {
    pictures: PictureMaker,
    fingerprints: FingerprintMaker,
    hash: Option<HashKind>,
}

impl Maker {
    fn new(work: &Work) -> Result<Self, DecoderError> {
        let max_pixels = work.picture.max_image_pixels;
        Ok(Self {
            pictures: PictureMaker::new(work.picture.clone())?,
            fingerprints: FingerprintMaker::new(work.duplicates, max_pixels)?,
            hash: work.hash,
        })
    }
}

fn make_pictures(mut maker: Maker, progress: &Progress, fetched: &Receiver<Answered>, outcomes: &Outcomes) {
    for Answered { place, row, answer } in fetched {
        let outcome = outcome(&mut maker, place, row, answer);
        // Here and not when they are in order again: one slow row must not look as if nothing went on.
        progress.advance(1, 0);
        progress.count(outcome.report.failure.as_ref().map_or(SUCCESS, |(reason, _)| reason));
        if outcomes.send(Ok(outcome)).is_err() {
            return;
        }
    }
}

fn outcome(
    maker: &mut Maker,
    Place { ordinal, shard }: Place,
    row: UrlRow,
    answer: Result<Fetched, Failure>,
) -> Outcome {
    let Maker { pictures, fingerprints, hash } = maker;
    let made = answer.and_then(|body| {
        if let Some((kind, expected)) = &row.hash {
            check_hash(*kind, expected, &body.bytes)?;
        }
        let picture = pictures.make(&body.bytes)?;
        let facts = ImageFacts {
            extension: picture.extension.to_owned(),
            width: picture.width,
            height: picture.height,
            original_width: picture.original_width,
            original_height: picture.original_height,
            exif: picture.exif,
            hash: hash.map(|kind| kind.of(&body.bytes)),
        };
        Ok((facts, picture.bytes, fingerprints.make(&body.bytes)))
    });
    let (status, failure, image, bytes, fingerprint) = match made {
        Ok((facts, bytes, fingerprint)) => (Status::Success, None, Some(facts), bytes, fingerprint),
        Err(Failure { status, reason, message }) => (status, Some((reason, message)), None, Vec::new(), None),
    };
    let UrlRow { number, url, caption, additional, .. } = row;
    let report = Report { row: number, url, caption, additional, status, failure, image, fingerprint };
    Outcome { ordinal, shard, report, image: bytes }
}

/// Refuses other bytes than those that the list was made of.
fn check_hash(kind: HashKind, expected: &str, bytes: &[u8]) -> Result<(), Failure> {
    let message = match kind.of(bytes) {
        found if found == expected => return Ok(()),
        found if expected.is_empty() => format!("the list has no {kind} for {found}"),
        found => format!("{kind} {found}, the list says {expected}"),
    };
    Err(Failure { status: Status::FailedToDownload, reason: "hash_mismatch".to_owned(), message })
}

impl From<FetchFailure> for Failure {
    fn from(failure: FetchFailure) -> Self {
        let FetchFailure { reason, message, .. } = failure;
        Self { status: Status::FailedToDownload, reason: reason.to_string(), message }
    }
}

impl From<PictureFailure> for Failure {
    fn from(PictureFailure { reason, message }: PictureFailure) -> Self {
        Self { status: Status::FailedToResize, reason: reason.to_string(), message }
    }
}

fn deliver(
    done: Receiver<Result<Outcome, DownloadError>>,
    tickets: Receiver<()>,
    _ended: oneshot::Receiver<()>,
    consume: &mut impl FnMut(Outcome) -> Result<(), DownloadError>,
) -> Result<(), DownloadError> {
    let mut spool = Spool::new();
    for outcome in done {
        let mut next = spool.push(outcome?).map_err(DownloadError::Spool)?;
        while let Some(outcome) = next {
            consume(outcome)?;
            tickets.recv().expect("a ticket was taken for each row");
            next = spool.pop().map_err(DownloadError::Spool)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn row(shard: u64, number: u64) -> Result<ShardRow, DownloadError> {
        let row = UrlRow {
            number,
            url: String::new(),
            caption: None,
            additional: Map::new(),
            hash: None,
            fault: None,
        };
        Ok(ShardRow { shard, row })
    }

    #[test]
    fn a_request_to_stop_is_heard_while_a_shard_that_has_not_begun_fills_the_window() {
        let stop = Stop::default();
        let begun = Arc::new(BegunShards::new(&stop));
        assert!(begun.wants(0));
        // Room for one row of the first shard and two of the second. Nobody takes a ticket out.
        let (tickets, returned) = bounded(3);
        let (to_fetch, mut admitted) = mpsc::channel(100);
        let rows: ShardRows<'_> = Box::new((0..90).map(|number| row(number.min(1), number)));
        let admitting = {
            let begun = Arc::clone(&begun);
            thread::spawn(move || admit_rows(rows, &begun, &tickets, &to_fetch))
        };
        for number in 0..3 {
            assert_eq!(admitted.blocking_recv().unwrap().unwrap().row.number, number);
        }
        stop.request();
        assert!(!begun.wants(1));
        assert!(admitted.blocking_recv().is_none(), "nothing follows");
        admitting.join().unwrap();
        assert_eq!(returned.len(), 3);
    }

    #[test]
    fn a_shard_that_has_begun_is_admitted_to_its_end() {
        let stop = Stop::default();
        let begun = BegunShards::new(&stop);
        assert!(begun.wants(3));
        stop.request();
        let (tickets, _returned) = bounded(100);
        let (to_fetch, mut admitted) = mpsc::channel(100);
        admit_rows(Box::new((0..20).map(|number| row(number / 5, number))), &begun, &tickets, &to_fetch);
        drop(to_fetch);
        let shards: Vec<u64> =
            std::iter::from_fn(|| admitted.blocking_recv()).map(|row| row.unwrap().shard).collect();
        assert_eq!(shards, (0..20).map(|number| number / 5).collect::<Vec<_>>());
        assert!(begun.refuses(4) && !begun.refuses(2));
    }
}
