//! What a run is told to do: raw options, then one resolved [`RunConfig`].
//!
//! Reading options has no side effects; [`RunConfig::resolve`] checks them once, also against each other, and deals them
//! out: every component then sees its own part and nothing else. The resolved settings are printed by `--print-config`,
//! written to the run's folder, and can be fed back through `--config`.

mod choices;
mod data;
mod file;
mod model;
mod objective;
mod optimization;
mod options;
mod span;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use choices::{
    Auto, CaptionChoice, DeviceChoice, EstimatorMemory, GammaChoice, NonFinite, ObjectiveChoice,
    OptimizerChoice, Precision, Resume,
};
pub use data::{DataConfig, captions};
pub use objective::ObjectiveConfig;
pub use options::{RunOptions, Settings};
pub use span::{Epochs, Span, TimeSpan};

use crate::model::{Locks, MAX_LOGIT_SCALE, ModelConfig, ModelConfigError};
use crate::objective::INITIAL_BIAS;
use crate::optimizer::OptimizerOptions;
use crate::schedule::{ModelSchedule, TauThreshold, TemperatureSchedule};

/// A run whose settings have been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// All settings, the derived ones filled in.
    pub settings: Settings,
    /// What is read.
    pub data: DataConfig,
    /// What is trained.
    pub model: ModelConfig,
    /// Where its first weights lie; they are drawn otherwise.
    pub pretrained: Option<String>,
    /// What of it is not trained.
    pub locks: Locks,
    /// What is minimised.
    pub objective: ObjectiveConfig,
    /// How parameters move.
    pub optimizer: OptimizerOptions,
    /// How fast they move.
    pub rates: RatesConfig,
    /// Bytes of gradients that are summed over ranks at once.
    pub bucket_bytes: NonZeroUsize,
    /// Folder of the run.
    pub run_dir: PathBuf,
    /// When checkpoints are written, and where.
    pub checkpoints: CheckpointConfig,
    /// Multiples at which a session ends.
    pub stop_after: Option<Span>,
    /// When the model is evaluated, and on what.
    pub evaluation: Option<EvaluationConfig>,
}

/// How fast parameters move; a schedule once the number of steps is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatesConfig {
    /// Passes over the data.
    pub epochs: u64,
    /// Highest rate.
    pub lr: f64,
    /// Rate at the end of a cosine.
    pub lr_min: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Highest rate of the temperature.
    pub lr_tau: f64,
    /// How it runs.
    pub lr_tau_scheduler: TemperatureSchedule,
    /// How that of the model runs.
    pub lr_scheduler: ModelSchedule,
    /// Epochs at the end in which a cooldown brings a rate down.
    pub epochs_cooldown: u64,
    /// Rate at the end of a cooldown.
    pub lr_cooldown_end: f64,
    /// Power along which a cooldown runs.
    pub lr_cooldown_power: f64,
    /// What lowers the temperature's rate if its schedule minds a threshold.
    pub tau_threshold: TauThreshold,
}

/// When checkpoints are written, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointConfig {
    /// Folder or URL of this run's checkpoints.
    pub location: String,
    /// Where the run continues from.
    pub resume: Resume,
    /// Epochs between checkpoints; 0 for none of this kind.
    pub every_epochs: u64,
    /// Steps between checkpoints; 0 for none of this kind.
    pub every_steps: u64,
    /// How many of the newest are kept.
    pub keep_last: NonZeroUsize,
    /// Which are kept for good.
    pub keep_every: Option<Span>,
}

/// When the model is evaluated, and on what.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationConfig {
    /// The held-out dataset.
    pub location: String,
    /// Epochs between evaluations; 0 for none of this kind but one at the end.
    pub every_epochs: u64,
    /// Steps between evaluations; 0 for none of this kind.
    pub every_steps: u64,
    /// Pairs that retrieval chooses among; all if none.
    pub retrieval_pool: Option<NonZeroU64>,
}

