//! What the examples share: the arguments that describe a loader.
//!
//! The examples themselves are files beside this crate's manifest, in order of difficulty:
//!
//! | example | shows |
//! |---|---|
//! | `loader_basic` | reading a dataset batch by batch, and how fast that is |
//! | `loader_resume` | stopping anywhere and going on with the very next batch |

use std::num::NonZeroUsize;

use anyhow::Context;
use fastclip_loader::{Loader, LoaderBuilder, Order, Tail, Transform};
use fastclip_shards::Dataset;

/// Describes a loader on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct LoaderArguments {
    /// Folder or manifest of a dataset, a path or a URL.
    #[arg(long)]
    pub data: String,
    /// Samples in a batch.
    #[arg(long, default_value = "64")]
    pub batch_size: NonZeroUsize,
    /// Side of the images in a batch, in pixels.
    #[arg(long, default_value_t = 224)]
    pub size: u32,
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

impl LoaderArguments {
    /// Opens the dataset and builds the loader.
    ///
    /// # Errors
    /// When the dataset cannot be read, or does not go together with the other arguments.
    pub fn build(&self) -> anyhow::Result<Loader> {
        // Only for opening: a stream has an event loop of its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let dataset = runtime
            .block_on(Dataset::open(&self.data))
            .with_context(|| format!("could not start on `{}`", self.data))?;
        let mut builder: LoaderBuilder = Loader::builder(dataset).global_batch(self.batch_size);
        builder = if self.eval {
            builder.order(Order::Sequential).tail(Tail::Keep).transform(Transform::eval(self.size))
        } else {
            builder.order(Order::Shuffled { seed: self.seed }).transform(Transform::train(self.size))
        };
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        builder.build().context("could not build the loader")
    }
}
