//! How good a model is, found by all ranks together.
//!
//! [`evaluate`] measures two things on a held-out dataset: zero-shot classification, where classes are prompts, and
//! retrieval between images and captions. Each rank encodes its share; features are gathered once; each rank then ranks
//! its share of the queries and the places are gathered.
//!
//! The result is the same on every rank and, for a model that encodes a sample alike in any batch, bit by bit the same
//! for every number of ranks. Three things make it so: samples are put back into the dataset's order before anything is
//! computed from them, similarities are compared exactly (see `standing`), and averages are taken over all samples in
//! one order, never as sums of the ranks' sums.
//!
//! Decisions about retrieval: a query's only right answer is its own counterpart, as in OpenCLIP; another sample with
//! the same caption is a wrong answer that ties with the right one, and ties share their places. The full matrix of
//! similarities is never held.

mod benchmark;
mod classes;
mod encoder;
mod features;
mod gather;
mod order;
mod predictions;
mod scores;
mod standing;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use fastclip_loader::{Captions, LoadError};
use fastclip_schemas::SampleId;
use fastclip_shards::{Dataset, ReadError};
use tch::Tensor;

use self::classes::ClassPrompts;
use self::features::Features;
use self::gather::{column, share};
use self::standing::{Standing, exact, standings};
use crate::distributed::{CommError, Communicator};
use crate::model::ModelConfig;
use crate::progress::Progress;

pub use encoder::Encoder;
pub(crate) use features::encode_batches;
pub(crate) use gather::gather_rows;
pub(crate) use order::SampleOrder;
pub use predictions::{ImagePrediction, PREDICTIONS_FILE, Predictions, RankedCaption, RankedClass};
pub use scores::{Recall, Retrieval, ZeroShot};

/// How to encode a dataset. All ranks must agree, but for `threads` and `progress`.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// Side of the square images that the model takes.
    pub image_size: u32,
    /// Token ids that the model takes per caption.
    pub context_length: usize,
    /// Where captions are found and which is taken.
    pub captions: Captions,
    /// Samples that one rank encodes at once.
    pub batch_size: NonZeroUsize,
    /// Threads that decode images.
    pub threads: NonZeroUsize,
    /// Where the bar is drawn; hidden on all ranks but the first.
    pub progress: Progress,
}

impl EncodeOptions {
    /// Fills in what the model says.
    pub fn of(
        config: &ModelConfig,
        captions: Captions,
        batch_size: NonZeroUsize,
        threads: NonZeroUsize,
        progress: Progress,
    ) -> Self {
        let positive = "model configs are checked to have positive sizes";
        Self {
            image_size: u32::try_from(config.vision_cfg.image_size).expect(positive),
            context_length: usize::try_from(config.text_cfg.context_length).expect(positive),
            captions,
            batch_size,
            threads,
            progress,
        }
    }
}

/// How to evaluate. All ranks must agree.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// How the dataset is encoded.
    pub encode: EncodeOptions,
    /// Use only so many of the dataset's first pairs as the pool of retrieval; nothing means all.
    pub retrieval_pool: Option<NonZeroU64>,
    /// Images for which predictions are kept; 0 for none.
    pub num_predictions: usize,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalReport {
    /// Classification; absent if the dataset has no class names beside it, or no sample has a class.
    pub zero_shot: Option<ZeroShot>,
    /// Retrieval over the pool.
    pub retrieval: Retrieval,
    /// What the model says about some images, if that was asked for. Only on rank 0.
    pub predictions: Option<Predictions>,
}