/// What a run may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Processors that a rank may use for itself.
    pub processors_per_rank: NonZeroUsize,
}

/// Options that describe no run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("could not read config file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key that means nothing.
    #[error("`{}` sets `{key}`, which is no setting of a run", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// A key that looks like it.
        similar: Option<&'static str>,
    },
    /// Not TOML, or a value of the wrong type.
    #[error("could not understand config file `{}`", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A setting that a run cannot do without.
    #[error("`{key}` is not set")]
    Missing {
        /// Its key.
        key: &'static str,
    },
    /// A value that no run can have.
    #[error("`{key}` is {value}, but {rule}")]
    Value {
        /// Its key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        rule: String,
    },
    /// The model config is wrong.
    #[error("`model` cannot be used")]
    Model(#[source] ModelConfigError),
}

impl ConfigError {
    /// Returns what a person could try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { similar: Some(similar), .. } => Some(format!("did you mean `{similar}`?")),
            Self::UnknownKey { similar: None, .. } => {
                Some("`train run --help` lists all settings; keys are written with underscores".to_owned())
            }
            Self::Missing { key } => {
                Some(format!("give `--{}`, or set `{key}` in the file of `--config`", key.replace('_', "-")))
            }
            _ => None,
        }
    }
}

/// Returns the word by which a value is chosen.
fn name_of(value: impl clap::ValueEnum) -> String {
    let value = value.to_possible_value().expect("no value is hidden");
    value.get_name().to_owned()
}

const MIB: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("2^20 is not 0");
const GIB: u64 = 1 << 30;

fn refuse(key: &'static str, value: impl ToString, rule: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), rule: rule.into() }
}

impl Settings {
    /// Deals the same global batch out to another number of ranks, in micro-batches no larger than those of now.
    ///
    /// Returns nothing if it cannot be dealt out evenly.
    pub fn on_ranks(&self, num_ranks: NonZeroUsize, new_num_ranks: NonZeroUsize) -> Option<Self> {
        let global_batch = self.batch_size.get() * self.accum_freq.get() * num_ranks.get();
        if num_ranks == new_num_ranks {
            return Some(self.clone());
        }
        if !global_batch.is_multiple_of(new_num_ranks.get()) {
            return None;
        }
        let local_batch = global_batch / new_num_ranks;
        let fits = |number: &usize| {
            local_batch.is_multiple_of(*number) && local_batch / number <= self.batch_size.get()
        };
        let accum_freq = (1..=local_batch).find(fits)?;
        Some(Self {
            batch_size: NonZeroUsize::new(local_batch / accum_freq)?,
            accum_freq: NonZeroUsize::new(accum_freq)?,
            ..self.clone()
        })
    }
}

impl RunConfig {
    /// Checks options and fills in what follows from others.
    ///
    /// # Errors
    /// Names the keys of values that are wrong, by themselves or together.
    pub fn resolve(options: RunOptions, machine: Machine) -> Result<Self, ConfigError> {
        let mut settings = options.with_defaults();
        let location = settings.train_data.clone().ok_or(ConfigError::Missing { key: "train_data" })?;
        check_numbers(&settings)?;

        let mut model = model::resolve(&mut settings)?;
        let locks = model::locks(&settings, &model)?;
        let lr_tau = settings.lr_tau.filter(|&rate| rate >= 0.0).unwrap_or(settings.lr);
        settings.lr_tau = Some(lr_tau);
        let optimizer = optimization::optimizer(&mut settings, model.vision_cfg.layers)?;
        let objective = ObjectiveConfig::resolve(&mut settings)?;
        if settings.objective == ObjectiveChoice::SigLip {
            model.init_logit_bias.get_or_insert(INITIAL_BIAS);
        }
        let lr_tau_scheduler = settings.lr_tau_scheduler.expect("resolving the objective fills it in");
        let rates = optimization::rates(&settings, lr_tau, lr_tau_scheduler)?;
        let threads = settings.threads.unwrap_or(machine.processors_per_rank);
        let name = settings.name.clone().unwrap_or_else(|| default_name(&settings));
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(refuse("name", format!("`{name}`"), "it must be usable as the name of a folder"));
        }
        let run_dir = settings.logs.join(&name);
        let checkpoint_location = match &settings.checkpoint_dir {
            Some(location) if location.is_empty() => {
                return Err(refuse("checkpoint_dir", "``", "it must be a folder or a URL"));
            }
            Some(location) => format!("{}/{name}", location.trim_end_matches('/')),
            None => run_dir.join("checkpoints").to_string_lossy().into_owned(),
        };
        settings.threads = Some(threads);
        settings.name = Some(name);

