use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, gauge, histogram};

use crate::BadReason;
use crate::meter::{Meter, Timing};

/// Parts of the loader that run at their own pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Fetches runs of samples from the store.
    Read,
    /// Hands samples to the decoders in the order of the plan.
    Dispatch,
    /// Decodes, transforms and tokenises.
    Decode,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Dispatch => "dispatching",
            Self::Decode => "decoding",
        })
    }
}

/// What all streams of a loader count, for themselves and for the recorder of the program.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) fetch: Meter,
    pub(crate) decode: Meter,
    pub(crate) transform: Meter,
    pub(crate) tokenize: Meter,
    pub(crate) index_wait: Meter,
    pub(crate) room_wait: Meter,
    pub(crate) run_wait: Meter,
    pub(crate) decoder_wait: Meter,
    pub(crate) job_wait: Meter,
    pub(crate) batch_wait: Meter,
    pub(crate) caller: Meter,
    num_batches: Total,
    num_samples: Total,
    bytes_read: Total,
    bytes_in_flight: AtomicU64,
    exported_bytes_in_flight: Gauge,
    peak_bytes_in_flight: AtomicU64,
    bad: [Total; BadReason::ALL.len()],
}

/// A count that only grows.
#[derive(Debug)]
struct Total {
    count: AtomicU64,
    exported: Counter,
}

impl Total {
    fn new(exported: Counter) -> Self {
        Self { count: AtomicU64::new(0), exported }
    }

    fn add(&self, number: u64) {
        self.count.fetch_add(number, Ordering::Relaxed);
        self.exported.increment(number);
    }

    fn read(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Default for Meters {
    /// Registers everything with the recorder that is installed now.
    fn default() -> Self {
        let stage =
            |stage: &'static str| Meter::new(histogram!("fastclip_loader_stage_seconds", "stage" => stage));
        let wait =
            |edge: &'static str| Meter::new(histogram!("fastclip_loader_wait_seconds", "edge" => edge));
        let bad =
            |reason: BadReason| counter!("fastclip_loader_bad_samples_total", "reason" => reason.to_string());
        Self {
            fetch: stage("fetch"),
            decode: stage("decode"),
            transform: stage("transform"),
            tokenize: stage("tokenize"),
            index_wait: wait("reader_for_index"),
            room_wait: wait("reader_for_room"),
            run_wait: wait("dispatcher_for_run"),
            decoder_wait: wait("dispatcher_for_decoder"),
            job_wait: wait("decoder_for_work"),
            batch_wait: wait("caller_for_batch"),
            caller: Meter::new(histogram!("fastclip_loader_caller_seconds")),
            num_batches: Total::new(counter!("fastclip_loader_batches_total")),
            num_samples: Total::new(counter!("fastclip_loader_samples_total")),
            bytes_read: Total::new(counter!("fastclip_loader_bytes_read_total")),
            bytes_in_flight: AtomicU64::new(0),
            exported_bytes_in_flight: gauge!("fastclip_loader_bytes_in_flight"),
            peak_bytes_in_flight: AtomicU64::new(0),
            bad: BadReason::ALL.map(|reason| Total::new(bad(reason))),
        }
    }
}

impl Meters {
    pub(crate) fn deliver(&self, num_samples: u64) {
        self.num_batches.add(1);
        self.num_samples.add(num_samples);
    }

    pub(crate) fn add_bytes_read(&self, num_bytes: u64) {
        self.bytes_read.add(num_bytes);
    }

    pub(crate) fn hold_bytes(&self, num_bytes: u64) {
        let held = self.bytes_in_flight.fetch_add(num_bytes, Ordering::Relaxed) + num_bytes;
        self.peak_bytes_in_flight.fetch_max(held, Ordering::Relaxed);
        self.exported_bytes_in_flight.increment(num_bytes as f64);
    }

    pub(crate) fn free_bytes(&self, num_bytes: u64) {
        self.bytes_in_flight.fetch_sub(num_bytes, Ordering::Relaxed);
        self.exported_bytes_in_flight.decrement(num_bytes as f64);
    }

    pub(crate) fn count_bad(&self, reason: BadReason) {
        self.bad[reason as usize].add(1);
    }

    pub(crate) fn read(&self, buffers_lent: usize) -> LoaderStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoaderStats {
            num_batches: self.num_batches.read(),
            num_samples: self.num_samples.read(),
            bytes_read: self.bytes_read.read(),
            bytes_in_flight: count(&self.bytes_in_flight),
            peak_bytes_in_flight: count(&self.peak_bytes_in_flight),
            buffers_lent,
            fetch: self.fetch.read(),
            decode: self.decode.read(),
            transform: self.transform.read(),
            tokenize: self.tokenize.read(),
            index_wait: self.index_wait.read(),
            room_wait: self.room_wait.read(),
            run_wait: self.run_wait.read(),
            decoder_wait: self.decoder_wait.read(),
            job_wait: self.job_wait.read(),
            batch_wait: self.batch_wait.read(),
            caller: self.caller.read(),
            bad_samples: BadReason::ALL
                .into_iter()
                .map(|reason| (reason, self.bad[reason as usize].read()))
                .filter(|&(_, count)| count > 0)
                .collect(),
        }
    }
}

/// What a loader has done since it was built, over all its streams.
///
/// Its `Display` is one line that ends with the slowest stage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoaderStats {
    /// Batches delivered.
    pub num_batches: u64,
    /// Samples in them.
    pub num_samples: u64,
    /// Bytes of shards fetched.
    pub bytes_read: u64,
    /// Bytes of shards held now.
    pub bytes_in_flight: u64,
    /// Most bytes of shards held at once.
    pub peak_bytes_in_flight: u64,
    /// Batches that exist now: under way, or not yet dropped by the caller.
    pub buffers_lent: usize,
    /// Requests for runs of samples.
    pub fetch: Timing,
    /// Images decoded.
    pub decode: Timing,
    /// Images resized.
    pub transform: Timing,
    /// Captions tokenised.
    pub tokenize: Timing,
    /// Waits of the reader for the index of a run's shard.
    pub index_wait: Timing,
    /// Waits of the reader for room among the bytes in flight: long where the store is faster than decoders and caller.
    pub room_wait: Timing,
    /// Waits of the dispatcher for a run to be fetched.
    pub run_wait: Timing,
    /// Waits of the dispatcher for a free decoder.
    pub decoder_wait: Timing,
    /// Waits of decoders for work.
    pub job_wait: Timing,
    /// Waits of the caller for a batch.
    pub batch_wait: Timing,
    /// Times that the caller took between batches.
    pub caller: Timing,
    /// Bad samples in delivered batches, by reason.
    pub bad_samples: BTreeMap<BadReason, u64>,
}

