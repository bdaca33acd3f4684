//! The training set.

use std::num::NonZeroUsize;

use fastclip_loader::{Loader, LoaderBuilder, Order, Tail, Transform, World};
use fastclip_schemas::Position;
use fastclip_shards::{Cache, Dataset};
use fastclip_torch_ext::TorchError;
use tch::Device;

use super::RunError;
use super::feed::Feed;
use crate::config::DataConfig;
use crate::distributed::Communicator;

/// The training set, and what all its batches have in common.
#[derive(Debug)]
pub(super) struct TrainingData {
    pub(super) loader: Loader,
    /// Samples of all ranks in a step.
    pub(super) global_batch: u64,
    /// Samples of this rank in a step.
    local_batch: i64,
    image_size: i64,
    context_length: i64,
    device: Device,
}

/// Opens a dataset from code that is not asynchronous.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn open(location: &str) -> Result<Dataset, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RunError::Runtime)?;
    runtime.block_on(Dataset::open(location)).map_err(|error| RunError::Dataset(Box::new(error)))
}

/// Describes how this rank reads the training set.
///
/// # Errors
/// When the dataset cannot be read, or the settings do not fit it.
pub fn training_loader(config: &DataConfig, rank: usize, world_size: usize) -> Result<Loader, RunError> {
    Ok(builder(config, rank, world_size)?.build()?)
}

fn builder(config: &DataConfig, rank: usize, world_size: usize) -> Result<LoaderBuilder, RunError> {
    let num_ranks = NonZeroUsize::new(world_size).expect("a run has at least one rank");
    let global_batch = config.batch_size.saturating_mul(config.accum_freq).saturating_mul(num_ranks);
    let mut dataset = open(&config.location)?;
    if let Some((folder, max_bytes)) = &config.cache {
        dataset = dataset.with_cache(Cache::open(folder, *max_bytes).map_err(RunError::Cache)?);
    }
    let mut builder = Loader::builder(dataset)
        .global_batch(global_batch)
        .world(World::new(rank, world_size)?)
        .order(Order::Shuffled { seed: config.seed })
        .tail(Tail::Drop)
        .transform(Transform::train_with(config.image_size, (config.crop_scale, 1.0), (3.0 / 4.0, 4.0 / 3.0)))
        .captions(config.captions.clone())
        .context_length(config.context_length)
        .threads(config.threads);
    if let Some(factors) = &config.upsampling_factors {
        builder = builder.upsampling_factors(factors.clone());
    }
    Ok(builder)
}

/// Lets batches for a GPU lie in memory that it copies from by itself.
#[cfg(feature = "cuda")]
fn in_memory_for(device: Device, builder: LoaderBuilder) -> LoaderBuilder {
    use fastclip_loader::buffer::{WithoutCuda, page_locked};
    let Device::Cuda(index) = device else { return builder };
    let allocator = page_locked(index as u32, WithoutCuda::UsePageable);
    builder.host_allocator(allocator.expect("where there is no page-locked memory, ordinary one is taken"))
}

/// No device but the CPU can be there.
#[cfg(not(feature = "cuda"))]
fn in_memory_for(_device: Device, builder: LoaderBuilder) -> LoaderBuilder {
    builder
}

impl TrainingData {
    pub(super) fn open(
        config: &DataConfig,
        comm: &dyn Communicator,
        device: Device,
    ) -> Result<Self, RunError> {
        let builder = builder(config, comm.rank(), comm.world_size())?;
        let loader = in_memory_for(device, builder).build()?;
        let global_batch = loader.plan().layout().global_batch();
        Ok(Self {
            loader,
            global_batch,
            local_batch: (config.batch_size.get() * config.accum_freq.get()) as i64,
            image_size: config.image_size.into(),
            context_length: config.context_length as i64,
            device,
        })
    }

    /// Makes what brings batches to the device.
    pub(super) fn feed(&self) -> Result<Feed, TorchError> {
        Feed::new(self.device, self.local_batch, self.image_size, self.context_length)
    }

    /// Returns where the batch after this one stands.
    pub(super) fn after(&self, position: Position) -> Position {
        let Position { epoch, step } = position;
        if step + 1 < self.loader.steps_per_epoch() {
            Position { epoch, step: step + 1 }
        } else {
            Position::start_of(epoch + 1)
        }
    }
}