        Ok(Self {
            data: DataConfig {
                location,
                upsampling_factors: data::upsampling_factors(&settings)?,
                captions: captions(&settings.captions, settings.caption_choice)?,
                cache: settings
                    .data_cache
                    .clone()
                    .map(|folder| (folder, settings.data_cache_gib.get().saturating_mul(GIB))),
                batch_size: settings.batch_size,
                accum_freq: settings.accum_freq,
                seed: settings.seed,
                threads: settings.workers,
                crop_scale: settings.crop_scale as f32,
                image_size: u32::try_from(model.vision_cfg.image_size)
                    .expect("it was checked to lie between 1 and 4096"),
                context_length: usize::try_from(model.text_cfg.context_length)
                    .expect("model configs are checked to have a positive length"),
            },
            model,
            pretrained: settings.pretrained.clone(),
            locks,
            objective,
            optimizer,
            rates,
            bucket_bytes: settings.bucket_mib.saturating_mul(MIB),
            run_dir,
            checkpoints: CheckpointConfig {
                resume: settings.resume.clone(),
                every_epochs: settings.save_frequency,
                every_steps: settings.save_every_steps,
                keep_last: settings.keep_last,
                keep_every: settings.keep_every,
                location: checkpoint_location,
            },
            stop_after: settings.stop_after,
            evaluation: settings.val_data.clone().map(|location| EvaluationConfig {
                location,
                every_epochs: settings.val_frequency,
                every_steps: settings.val_every_steps,
                retrieval_pool: settings.val_retrieval_pool,
            }),
            settings,
        })
    }

    /// Returns the settings as TOML that `--config` reads back.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.settings).expect("settings are plain values with names")
    }

    /// Returns the settings that all ranks must have in common, in the same form: all but the number of threads, since
    /// machines may have different numbers of processors.
    pub fn in_common(&self) -> String {
        Self { settings: Settings { threads: None, ..self.settings.clone() }, ..self.clone() }.to_toml()
    }

    /// Returns how long ranks wait for each other.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.settings.dist_timeout.get())
    }

    /// Returns the settings that decide what is trained, by name. A run may be continued only if they are the same.
    pub fn identity(&self) -> BTreeMap<String, Value> {
        let Ok(Value::Object(settings)) = serde_json::to_value(&self.settings) else {
            unreachable!("settings are a struct of plain values");
        };
        let decides = |key: &String| !FREE_TO_CHANGE.contains(&key.as_str());
        let mut identity: BTreeMap<String, Value> =
            settings.into_iter().filter(|(key, _)| decides(key)).collect();
        let model = serde_json::to_value(&self.model).expect("a model config is a struct of plain values");
        identity.insert("model".to_owned(), model);
        identity
    }
}

