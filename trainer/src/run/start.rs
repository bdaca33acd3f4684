//! Where a session begins: with new parameters or with those of a checkpoint.

use fastclip_schemas::Position;
use fastclip_torch_ext::TorchError;
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use super::data::TrainingData;
use super::{RunError, SETTINGS_FILE, SUMMARY_FILE, Surroundings};
use crate::checkpoint::{CheckpointError, Checkpoints, Keep, RunState, Saved, Saver};
use crate::config::{EstimatorMemory, Precision, RatesConfig, Resume, RunConfig};
use crate::distributed::Communicator;
use crate::estimator::{Dealing, EstimatorTable};
use crate::files;
use crate::gradients::Gradients;
use crate::model::{Clip, Pretrained};
use crate::optimizer::Optimizer;
use crate::step::Trainer;

pub(super) struct Start {
    pub(super) trainer: Trainer,
    pub(super) state: RunState,
    /// Writes checkpoints; nothing if there is nothing left to do.
    pub(super) saver: Option<Saver>,
    /// Whether the same words, given again by a person, begin behind what this session saves.
    pub(super) goes_back: bool,
}

pub(super) fn start(
    config: &RunConfig,
    data: &TrainingData,
    around: &Surroundings<'_>,
) -> Result<Start, RunError> {
    let comm = around.comm;
    set_up_libtorch(config)?;
    let steps_per_epoch = data.loader.steps_per_epoch();
    let keep = Keep {
        last: config.checkpoints.keep_last,
        every_steps: config.checkpoints.keep_every.map(|span| span.steps(steps_per_epoch)),
    };
    let checkpoints = Checkpoints::open(&config.checkpoints.location, keep)?;
    let mut state = RunState::start(around.version.clone(), identity(config, data));
    let extent = Extent { num_sample_ids: data.loader.dataset().manifest().num_sample_ids, steps_per_epoch };
    let mut trainer = build(config, extent, around.device, comm)?;
    let mut last_complete = None;
    let goes_back = match &config.checkpoints.resume {
        Resume::Never => true,
        Resume::From(location) => checkpoints.steps_at(location).is_some(),
        Resume::Auto | Resume::Latest => false,
    };

    prepare_folders(config, &checkpoints, around)?;
    if let Some((saved, is_own)) = choose(&config.checkpoints.resume, &checkpoints, around)? {
        let location = saved.location();
        state.check_same_run(saved.state(), &location)?;
        let is_complete = saved.state().position >= Position::start_of(config.rates.epochs);
        let has_result = config.evaluation.is_none() || config.run_dir.join(SUMMARY_FILE).exists();
        let is_finished = is_complete && has_result && is_own;
        if agree(i64::from(is_finished), around)? != 0 {
            return Ok(Start { trainer, state, saver: None, goes_back });
        }
        saved.restore(&mut trainer)?;
        let RunState { steps, num_ranks, .. } = *saved.state();
        tracing::info!("continuing after step {steps} from {location}");
        if num_ranks != comm.world_size() {
            let now = comm.world_size();
            tracing::info!("that was written by {num_ranks} ranks, and this session has {now}");
        }
        last_complete = is_own.then_some(steps);
        if is_own && comm.rank() == 0 {
            // A launcher that starts the run again must not find one that was given up by going back.
            checkpoints.go_back_to(steps)?;
        }
        state = RunState { written_by: state.written_by, ..saved.state().clone() };
    } else if let Some(source) = &config.pretrained {
        begin_with(source, config, &trainer.model, comm)?;
    }
    if comm.rank() == 0 {
        write_settings(config)?;
        warn_of_long_warm_up(&config.rates, data);
    }
    let saver = Saver::start(checkpoints, config.to_toml(), around.device, last_complete)?;
    Ok(Start { trainer, state, saver: Some(saver), goes_back })
}

/// Everything that must be the same for a run to be continued.
fn identity(
    config: &RunConfig,
    data: &TrainingData,
) -> std::collections::BTreeMap<String, serde_json::Value> {
    let mut identity = config.identity();
    identity.insert("global_batch".to_owned(), json!(data.global_batch));
    identity.insert("train_manifest".to_owned(), json!(data.loader.dataset().manifest_digest()));
    identity.insert("order_of_data".to_owned(), json!(data.loader.order_digest()));
    identity
}

/// What a trainer must know of its data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// One more than the largest id of a sample.
    pub(crate) num_sample_ids: u64,
    /// Steps of a pass over the data.
    pub(crate) steps_per_epoch: u64,
}

/// Applies what a config says about how this process computes.
pub(crate) fn set_up_libtorch(config: &RunConfig) -> Result<(), TorchError> {
    let threads = config.settings.threads.expect("resolving fills in the number of threads");
    fastclip_torch_ext::set_num_threads(threads)?;
    fastclip_torch_ext::set_tf32(config.settings.tf32)?;
    fastclip_torch_ext::set_cudnn_attention(config.settings.cudnn_attention)
}

