//! Encoding a dataset, each rank its share.

use std::num::NonZeroUsize;

use fastclip_loader::{Batch, Loader, Quality, Tail, Transform, World};
use fastclip_schemas::Position;
use fastclip_shards::Dataset;
use tch::{Kind, Tensor};

use super::gather::gather_rows;
use super::order::{EPOCH, ORDER, SampleOrder};
use super::{EncodeOptions, Encoder, EvalError};
use crate::distributed::Communicator;

/// What a rank has encoded, or what all have.
#[derive(Debug)]
pub(super) struct Features {
    /// Row of each sample in the dataset's order, `i64`.
    pub(super) rows: Tensor, // [samples]
    /// Class of each sample, `i64`; negative where it has none.
    pub(super) classes: Tensor, // [samples]
    /// Unit rows of the images.
    pub(super) images: Tensor, // [samples, dim]
    /// Unit rows of the captions.
    pub(super) texts: Tensor, // [samples, dim]
}

impl Features {
    /// Encodes this rank's share of the dataset.
    pub(super) fn encode(
        model: &dyn Encoder,
        dataset: &Dataset,
        order: &SampleOrder,
        comm: &dyn Communicator,
        options: &EncodeOptions,
    ) -> Result<Self, EvalError> {
        let (mut rows, mut classes) = (Vec::new(), Vec::new());
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        encode_batches(model, dataset, comm, options, "evaluating", |batch, image_rows, text_rows| {
            for &id in batch.sample_ids() {
                rows.push(order.row(id).ok_or(EvalError::UnknownSample { id })? as i64);
            }
            classes.extend(batch.classes().iter().map(|&class| i64::from(class)));
            images.push(image_rows);
            texts.push(text_rows);
            Ok::<_, EvalError>(())
        })?;
        let images = Tensor::cat(&images, 0);
        Ok(Self {
            rows: Tensor::from_slice(&rows).to_device(images.device()),
            classes: Tensor::from_slice(&classes).to_device(images.device()),
            texts: Tensor::cat(&texts, 0),
            images,
        })
    }

    /// Keeps the samples in the first `num_rows` rows of the dataset.
    pub(super) fn first(&self, num_rows: i64) -> Self {
        let kept = self.rows.lt(num_rows).nonzero().squeeze_dim(1);
        self.select(&kept)
    }

    /// Gathers what all ranks hold and puts it into the dataset's order.
    pub(super) fn gather(&self, comm: &dyn Communicator) -> Result<Self, EvalError> {
        let all = Self {
            rows: gather_rows(comm, &self.rows)?,
            classes: gather_rows(comm, &self.classes)?,
            images: gather_rows(comm, &self.images)?,
            texts: gather_rows(comm, &self.texts)?,
        };
        let order = all.rows.argsort(0, false);
        Ok(all.select(&order))
    }

    fn select(&self, samples: &Tensor) -> Self {
        let Self { rows, classes, images, texts } = self;
        let [rows, classes, images, texts] =
            [rows, classes, images, texts].map(|tensor| tensor.index_select(0, samples));
        Self { rows, classes, images, texts }
    }
}

/// Encodes a dataset in its order, each rank its part of every batch, and hands batch, unit rows of images and of captions
/// to `each`. All ranks get the same number of batches, some of them without samples.
pub(crate) fn encode_batches<E: From<EvalError>>(
    model: &dyn Encoder,
    dataset: &Dataset,
    comm: &dyn Communicator,
    options: &EncodeOptions,
    what: &'static str,
    mut each: impl FnMut(&Batch, Tensor, Tensor) -> Result<(), E>,
) -> Result<(), E> {
    let world_size = NonZeroUsize::new(comm.world_size()).expect("a world has at least one rank");
    let global_batch = options.batch_size.saturating_mul(world_size);
    let world = World::new(comm.rank(), comm.world_size()).map_err(EvalError::from)?;
    let loader = Loader::builder(dataset.clone())
        .global_batch(global_batch)
        .world(world)
        .order(ORDER)
        .tail(Tail::Keep)
        .transform(Transform::eval(options.image_size))
        // What is measured shall not depend on how training saves time.
        .quality(Quality::Exact)
        .captions(options.captions.clone())
        .context_length(options.context_length)
        .threads(options.threads)
        .build()
        .map_err(EvalError::from)?;
    let bar = options.progress.bar(what, "samples", 0, loader.num_samples());
    let batches =
        loader.stream(Position::start_of(EPOCH), Position::start_of(EPOCH + 1)).map_err(EvalError::from)?;
    let mut done = 0;
    for batch in batches {
        let batch = batch.map_err(EvalError::from)?;
        let (images, texts) = encode_batch(model, &batch, options);
        each(&batch, images, texts)?;
        done += global_batch.get() as u64;
        bar.set(done.min(loader.num_samples()));
    }
    Ok(())
}

/// Encodes a batch that may be short, in the shape of a full one.
///
/// Kernels choose their way of summing by the shape of their input. With one shape for all batches, a sample's features
/// do not depend on how many others shared its last batch, and so not on the number of ranks.
fn encode_batch(model: &dyn Encoder, batch: &Batch, options: &EncodeOptions) -> (Tensor, Tensor) {
    let len = batch.len() as i64;
    if len == 0 {
        // No rows, so that a rank without samples can take part in the collectives.
        let nothing = || Tensor::zeros([0, model.dim()], (Kind::Float, model.device()));
        return (nothing(), nothing());
    }
    let side = i64::from(options.image_size);
    let images = Tensor::from_slice(batch.images()).reshape([len, 3, side, side]);
    let tokens = Tensor::from_slice(batch.tokens()).reshape([len, options.context_length as i64]);
    // Filled up with the last sample rather than with zeros: a model may rely on every text having an end.
    let full =
        Tensor::arange(options.batch_size.get() as i64, (Kind::Int64, tch::Device::Cpu)).clamp_max(len - 1);
    let full = |tensor: Tensor| tensor.index_select(0, &full).to_device(model.device());
    let only_real = |rows: Tensor| rows.narrow(0, 0, len).to_kind(Kind::Float);
    (only_real(model.encode_image(&full(images))), only_real(model.encode_text(&full(tokens))))
}