/// An evaluation that could not be done. It ends the run, as the other ranks now wait in vain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Nothing to evaluate on.
    #[error("`{location}` holds no samples to evaluate on")]
    Empty {
        /// The dataset.
        location: String,
    },
    /// A file beside the dataset is unusable.
    #[error("`{file}` {reason}")]
    SideFile {
        /// Its name.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The loader delivered a sample that no index lists.
    #[error("sample {id} was delivered, but no shard's index lists it")]
    UnknownSample {
        /// The sample.
        id: SampleId,
    },
    /// A sample's class is not one of the names.
    #[error("sample {id} has class {class}, `classnames.txt` names {num_classes} classes from 0")]
    UnknownClass {
        /// The sample.
        id: SampleId,
        /// Its class.
        class: i64,
        /// Number of classes.
        num_classes: usize,
    },
    /// Captions or side files could not be read.
    #[error("could not read the evaluation dataset")]
    Read(#[from] ReadError),
    /// Batches could not be loaded.
    #[error("could not load the evaluation dataset")]
    Load(#[from] LoadError),
    /// Ranks could not work together.
    #[error("could not evaluate together with the other ranks")]
    Comm(#[from] CommError),
    /// The tensor library refused.
    #[error("could not compute scores")]
    Tensor(#[from] tch::TchError),
    /// The asynchronous runtime for reading could not be made.
    #[error("could not start reading")]
    Runtime(#[source] std::io::Error),
    /// Predictions could not be written or read back.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Evaluates a model on a dataset. Collective: all ranks call it with the same model, dataset and options.
///
/// Gradients are not recorded. Must not be called from inside an asynchronous runtime.
///
/// # Errors
/// When the dataset cannot be read, is empty or contradicts its class names, or when the ranks lose each other.
pub fn evaluate(
    model: &dyn Encoder,
    dataset: &Dataset,
    comm: &dyn Communicator,
    options: &EvalOptions,
) -> Result<EvalReport, EvalError> {
    let _guard = tch::no_grad_guard();
    let runtime = runtime()?;
    let order = runtime.block_on(SampleOrder::read(dataset))?;
    let prompts = runtime.block_on(ClassPrompts::read(dataset))?;
    let local = Features::encode(model, dataset, &order, comm, &options.encode)?;

    let classifier = match &prompts {
        Some(prompts) => Some(exact(&prompts.encode(model, comm, &options.encode)?)),
        None => None,
    };
    let zero_shot = match &classifier {
        Some(classifier) => classify(&local, classifier, &order, comm)?,
        None => None,
    };

    let limit = options.retrieval_pool.map_or(i64::MAX, |pool| i64::try_from(pool.get()).unwrap_or(i64::MAX));
    let mut pool = local.first(limit).gather(comm)?;
    drop(local);
    pool.images = exact(&pool.images);
    pool.texts = exact(&pool.texts);
    let image_standings = rank_own(&pool.images, &pool.texts, comm)?;
    let text_standings = rank_own(&pool.texts, &pool.images, comm)?;
    let retrieval = Retrieval {
        image_to_text: Recall::of(&image_standings),
        text_to_image: Recall::of(&text_standings),
        pool: image_standings.len() as u64,
    };

    // No collective follows, so what only rank 0 does holds nobody up in the middle of one.
    let predictions = if comm.rank() == 0 && options.num_predictions > 0 {
        let classes = prompts.as_ref().zip(classifier.as_ref());
        let asked = predictions::Asked {
            order: &order,
            captions: &options.encode.captions,
            pool: &pool,
            standings: &image_standings,
            classes,
        };
        Some(runtime.block_on(asked.predict(dataset, options.num_predictions))?)
    } else {
        None
    };
    Ok(EvalReport { zero_shot, retrieval, predictions })
}

/// Reads what an evaluation needs of a dataset beside its samples, for a run to find out at its start what would end it
/// later. Must not be called from inside an asynchronous runtime.
///
/// # Errors
/// As [`evaluate`].
pub fn check(dataset: &Dataset) -> Result<(), EvalError> {
    runtime()?.block_on(async {
        SampleOrder::read(dataset).await?;
        ClassPrompts::read(dataset).await?;
        Ok(())
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, EvalError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EvalError::Runtime)
}

/// Classifies this rank's images and averages over all ranks' images in the dataset's order.
fn classify(
    local: &Features,
    classifier: &Tensor,
    samples: &SampleOrder,
    comm: &dyn Communicator,
) -> Result<Option<ZeroShot>, EvalError> {
    let num_classes = classifier.size()[0];
    let known = local.classes.ge(0).nonzero().squeeze_dim(1);
    let [rows, classes] = [&local.rows, &local.classes].map(|tensor| tensor.index_select(0, &known));
    // Checked on what all ranks hold, so that all of them stop here and none waits for another.
    let all_rows = gather_rows(comm, &rows)?;
    let all_classes = Vec::<i64>::try_from(gather_rows(comm, &classes)?)?;
    if let Some(index) = all_classes.iter().position(|&class| class >= num_classes) {
        let id = samples.id(all_rows.int64_value(&[index as i64]) as usize);
        return Err(EvalError::UnknownClass {
            id,
            class: all_classes[index],
            num_classes: num_classes as usize,
        });
    }
    let images = exact(&local.images.index_select(0, &known));
    let found = gather_rows(comm, &standings(&images, classifier, &classes))?;
    let order = all_rows.argsort(0, false);
    let found = Standing::from_rows(&found.index_select(0, &order))?;
    let order = Vec::<i64>::try_from(&order)?;
    let classes: Vec<usize> = order.iter().map(|&place| all_classes[place as usize] as usize).collect();
    Ok((!found.is_empty()).then(|| ZeroShot::of(&found, &classes, num_classes as usize)))
}

/// Finds the place of each query's own candidate, the one in the same row; each rank answers for its share.
fn rank_own(
    queries: &Tensor,
    candidates: &Tensor,
    comm: &dyn Communicator,
) -> Result<Vec<Standing>, EvalError> {
    let (start, end) = share(comm, queries.size()[0]);
    let own = column(&(start..end).collect::<Vec<_>>(), queries);
    let rows = standings(&queries.narrow(0, start, end - start), candidates, &own);
    Ok(Standing::from_rows(&gather_rows(comm, &rows)?)?)
}
