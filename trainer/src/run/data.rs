//! Batches of the training set, as tensors.

use std::num::NonZeroUsize;

use fastclip_loader::{Batch, Loader, Order, Tail, Transform, World};
use fastclip_schemas::Position;
use fastclip_shards::{Cache, Dataset};
use tch::{Device, Kind, Tensor};

use super::RunError;
use crate::config::DataConfig;
use crate::distributed::Communicator;
use crate::step::Inputs;

/// The training set, and what all its batches have in common.
#[derive(Debug)]
pub(super) struct TrainingData {
    pub(super) loader: Loader,
    /// Samples of all ranks in a step.
    pub(super) global_batch: u64,
    image_size: i64,
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
    Ok(builder.build()?)
}

impl TrainingData {
    pub(super) fn open(
        config: &DataConfig,
        comm: &dyn Communicator,
        device: Device,
    ) -> Result<Self, RunError> {
        let loader = training_loader(config, comm.rank(), comm.world_size())?;
        let global_batch = loader.plan().layout().global_batch();
        Ok(Self { loader, global_batch, image_size: config.image_size.into(), device })
    }

    /// Copies a batch into tensors on the device, without the columns of tokens that are padding in all rows.
    pub(super) fn inputs<'a>(&self, batch: &'a Batch) -> Inputs<'a> {
        let num_samples = batch.len() as i64;
        let side = self.image_size;
        let images = Tensor::from_data_size(batch.images(), &[num_samples, 3, side, side], Kind::Uint8);
        let tokens = Tensor::from_slice(batch.tokens()).view([num_samples, batch.context_length() as i64]);
        let longest = batch.lengths().iter().copied().max().unwrap_or(0).into();
        Inputs {
            images: images.to_device(self.device),
            tokens: tokens.narrow(1, 0, longest).to_device(self.device),
            ids: batch.sample_ids(),
            epoch: batch.position().epoch,
        }
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
