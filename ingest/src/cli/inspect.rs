use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fastclip_ingest::{InspectOptions, Wanted, find_sample, inspect};
use fastclip_schemas::SampleId;
use fastclip_shards::Dataset;

use super::progress::ProgressArgs;
use super::{print, stop_on_signals, threads};

/// Shows what a dataset looks like: some of its samples, what they are like, and what became of the list.
///
/// Reads samples in runs of neighbours from all over the dataset, so that a large one takes no longer than a small one, and a
/// few of the tables beside the shards. Without --html it prints a summary; with --key or --id, all that is stored of one sample.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest inspect data/cc3m --html cc3m.html
  ingest inspect s3://bucket/pairs --html pairs.html --samples 50000 --show 200 --seed 3
  ingest inspect data/cc3m --key 000120005 --extract sample")]
pub(crate) struct InspectArgs {
    /// Folder, URL or manifest of the dataset
    location: String,

    /// Write a page to look at, which needs no other file
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Write the members of the sample that --key or --id names into this folder
    #[arg(long, value_name = "DIR", requires = "wanted", help_heading = "Output")]
    extract: Option<PathBuf>,

    /// Print what is stored of the sample with this key
    #[arg(long, value_name = "KEY", group = "wanted", conflicts_with_all = ["id", "html"], help_heading = "Samples")]
    key: Option<String>,
    /// Print what is stored of the sample with this id
    #[arg(long, value_name = "ID", group = "wanted", conflicts_with = "html", help_heading = "Samples")]
    id: Option<u64>,
    /// Samples to read, about
    #[arg(long, value_name = "N", default_value_t = 16_384, help_heading = "Samples")]
    samples: u64,
    /// Samples to show on the page
    #[arg(long, value_name = "N", default_value_t = 48, help_heading = "Samples")]
    show: usize,
    /// Tables beside shards to read
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(64).expect("64 is not 0"), help_heading = "Samples")]
    tables: NonZeroUsize,
    /// Which samples, shards and tables these are
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Samples")]
    seed: u64,

    /// Shards read at the same time [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl InspectArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let dataset = runtime.block_on(Dataset::open(&self.location))?;
        let wanted = self.key.map(Wanted::Key).or(self.id.map(|id| Wanted::Id(SampleId(id))));
        if let Some(wanted) = wanted {
            let sample = runtime.block_on(find_sample(&dataset, &wanted))?;
            if let Some(folder) = &self.extract {
                extract(folder, &sample.files())?;
            }
            return print(&sample);
        }
        let options = InspectOptions {
            num_samples: self.samples,
            num_shown: self.show,
            num_tables: self.tables,
            seed: self.seed,
            threads: threads(self.threads),
        };
        let stop = stop_on_signals()?;
        let report = inspect(&dataset, &options, &progress.start("looking at", "shards", &stop)?, &stop)?;
        if let Some(path) = &self.html {
            std::fs::write(path, report.to_html())
                .with_context(|| format!("could not write `{}`", path.display()))?;
        }
        print(&report)
    }
}

fn extract(folder: &Path, files: &[(String, &[u8])]) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("could not write `{}`", path.display());
    std::fs::create_dir_all(folder).with_context(|| failed(folder))?;
    for (name, data) in files {
        let path = folder.join(name);
        std::fs::write(&path, data).with_context(|| failed(&path))?;
    }
    Ok(())
}