/// Makes what a run trains, as it is before the first step.
pub(crate) fn build(
    config: &RunConfig,
    extent: Extent,
    device: Device,
    comm: &dyn Communicator,
) -> Result<Trainer, RunError> {
    let mut model = match config.settings.precision {
        Precision::Fp32 => Clip::new(&config.model, device, config.data.seed),
        Precision::AmpBf16 => Clip::mixed(&config.model, device, config.data.seed),
    };
    model.lock(config.locks);
    model.set_grad_checkpointing(config.settings.grad_checkpointing);
    if config.settings.fused_layers
        && let Err(reason) = model.fuse()
    {
        tracing::warn!("`fused_layers` has no effect, layers are computed by libtorch alone: {reason}");
    }
    model.set_temperature(config.objective.initial_temperature);
    let dealing =
        Dealing { num_ids: extent.num_sample_ids, rank: comm.rank(), world_size: comm.world_size() };
    let memory = match config.objective.memory {
        EstimatorMemory::Device => device,
        EstimatorMemory::Host => Device::Cpu,
    };
    let objective =
        config.objective.build(|initial| EstimatorTable::new(dealing, initial, Kind::Float, memory));
    Ok(Trainer {
        optimizer: Optimizer::new(model.parameters(), config.optimizer),
        gradients: Gradients::new(model.parameters(), config.bucket_bytes)?,
        num_micro_batches: config.data.accum_freq,
        model,
        objective,
        schedule: config.rates.schedule(extent.steps_per_epoch),
        step: 0,
    })
}

/// Takes over weights that are there. Rank 0 reads them for all.
fn begin_with(
    source: &str,
    config: &RunConfig,
    model: &Clip,
    comm: &dyn Communicator,
) -> Result<(), RunError> {
    if comm.rank() == 0 {
        Pretrained::read(source)
            .and_then(|pretrained| pretrained.load_into(model))
            .map_err(RunError::Pretrained)?;
        tracing::info!("beginning with the weights of {source}");
    }
    for parameter in model.parameters().state() {
        no_grad(|| comm.broadcast(&parameter.tensor.detach(), 0))?;
    }
    model.round();
    if !config.objective.keeps_pretrained_temperature {
        model.set_temperature(config.objective.initial_temperature);
    }
    model.clamp_temperature();
    Ok(())
}

/// Makes the run's folder and that of its checkpoints; for a run that starts over, without what an earlier one left.
fn prepare_folders(
    config: &RunConfig,
    checkpoints: &Checkpoints,
    around: &Surroundings<'_>,
) -> Result<(), RunError> {
    if around.comm.rank() == 0 {
        std::fs::create_dir_all(&config.run_dir).map_err(RunError::file("create", &config.run_dir))?;
        checkpoints.prepare()?;
        if config.checkpoints.resume == Resume::Never && !around.is_restart {
            checkpoints.remove_all()?;
            let summary = config.run_dir.join(SUMMARY_FILE);
            if summary.exists() {
                std::fs::remove_file(&summary).map_err(RunError::file("remove", &summary))?;
            }
        }
    }
    around.comm.barrier()?;
    Ok(())
}

/// Finds the checkpoint to continue from, and whether it is one of this run. Rank 0 looks, and all take what it found: on a
/// network's file system another rank may see an older state of the folder.
///
/// Whoever starts the run again does so with the words of the first time: what this run has saved since then comes first.
fn choose(
    resume: &Resume,
    checkpoints: &Checkpoints,
    around: &Surroundings<'_>,
) -> Result<Option<(Saved, bool)>, RunError> {
    let mut own = None;
    if around.comm.rank() == 0 {
        own = match resume {
            Resume::Latest if !around.is_restart => Some(checkpoints.latest()?),
            Resume::Never if !around.is_restart => None,
            Resume::From(location) => saved_since(location, checkpoints, around.is_restart)?,
            Resume::Auto | Resume::Latest | Resume::Never => checkpoints.newest()?,
        };
    }
    if let Ok(steps) = u64::try_from(agree(own.map_or(-1, |steps| steps as i64), around)?) {
        return Ok(Some((checkpoints.saved(steps)?, true)));
    }
    let Resume::From(location) = resume else { return Ok(None) };
    let named = Saved::open(location)?;
    let is_own = checkpoints.steps_at(&named.location()) == Some(named.state().steps);
    let is_own = agree(i64::from(is_own), around)? != 0;
    Ok(Some((named, is_own)))
}

/// Finds the checkpoint that a run has come to since it began with the one that is named.
fn saved_since(
    location: &str,
    checkpoints: &Checkpoints,
    is_restart: bool,
) -> Result<Option<u64>, CheckpointError> {
    let newest = checkpoints.newest()?;
    let Ok(named) = Saved::open(location) else {
        // It may be gone by now, if it was an old one of this run. Otherwise the reason is told where it is opened.
        return Ok(newest.filter(|_| is_restart));
    };
    // Who names an old one of this run wants to go back, unless it is a launcher that says the same again.
    let goes_back = !is_restart && checkpoints.steps_at(&named.location()).is_some();
    Ok(newest.filter(|&steps| !goes_back && steps > named.state().steps))
}

/// Returns the number that rank 0 has.
pub(super) fn agree(number: i64, around: &Surroundings<'_>) -> Result<i64, CheckpointError> {
    let number = Tensor::from_slice(&[number]).to_device(around.device);
    around.comm.broadcast(&number, 0)?;
    Ok(number.int64_value(&[0]))
}

fn write_settings(config: &RunConfig) -> Result<(), RunError> {
    let path = config.run_dir.join(SETTINGS_FILE);
    files::replace(&path, config.to_toml().as_bytes()).map_err(RunError::file("write", &path))
}

fn warn_of_long_warm_up(rates: &RatesConfig, data: &TrainingData) {
    let peak_epochs = rates.epochs - rates.epochs_cooldown;
    let [total_steps, peak_steps] =
        [rates.epochs, peak_epochs].map(|epochs| epochs * data.loader.steps_per_epoch());
    if rates.warmup > total_steps {
        tracing::warn!(
            "`warmup` is {} steps, the whole run has {total_steps}: the learning rate will not reach `lr`",
            rates.warmup
        );
    } else if rates.warmup > peak_steps {
        tracing::warn!(
            "`warmup` is {} steps, the cooldown begins after {peak_steps}: the learning rate will jump",
            rates.warmup
        );
    }
}
