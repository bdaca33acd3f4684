//! A look at a dataset before a run is paid for: `ingest inspect`.
//!
//! Samples are read in runs of neighbours from all over the dataset, a request each, so that the effort is the same for
//! any size. What is counted is said of the samples that were read; the manifest knows the rest.

mod captions;
mod chart;
mod choice;
mod find;
mod page;
mod report;
mod specimen;

use std::num::NonZeroUsize;
use std::sync::Arc;

use fastclip_shards::{Compression, Dataset};
use futures::{StreamExt, stream};
use instant_clip_tokenizer::Tokenizer;

pub use captions::CaptionStats;
pub use find::{FindError, StoredMembers, Wanted, find_sample};
pub use report::InspectReport;
pub use specimen::{Specimen, Thumbnail};

use crate::causes::with_causes;
use crate::progress::Progress;
use crate::runtime::runtime;
use crate::stats::{SampleReader, SampleStats, SurveyError, choose as choose_shards, count_rows};
use crate::stop::Stop;
use crate::tables::find_tables;
use captions::CaptionCounter;
use choice::{Run, ShardChoice, choose};
use specimen::SpecimenMaker;

/// What to look at.
#[derive(Debug, Clone)]
pub struct InspectOptions {
    /// Samples that are counted, about: whole runs of 64 neighbours are read.
    pub num_samples: u64,
    /// Samples that are shown, of those.
    pub num_shown: usize,
    /// Shards of which the tables are read, where there are any.
    pub num_tables: NonZeroUsize,
    /// What is chosen.
    pub seed: u64,
    /// Shards read at the same time.
    pub threads: NonZeroUsize,
}

/// Looks at some samples of a dataset.
///
/// Memory holds one run of 64 samples for each thread, of a shard that is compressed as a whole all that lies between the
/// chosen ones, and what is shown. Shards that cannot be read are reported, not fatal.
///
/// # Errors
/// When not a single shard can be read, or when it was stopped.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
pub fn inspect(
    dataset: &Dataset,
    options: &InspectOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<InspectReport, SurveyError> {
    let runtime = runtime(options.threads).map_err(SurveyError::Start)?;
    let report = runtime.block_on(inspect_all(dataset, options, progress, stop));
    progress.finish();
    report
}

async fn inspect_all(
    dataset: &Dataset,
    options: &InspectOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<InspectReport, SurveyError> {
    let manifest = dataset.manifest();
    let choice = choose(&manifest.shards, options.num_samples, options.num_shown, options.seed);
    let num_shards = choice.len();
    progress.set_total(num_shards as u64);
    let tokenizer = Arc::new(Tokenizer::new());
    let mut reading = stream::iter(choice)
        .map(|choice| {
            let (dataset, tokenizer) = (dataset.clone(), Arc::clone(&tokenizer));
            async move {
                let name = dataset.manifest().shards[choice.shard].name.clone();
                let looked = tokio::spawn(async move { look_at(&dataset, &choice, tokenizer).await }).await;
                (name, looked.expect("looking neither panics nor is cancelled"))
            }
        })
        .buffered(options.threads.get());
    let mut all = Looked::new();
    let mut unreadable = Vec::new();
    let (mut first_error, mut num_read) = (None, 0);
    while let Some((name, looked)) = reading.next().await {
        match looked {
            Ok(looked) => {
                progress.advance(1, looked.samples.num_bytes);
                all.merge(looked);
            }
            Err(SurveyError::Read(error)) => {
                progress.advance(1, 0);
                unreadable.push((name, with_causes(&error)));
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        num_read += 1;
        if stop.is_requested() && num_read < num_shards {
            return Err(SurveyError::Stopped { num_read, num_shards });
        }
    }
    drop(reading);
    if let Some(error) = first_error.filter(|_| unreadable.len() == num_shards) {
        return Err(error.into());
    }
    let with_tables = choose_shards(manifest.shards.len(), Some(options.num_tables), options.seed);
    let tables = find_tables(dataset, &with_tables).await;
    let rows = count_rows(manifest, tables, options.threads).await?.finish();
    Ok(InspectReport {
        location: dataset.location().to_owned(),
        manifest: manifest.clone(),
        seed: options.seed,
        num_shards_read: num_shards - unreadable.len(),
        samples: all.samples,
        captions: all.captions.finish(),
        rows,
        specimens: all.specimens,
        unreadable,
    })
}

/// What was seen of shards.
struct Looked {
    samples: SampleStats,
    captions: CaptionCounter,
    specimens: Vec<Specimen>,
}

impl Looked {
    fn new() -> Self {
        Self { samples: SampleStats::new(), captions: CaptionCounter::new(), specimens: Vec::new() }
    }

    fn merge(&mut self, other: Self) {
        self.samples.merge(&other.samples);
        self.captions.merge(other.captions);
        self.specimens.extend(other.specimens);
    }
}

async fn look_at(
    dataset: &Dataset,
    choice: &ShardChoice,
    tokenizer: Arc<Tokenizer>,
) -> Result<Looked, SurveyError> {
    let index = dataset.index(choice.shard).await?;
    let name = &dataset.manifest().shards[choice.shard].name;
    let (mut reader, mut maker) = (SampleReader::new(tokenizer)?, SpecimenMaker::new()?);
    let mut looked = Looked::new();
    // Each read of a compressed shard starts at its first byte, so there is one.
    let is_compressed = Compression::of(&dataset.stored_shard(choice.shard).1.name).is_some();
    let mut whole = None;
    if let (true, Some(first), Some(last)) = (is_compressed, choice.runs.first(), choice.runs.last()) {
        let samples = first.samples.start..last.samples.end;
        whole = Some(dataset.fetch(choice.shard, &index, samples).await?);
    }
    for Run { samples, shown } in &choice.runs {
        let run = match &whole {
            Some(whole) => whole.clone(),
            None => dataset.fetch(choice.shard, &index, samples.clone()).await?,
        };
        let bytes = index.byte_range(samples.clone());
        looked.samples.num_bytes += bytes.end - bytes.start;
        for position in samples.clone() {
            let Ok(sample) = run.sample(position) else {
                looked.samples.add_damaged();
                continue;
            };
            looked.samples.add(&sample, &mut reader);
            if let Some(caption) = sample.member("txt") {
                looked.captions.add(&String::from_utf8_lossy(caption));
            }
            if shown.contains(&position) {
                looked.specimens.push(maker.make(&sample, name));
            }
        }
    }
    Ok(looked)
}
