//! Where a session begins: with new parameters or with those of a checkpoint.

use std::path::Path;

use fastclip_schemas::Position;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::data::TrainingData;
use super::{RunError, SETTINGS_FILE, SUMMARY_FILE, Surroundings};
use crate::checkpoint::{CheckpointError, Checkpoints, RunState, restore};
use crate::config::{EstimatorMemory, Precision, RatesConfig, Resume, RunConfig};
use crate::distributed::Communicator;
use crate::estimator::{Dealing, EstimatorTable};
use crate::files;
use crate::gradients::Gradients;
use crate::graphs::StepGraphs;
use crate::model::Clip;
use crate::optimizer::Optimizer;
use crate::step::Trainer;

pub(super) struct Start {
    pub(super) trainer: Trainer,
    pub(super) state: RunState,
    pub(super) checkpoints: Checkpoints,
    /// Whether there is nothing left to do.
    pub(super) is_finished: bool,
}

pub(super) fn start(
    config: &RunConfig,
    data: &TrainingData,
    around: &Surroundings<'_>,
) -> Result<Start, RunError> {
    let comm = around.comm;
    let threads = config.settings.threads.expect("resolving fills in the number of threads");
    fastclip_torch_ext::set_num_threads(threads)?;
    fastclip_torch_ext::set_tf32(config.settings.tf32)?;
    let checkpoints = Checkpoints::new(config.run_dir.join("checkpoints"), config.checkpoints.keep);
    let mut state = RunState::start(around.version.clone(), identity(config, data));
    let extent = Extent {
        num_sample_ids: data.loader.dataset().manifest().num_sample_ids,
        steps_per_epoch: data.loader.steps_per_epoch(),
    };
    let mut trainer = build(config, extent, around.device, comm)?;
    let mut is_finished = false;

    prepare_folder(config, &checkpoints, comm)?;
    if let Some(path) = choose(&config.checkpoints.resume, &checkpoints, comm)? {
        let mut saved = RunState::read(&path)?;
        state.check_same_run(&saved, &path)?;
        let is_complete = saved.position >= Position::start_of(config.rates.epochs);
        let has_result = config.evaluation.is_none() || config.run_dir.join(SUMMARY_FILE).exists();
        is_finished = agree(i64::from(is_complete && has_result), comm)? != 0;
        if !is_finished {
            restore(&path, &saved, &mut trainer)?;
            tracing::info!("continuing after step {} from {}", saved.steps, path.display());
        }
        saved.written_by = state.written_by;
        state = saved;
    }
    if !is_finished && comm.rank() == 0 {
        write_settings(config)?;
        warn_of_long_warm_up(&config.rates, data);
    }
    Ok(Start { trainer, state, checkpoints, is_finished })
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

/// Makes what a run trains, as it is before the first step.
pub(crate) fn build(
    config: &RunConfig,
    extent: Extent,
    device: Device,
    comm: &dyn Communicator,
) -> Result<Trainer, RunError> {
    let model = match config.settings.precision {
        Precision::Fp32 => Clip::new(&config.model, device, config.data.seed),
        Precision::AmpBf16 => Clip::mixed(&config.model, device, config.data.seed),
    };
    model.set_temperature(config.objective.initial_temperature);
    let dealing =
        Dealing { num_ids: extent.num_sample_ids, rank: comm.rank(), world_size: comm.world_size() };
    let memory = match config.objective.memory {
        EstimatorMemory::Device => device,
        EstimatorMemory::Host => Device::Cpu,
    };
    let objective =
        config.objective.build(|initial| EstimatorTable::new(dealing, initial, Kind::Float, memory));
    let mut trainer = Trainer {
        optimizer: Optimizer::new(model.parameters(), config.optimizer),
        gradients: Gradients::new(model.parameters(), config.bucket_bytes)?,
        num_micro_batches: config.data.accum_freq,
        readback: Trainer::readback(&model, comm.world_size()),
        graphs: None,
        model,
        objective,
        schedule: config.rates.schedule(extent.steps_per_epoch),
        step: 0,
    };
    if config.settings.cuda_graphs {
        match StepGraphs::prepare(&mut trainer, comm.world_size()) {
            Ok(graphs) => trainer.graphs = Some(graphs),
            Err(reason) => tracing::warn!("`cuda_graphs` has no effect: {reason}"),
        }
    }
    Ok(trainer)
}

/// Makes the run's folder; for a run that starts over, without what an earlier one left.
fn prepare_folder(
    config: &RunConfig,
    checkpoints: &Checkpoints,
    comm: &dyn Communicator,
) -> Result<(), RunError> {
    if comm.rank() == 0 {
        std::fs::create_dir_all(&config.run_dir).map_err(RunError::file("create", &config.run_dir))?;
        if config.checkpoints.resume == Resume::Never {
            checkpoints.remove_all()?;
            let summary = config.run_dir.join(SUMMARY_FILE);
            if summary.exists() {
                std::fs::remove_file(&summary).map_err(RunError::file("remove", &summary))?;
            }
        }
    }
    comm.barrier()?;
    Ok(())
}

/// Finds the checkpoint to continue from. Rank 0 looks, and all take what it found: on a network's file system another
/// rank may see an older state of the folder.
fn choose(
    resume: &Resume,
    checkpoints: &Checkpoints,
    comm: &dyn Communicator,
) -> Result<Option<std::path::PathBuf>, RunError> {
    let found = match resume {
        Resume::Never => None,
        Resume::Auto => checkpoints.newest()?,
        Resume::Latest => Some(checkpoints.latest()?),
        Resume::From(path) => Some(path.clone()),
    };
    let steps = |path: &Path| RunState::read(path).map(|state| state.steps as i64);
    let own = found.as_deref().map(steps).transpose()?.unwrap_or(-1);
    let agreed = agree(own, comm)?;
    if own != agreed {
        return Err(RunError::OtherCheckpoint { own, agreed });
    }
    Ok(found)
}

/// Returns the number that rank 0 has.
fn agree(number: i64, comm: &dyn Communicator) -> Result<i64, CheckpointError> {
    let number = Tensor::from_slice(&[number]);
    comm.broadcast(&number, 0)?;
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