impl LoaderStats {
    /// Bad samples for any reason.
    pub fn num_bad(&self) -> u64 {
        self.bad_samples.values().sum()
    }

    /// Who holds the others up.
    pub fn bottleneck(&self) -> Bottleneck {
        let waited = self.batch_wait.total;
        if waited <= (waited + self.caller.total).mul_f64(0.05) {
            return Bottleneck::Caller;
        }
        let busy = self.decode.total + self.transform.total + self.tokenize.total;
        if self.job_wait.total > busy { Bottleneck::Reading } else { Bottleneck::Decoding }
    }
}

/// The slowest part of a running loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bottleneck {
    /// The caller seldom waits for batches: the loader is fast enough.
    Caller,
    /// Decoders wait for bytes more than they work: the store is slow, or too few bytes may be in flight.
    Reading,
    /// Decoders are busy: more threads or smaller images would help.
    Decoding,
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "none, batches are ready before they are asked for",
            Self::Reading => "reading, decoders wait for bytes",
            Self::Decoding => "decoding, all decoders are busy",
        })
    }
}

impl fmt::Display for LoaderStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples in {} batches, {:.1} MB in {} requests; fetch {}, decode {}, resize {}, tokenise {} each; {} bad",
            self.num_samples,
            self.num_batches,
            self.bytes_read as f64 / 1e6,
            self.fetch.count,
            self.fetch,
            self.decode,
            self.transform,
            self.tokenize,
            self.num_bad(),
        )?;
        for (i, (reason, count)) in self.bad_samples.iter().enumerate() {
            write!(f, "{}{count} {reason}", if i == 0 { " (" } else { ", " })?;
        }
        let close = if self.bad_samples.is_empty() { "" } else { ")" };
        write!(f, "{close}; bottleneck: {}", self.bottleneck())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn statistics_fit_on_a_line_that_names_the_slowest_stage() {
        let meters = Meters::default();
        meters.deliver(64);
        meters.decode.add(Duration::from_millis(4));
        meters.batch_wait.add(Duration::from_millis(9));
        meters.count_bad(BadReason::TruncatedImage);
        meters.count_bad(BadReason::MissingCaption);
        let line = meters.read(0).to_string();
        assert!(!line.contains('\n') && line.starts_with("64 samples"), "{line}");
        assert!(line.contains("2 bad (1 truncated image, 1 no caption)"), "{line}");
        assert!(line.ends_with("bottleneck: decoding, all decoders are busy"), "{line}");
        meters.job_wait.add(Duration::from_millis(5));
        assert_eq!(meters.read(0).bottleneck(), Bottleneck::Reading);
        meters.caller.add(Duration::from_secs(1));
        assert_eq!(meters.read(0).bottleneck(), Bottleneck::Caller);
    }
}