/// Settings that say where, when and how fast things happen, but not what comes out. What makes up the batch
/// of a rank is among them because the number of ranks may change; the global batch may not, and is compared where it is
/// known. A run that is continued has its weights from the checkpoint, so the first ones need not be there any more.
const FREE_TO_CHANGE: [&str; 35] = [
    "accum_freq",
    "batch_size",
    "bucket_mib",
    "checkpoint_dir",
    "cuda_graphs",
    "cudnn_attention",
    "data_cache",
    "data_cache_gib",
    "device",
    "dist_timeout",
    "estimator_memory",
    "fused_layers",
    "grad_checkpointing",
    "keep_every",
    "keep_last",
    "log_every_n_steps",
    "logs",
    "loss_block_mib",
    "name",
    "on_non_finite",
    "pretrained",
    "prometheus",
    "resume",
    "save_every_steps",
    "save_frequency",
    "stop_after",
    "threads",
    "time_limit",
    "train_data",
    "val_data",
    "val_every_steps",
    "val_frequency",
    "val_retrieval_pool",
    "workers",
    "model",
];

fn default_name(settings: &Settings) -> String {
    let stem =
        std::path::Path::new(&settings.model).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    format!("{stem}-{}-seed{}", settings.objective.name(), settings.seed)
}

fn check_numbers(settings: &Settings) -> Result<(), ConfigError> {
    let in_range = |key, value: f64, range: std::ops::RangeInclusive<f64>, rule: &str| {
        if range.contains(&value) { Ok(()) } else { Err(refuse(key, value, rule)) }
    };
    let at_least_zero = 0.0..=f64::MAX;
    let fraction = 0.0..=1.0 - f64::EPSILON;
    in_range("crop_scale", settings.crop_scale, f64::MIN_POSITIVE..=1.0, "it must lie in (0, 1]")?;
    in_range("rho", settings.rho, at_least_zero.clone(), "it must be at least 0")?;
    if let GammaChoice::Number(gamma) = settings.gamma {
        in_range("gamma", gamma, f64::MIN_POSITIVE..=1.0, "it must lie in (0, 1]")?;
    }
    if let Some(temperature) = settings.temperature {
        let range = 1.0 / MAX_LOGIT_SCALE..=1.0;
        in_range("temperature", temperature, range, "temperatures lie between 0.01 and 1")?;
    }
    in_range("fastclip_eps", settings.fastclip_eps, f64::MIN_POSITIVE..=1.0, "it must lie in (0, 1]")?;
    in_range("lr", settings.lr, at_least_zero.clone(), "it must be at least 0")?;
    in_range("lr_min", settings.lr_min, at_least_zero.clone(), "it must be at least 0")?;
    in_range("lr_cooldown_end", settings.lr_cooldown_end, at_least_zero.clone(), "it must be at least 0")?;
    in_range(
        "lr_cooldown_power",
        settings.lr_cooldown_power,
        f64::MIN_POSITIVE..=f64::MAX,
        "it must be above 0",
    )?;
    in_range(
        "lr_tau_threshold",
        settings.lr_tau_threshold,
        f64::MIN_POSITIVE..=1.0,
        "it must lie in (0, 1]",
    )?;
    in_range("lr_tau_factor", settings.lr_tau_factor, 0.0..=1.0, "it must lie in [0, 1]")?;
    in_range("wd", settings.wd, at_least_zero, "it must be at least 0")?;
    in_range("beta1", settings.beta1, fraction.clone(), "it must lie in [0, 1)")?;
    if let Some(beta2) = settings.beta2 {
        in_range("beta2", beta2, fraction.clone(), "it must lie in [0, 1)")?;
    }
    in_range("momentum", settings.momentum, fraction, "it must lie in [0, 1)")?;
    if let Some(norm) = settings.grad_clip_norm {
        in_range("grad_clip_norm", norm, f64::MIN_POSITIVE..=f64::MAX, "it must be above 0")?;
    }
    if let Some(eps) = settings.eps {
        in_range("eps", eps, f64::MIN_POSITIVE..=1.0, "it must lie in (0, 1]")?;
    }
    if settings.epochs == 0 {
        return Err(refuse(
            "epochs",
            0,
            "there must be at least one; `train eval` evaluates without training",
        ));
    }
    Ok(())
}
