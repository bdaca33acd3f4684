use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastclip_schemas::Manifest;

use crate::Stage;

/// What the stages of a stream wait for at the moment, so that a stall can be told from slowness and its cause be named.
///
/// Every wait that another party must end is entered here: requests, room in memory, a run, a free decoder, and an image
/// that is being decoded. Those that end when the caller asks for a batch are not.
#[derive(Debug, Default)]
pub(super) struct Watch {
    waits: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    /// By the order of their beginning.
    open: BTreeMap<u64, Wait>,
    num_begun: u64,
    num_ended: u64,
}

#[derive(Debug)]
struct Wait {
    awaited: Awaited,
    since: Instant,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The index of a shard, by the store.
    Index { shard: usize },
    /// Room for a run, by samples that are still needed.
    Memory { num_bytes: u64, bound: u64 },
    /// A run, by the store.
    Samples { shard: usize, samples: Range<u32> },
    /// The next run, by the reading stage.
    Run { number: u64 },
    /// A decoder to be free.
    Decoder,
    /// A sample to be decoded.
    Sample { shard: usize, sample: u32 },
}

/// A wait that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Watch {
    pub(super) fn wait(&self, awaited: Awaited) -> Waiting<'_> {
        let mut waits = self.waits();
        let number = waits.num_begun;
        waits.num_begun += 1;
        waits.open.insert(number, Wait { awaited, since: Instant::now() });
        Waiting { watch: self, number }
    }

    /// Grows whenever something that was waited for has come.
    pub(super) fn progress(&self) -> u64 {
        self.waits().num_ended
    }

    /// Which stage waits for what: of each, the longest wait.
    pub(super) fn describe(&self, manifest: &Manifest) -> String {
        let waits = self.waits();
        if waits.open.is_empty() {
            return "no stage waits for anything".to_owned();
        }
        let described = [Stage::Read, Stage::Dispatch, Stage::Decode].into_iter().filter_map(|stage| {
            let mut waits = waits.open.values().filter(|wait| wait.awaited.stage() == stage);
            let Wait { awaited, since } = waits.next()?;
            let (time, what) = (seconds(since.elapsed()), awaited.describe(manifest));
            Some(match waits.count() {
                0 => format!("{stage} has waited {time} for {what}"),
                more => format!("{stage} has waited {time} for {what} and for {more} more"),
            })
        });
        described.collect::<Vec<_>>().join("; ")
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.watch.waits();
        waits.open.remove(&self.number);
        waits.num_ended += 1;
    }
}

impl Awaited {
    fn stage(&self) -> Stage {
        match self {
            Self::Index { .. } | Self::Memory { .. } | Self::Samples { .. } => Stage::Read,
            Self::Run { .. } | Self::Decoder => Stage::Dispatch,
            Self::Sample { .. } => Stage::Decode,
        }
    }

    fn describe(&self, manifest: &Manifest) -> String {
        let name = |shard: &usize| &manifest.shards[*shard].name;
        match self {
            Self::Index { shard } => format!("the index of shard `{}`", name(shard)),
            Self::Memory { num_bytes, bound } => {
                format!("{num_bytes} bytes of the {bound} that may be in flight")
            }
            Self::Samples { shard, samples } => {
                format!("samples {} to {} of shard `{}`", samples.start, samples.end - 1, name(shard))
            }
            Self::Run { number } => format!("run {number} from the reading stage"),
            Self::Decoder => "a free decoder".to_owned(),
            Self::Sample { shard, sample } => format!("sample {sample} of shard `{}`", name(shard)),
        }
    }
}

/// A time as people want it in a log.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, SampleId, ShardEntry};

    use super::*;

    #[test]
    fn a_description_names_stage_and_shard_of_open_waits_only() {
        let digest = Digest([0; 32]);
        let shard = ShardEntry {
            name: "00003.tar".to_owned(),
            index: String::new(),
            num_samples: 9,
            num_bytes: 0,
            digest,
            index_digest: digest,
            first_sample_id: SampleId(0),
        };
        let manifest = Manifest {
            format_version: MANIFEST_FORMAT_VERSION,
            created_by: String::new(),
            num_samples: 9,
            num_sample_ids: 9,
            shards: vec![shard],
            source: BTreeMap::new(),
        };
        let watch = Watch::default();
        assert_eq!(watch.describe(&manifest), "no stage waits for anything");
        let read = watch.wait(Awaited::Samples { shard: 0, samples: 2..5 });
        let run = watch.wait(Awaited::Run { number: 7 });
        drop(watch.wait(Awaited::Decoder));
        assert_eq!(watch.progress(), 1);
        let text = watch.describe(&manifest);
        assert!(
            text.starts_with("reading has waited 0.0 s for samples 2 to 4 of shard `00003.tar`; "),
            "{text}"
        );
        assert!(text.ends_with("dispatching has waited 0.0 s for run 7 from the reading stage"), "{text}");
        drop((read, run));
        assert_eq!(watch.progress(), 3);
        let many: Vec<_> = (0..9).map(|sample| watch.wait(Awaited::Sample { shard: 0, sample })).collect();
        assert_eq!(
            watch.describe(&manifest),
            "decoding has waited 0.0 s for sample 0 of shard `00003.tar` and for 8 more"
        );
        drop(many);
    }
}
