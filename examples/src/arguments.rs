use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use anyhow::Context;
use fastclip_loader::{Layout, Loader, LoaderBuilder, Order, Quality, Tail, Transform};
use fastclip_shards::{Cache, Dataset};

/// Describes a loader on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct LoaderArguments {
    /// Folder or manifest of a dataset, a path or a URL. Several are joined: `a::b`, `data/{a,b}`.
    #[arg(long)]
    pub data: String,
    /// Folder on a local disk that keeps what was read, for the next epoch and other processes.
    #[arg(long, value_name = "DIR")]
    pub data_cache: Option<PathBuf>,
    /// Most that `--data-cache` holds, in GiB.
    #[arg(long, value_name = "N", default_value = "64", requires = "data_cache")]
    pub data_cache_gib: NonZeroU64,
    /// Samples in a batch.
    #[arg(long, default_value = "64")]
    pub batch_size: NonZeroUsize,
    /// Side of the images in a batch, in pixels.
    #[arg(long, default_value_t = 224)]
    pub size: u32,
    /// How close to Pillow's pixels images come.
    #[arg(long, value_enum, default_value_t = QualityArgument::Fast)]
    pub quality: QualityArgument,
    /// Threads that decode; as many as there are processors unless set.
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Seed of order and augmentation.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Read in the order of the dataset with the transform for evaluation, keeping the tail.
    #[arg(long)]
    pub eval: bool,
}

/// [`Quality`] on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum QualityArgument {
    /// Bit for bit.
    Exact,
    /// From smaller images where they are large enough.
    Fast,
}

/// [`Layout`] on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LayoutArgument {
    /// Planes.
    Nchw,
    /// Pixels.
    Nhwc,
}

impl From<QualityArgument> for Quality {
    fn from(quality: QualityArgument) -> Self {
        match quality {
            QualityArgument::Exact => Self::Exact,
            QualityArgument::Fast => Self::Fast,
        }
    }
}

impl From<LayoutArgument> for Layout {
    fn from(layout: LayoutArgument) -> Self {
        match layout {
            LayoutArgument::Nchw => Self::Nchw,
            LayoutArgument::Nhwc => Self::Nhwc,
        }
    }
}

/// Opens a dataset, and waits for that.
///
/// # Errors
/// When it cannot be read.
pub fn open(location: &str) -> anyhow::Result<Dataset> {
    // Only for opening: a stream has an event loop of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Dataset::open(location)).with_context(|| format!("could not start on `{location}`"))
}

impl LoaderArguments {
    /// Opens the dataset and describes the loader.
    ///
    /// # Errors
    /// When the dataset cannot be read, or the cache cannot be used.
    pub fn builder(&self) -> anyhow::Result<LoaderBuilder> {
        let mut dataset = open(&self.data)?;
        if let Some(folder) = &self.data_cache {
            let max_bytes = self.data_cache_gib.get().saturating_mul(1 << 30);
            dataset = dataset.with_cache(Cache::open(folder, max_bytes)?);
        }
        let mut builder = Loader::builder(dataset).global_batch(self.batch_size).quality(self.quality.into());
        builder = if self.eval {
            builder.order(Order::Sequential).tail(Tail::Keep).transform(Transform::eval(self.size))
        } else {
            builder.order(Order::Shuffled { seed: self.seed }).transform(Transform::train(self.size))
        };
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        Ok(builder)
    }

    /// Opens the dataset and builds the loader.
    ///
    /// # Errors
    /// When the dataset cannot be read, or does not go together with the other arguments.
    pub fn build(&self) -> anyhow::Result<Loader> {
        self.builder()?.build().context("could not build the loader")
    }
}
