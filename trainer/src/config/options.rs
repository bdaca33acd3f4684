//! Every setting of a run, as flags and as keys of a file.
//!
//! One list defines the flag, the key of the TOML file (the same word with underscores), the help, and the default. Each
//! source gives [`RunOptions`], in which everything is optional; the flags lie over the file, the defaults under both.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::choices::{
    CaptionChoice, DeviceChoice, EstimatorMemory, GammaChoice, NonFinite, ObjectiveChoice, OptimizerChoice,
    Precision, Resume,
};
use super::span::{Span, TimeSpan};
use crate::objective::{FeaturePrecision, GammaDecay, GradientRule};
use crate::schedule::{ModelSchedule, TemperatureSchedule};

macro_rules! options {
    (
        with_default { $( $(#[$meta:meta])* $field:ident: $type:ty = $default:expr, )* }
        derived { $( $(#[$derived_meta:meta])* $derived:ident: $derived_type:ty, )* }
    ) => {
        /// Settings as given by one source; what is absent is left to the next.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, default)]
        pub struct RunOptions {
            $( $(#[$meta])* #[arg(long)] pub $field: Option<$type>, )*
            $( $(#[$derived_meta])* #[arg(long)] pub $derived: Option<$derived_type>, )*
        }

        /// All settings. Those that follow from others are filled in when a run is resolved.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct Settings {
            $( #[allow(missing_docs, reason = "documented where it is defined, in RunOptions")] pub $field: $type, )*
            $( #[allow(missing_docs, reason = "documented where it is defined, in RunOptions")]
               pub $derived: Option<$derived_type>, )*
        }

        impl RunOptions {
            /// The keys of a config file.
            pub const KEYS: &'static [&'static str] = &[ $( stringify!($field), )* $( stringify!($derived), )* ];

            /// Takes from `below` what is absent here.
            pub fn over(self, below: Self) -> Self {
                Self {
                    $( $field: self.$field.or(below.$field), )*
                    $( $derived: self.$derived.or(below.$derived), )*
                }
            }

            /// Fills in the defaults that do not depend on other settings.
            pub fn with_defaults(self) -> Settings {
                Settings {
                    $( $field: self.$field.unwrap_or_else(|| $default), )*
                    $( $derived: self.$derived, )*
                }
            }
        }
    };
}

impl RunOptions {
    /// Writes settings as the flags that give them, for handing them on to another process.
    pub fn flags(settings: &Settings) -> Vec<String> {
        let Ok(Value::Object(settings)) = serde_json::to_value(settings) else {
            unreachable!("settings are a struct of plain values");
        };
        let flag = |(key, value): (String, Value)| {
            let key = key.replace('_', "-");
            match value {
                Value::Null => None,
                Value::String(text) => Some(format!("--{key}={text}")),
                other => Some(format!("--{key}={other}")),
            }
        };
        settings.into_iter().filter_map(flag).collect()
    }
}

const fn non_zero(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("defaults of counts are not 0")
}

options! {
    with_default {
        /// Decoding threads of each rank [default: 4]
        #[arg(help_heading = "Data", value_name = "N")]
        workers: NonZeroUsize = non_zero(4),
        /// Samples that each rank encodes at once; the global batch is this times --accum-freq times the number of ranks [default: 64]
        #[arg(help_heading = "Data", value_name = "N", alias = "batch_size")]
        batch_size: NonZeroUsize = non_zero(64),
        /// Micro-batches of --batch-size samples in a step of each rank; more than one encodes twice, to contrast all of them in the memory of one [default: 1]
        #[arg(help_heading = "Data", value_name = "N", alias = "accum_freq")]
        accum_freq: NonZeroUsize = non_zero(1),
        /// Where captions are found: extensions of members, or fields of a JSON member as in json:alt; several are separated by commas, and may have weights as in txt=2,json:alt=1 [default: txt]
        #[arg(help_heading = "Data", value_name = "SOURCES")]
        captions: String = "txt".to_owned(),
        /// Which caption is taken where a sample has several, unless sources have weights [default: first]
        #[arg(help_heading = "Data")]
        caption_choice: CaptionChoice = CaptionChoice::First,
        /// Most that --data-cache holds, in GiB [default: 64]
        #[arg(help_heading = "Data", value_name = "N")]
        data_cache_gib: NonZeroU64 = NonZeroU64::new(64).expect("64 is not 0"),
        /// Least fraction of an image's area that the random crop keeps [default: 0.9]
        #[arg(help_heading = "Data", value_name = "FRACTION")]
        crop_scale: f64 = 0.9,

        /// Model config: a name of OpenCLIP's plain models (RN50, ViT-B-32, ViT-L-14-quickgelu, ...) or a JSON file of its form [default: ViT-B-32]
        #[arg(help_heading = "Model", value_name = "NAME|FILE")]
        model: String = "ViT-B-32".to_owned(),
        /// Uses x·σ(1.702x) for GELU, whatever the model config says
        #[arg(help_heading = "Model", alias = "quick_gelu", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        force_quick_gelu: bool = false,
        /// Keeps of a transformer's block only its input and computes the rest again in backward: a third more operations, far less memory, the same results
        #[arg(help_heading = "Model", alias = "grad_checkpointing", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        grad_checkpointing: bool = false,
        /// Does not train the image tower
        #[arg(help_heading = "Model", alias = "lock_image", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        lock_image: bool = false,
        /// Groups at the end of a locked image tower that are trained all the same: its projection, its last block, ... [default: 0]
        #[arg(help_heading = "Model", value_name = "N", alias = "lock_image_unlocked_groups")]
        lock_image_unlocked_groups: u64 = 0,
        /// Lets the batch norms of a locked ResNet normalise by what they have gathered before, and gather nothing
        #[arg(help_heading = "Model", alias = "lock_image_freeze_bn_stats", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        lock_image_freeze_bn_stats: bool = false,
        /// Does not train the text tower
        #[arg(help_heading = "Model", alias = "lock_text", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        lock_text: bool = false,
        /// Groups at the end of a locked text tower that are trained all the same: its projection, its last block, ... [default: 0]
        #[arg(help_heading = "Model", value_name = "N", alias = "lock_text_unlocked_layers")]
        lock_text_unlocked_layers: u64 = 0,
        /// Kind of number to compute in [default: fp32]
        #[arg(help_heading = "Model")]
        precision: Precision = Precision::Fp32,
        /// Lets a GPU round the factors of matrix products and convolutions in fp32 to TF32
        #[arg(help_heading = "Model", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        tf32: bool = false,

        /// What to minimise [default: fastclip-v3]
        #[arg(help_heading = "Objective")]
        objective: ObjectiveChoice = ObjectiveChoice::FastClipV3,
        /// Weight of the temperature in the robust objectives (isogclr, fastclip-v2, -v3) [default: 8]
        #[arg(help_heading = "Objective")]
        rho: f64 = 8.0,
        /// Final inner learning rate: weight of the newest estimate of a sample's inner loss; auto is what the authors advise for the number of epochs [default: 0.8]
        #[arg(help_heading = "Objective", value_name = "GAMMA|auto")]
        gamma: GammaChoice = GammaChoice::Number(0.8),
        /// Added to estimates where they divide [default: 1e-14]
        #[arg(help_heading = "Objective", value_name = "EPS", alias = "fastclip_eps")]
        fastclip_eps: f64 = 1e-14,
        /// Which derivatives to apply where the published code departs from the published objective [default: reference]
        #[arg(help_heading = "Objective")]
        gradients: GradientRule = GradientRule::Reference,
        /// How exactly features enter similarities; bf16 halves what travels between ranks [default: full]
        #[arg(help_heading = "Objective")]
        feature_precision: FeaturePrecision = FeaturePrecision::Full,
        /// MiB of a block of similarities: a rank's samples times the global batch, in pieces of at most this size [default: 256]
        #[arg(help_heading = "Objective", value_name = "MIB")]
        loss_block_mib: NonZeroUsize = non_zero(256),
        /// Where estimators of samples are kept: 8 bytes a sample over all ranks, 32 with individual temperatures [default: device]
        #[arg(help_heading = "Objective")]
        estimator_memory: EstimatorMemory = EstimatorMemory::Device,

        /// Passes over the data [default: 32]
        #[arg(help_heading = "Optimization", value_name = "N")]
        epochs: u64 = 32,
        /// Highest learning rate [default: 5e-4]
        #[arg(help_heading = "Optimization", value_name = "RATE")]
        lr: f64 = 5e-4,
        /// Learning rate at the end of a cosine [default: 0]
        #[arg(help_heading = "Optimization", value_name = "RATE", alias = "lr_min")]
        lr_min: f64 = 0.0,
        /// Steps in which the learning rate rises [default: 10000]
        #[arg(help_heading = "Optimization", value_name = "STEPS")]
        warmup: u64 = 10_000,
        /// How the learning rate runs after the warm-up [default: cosine]
        #[arg(help_heading = "Optimization", alias = "lr_scheduler")]
        lr_scheduler: ModelSchedule = ModelSchedule::Cosine,
        /// Epochs at the end in which const-cooldown brings the rate down; 0 without such a schedule [default: 0]
        #[arg(help_heading = "Optimization", value_name = "EPOCHS", alias = "epochs_cooldown")]
        epochs_cooldown: u64 = 0,
        /// Learning rate at the end of the cooldown [default: 0]
        #[arg(help_heading = "Optimization", value_name = "RATE", alias = "lr_cooldown_end")]
        lr_cooldown_end: f64 = 0.0,
        /// Power along which the cooldown runs; 1 is a straight line [default: 1]
        #[arg(help_heading = "Optimization", value_name = "POWER", alias = "lr_cooldown_power")]
        lr_cooldown_power: f64 = 1.0,
        /// How a gradient becomes a step [default: adamw]
        #[arg(help_heading = "Optimization", alias = "opt")]
        optimizer: OptimizerChoice = OptimizerChoice::AdamW,
        /// Weight decay of parameters with two dimensions or more [default: 0.2]
        #[arg(help_heading = "Optimization", value_name = "DECAY")]
        wd: f64 = 0.2,
        /// AdamW, LAMB: how much of the mean of gradients stays in a step. Lion: how much of it counts in the sign [default: 0.9]
        #[arg(help_heading = "Optimization")]
        beta1: f64 = 0.9,
        /// SGD: how much of the sum of gradients stays in a step; the temperature has none [default: 0.9]
        #[arg(help_heading = "Optimization")]
        momentum: f64 = 0.9,
        /// SGD: steps look ahead by Nesterov's rule
        #[arg(help_heading = "Optimization", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        nesterov: bool = false,
        /// Tau up to which step_thresh lowers the temperature's rate [default: 0.03]
        #[arg(help_heading = "Optimization", value_name = "TAU", alias = "lr_tau_threshold", display_order = 900)]
        lr_tau_threshold: f64 = 0.03,
        /// What step_thresh multiplies the temperature's rate by then [default: a third]
        #[arg(help_heading = "Optimization", value_name = "FACTOR", alias = "lr_tau_factor", display_order = 901)]
        lr_tau_factor: f64 = 1.0 / 3.0,

        /// Folder that holds runs [default: ./logs]
        #[arg(help_heading = "Run", value_name = "FOLDER")]
        logs: PathBuf = PathBuf::from("./logs"),
        /// Decides initial weights, order of data and crops [default: 0]
        #[arg(help_heading = "Run")]
        seed: u64 = 0,
        /// Where to continue: auto (from the newest checkpoint if there is one), latest (which must exist), none (starts over and removes the run's checkpoints), or the folder or URL of a checkpoint or of a run's checkpoints; what this run has saved since it began with another run's checkpoint comes first [default: auto]
        #[arg(help_heading = "Checkpoints", value_name = "auto|latest|none|LOCATION")]
        resume: Resume = Resume::Auto,
        /// Epochs between checkpoints; 0 for one at the end only [default: 1]
        #[arg(help_heading = "Checkpoints", value_name = "EPOCHS", alias = "save_frequency")]
        save_frequency: u64 = 1,
        /// Steps between checkpoints, besides those of epochs; 0 for none [default: 0]
        #[arg(help_heading = "Checkpoints", value_name = "STEPS")]
        save_every_steps: u64 = 0,
        /// Newest checkpoints to keep; an older one goes when a newer one is complete [default: 2]
        #[arg(help_heading = "Checkpoints", value_name = "N")]
        keep_last: NonZeroUsize = non_zero(2),
        /// Epochs between evaluations; 0 for one at the end only [default: 1]
        #[arg(help_heading = "Run", value_name = "EPOCHS", alias = "val_frequency")]
        val_frequency: u64 = 1,
        /// Steps between evaluations, besides those of epochs; 0 for none [default: 0]
        #[arg(help_heading = "Run", value_name = "STEPS", alias = "val-frequency-steps")]
        val_every_steps: u64 = 0,
        /// Steps between lines of the log [default: 100]
        #[arg(help_heading = "Run", value_name = "STEPS", alias = "log_every_n_steps")]
        log_every_n_steps: NonZeroU64 = NonZeroU64::new(100).expect("100 is not 0"),
        /// Where to compute; auto takes a GPU if there is one [default: auto]
        #[arg(help_heading = "Run")]
        device: DeviceChoice = DeviceChoice::Auto,
        /// Records the steps of a GPU once for each length of captions, and replays them by one call each; for one rank, with adamw or sgd
        #[arg(help_heading = "Run", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        cuda_graphs: bool = false,
        /// Lets cuDNN compute attention on GPUs where libtorch prefers it, else its own kernels do [default: true]
        #[arg(help_heading = "Run", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        cudnn_attention: bool = true,
        /// Lets transformers in bf16 on a GPU compute layers by kernels of this program, which read memory less often [default: true]
        #[arg(help_heading = "Run", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        fused_layers: bool = true,
        /// What happens when loss or gradients are not finite [default: stop]
        #[arg(help_heading = "Run", alias = "on_non_finite")]
        on_non_finite: NonFinite = NonFinite::Stop,
        /// Size of the buckets in which gradients are summed over ranks while backward still runs; smaller ones leave earlier and cost more calls [default: 25]
        #[arg(help_heading = "Run", value_name = "MIB")]
        bucket_mib: NonZeroUsize = non_zero(25),
        /// Seconds that ranks wait for each other before the run ends with an error [default: 600]
        #[arg(help_heading = "Run", value_name = "SECONDS")]
        dist_timeout: NonZeroU64 = NonZeroU64::new(600).expect("600 is not 0"),
    }
    derived {
        /// Dataset to train on: a folder with a manifest, or its URL
        #[arg(help_heading = "Data", value_name = "LOCATION", alias = "train_data", display_order = 0)]
        train_data: String,
        /// Held-out dataset to evaluate on
        #[arg(help_heading = "Data", value_name = "LOCATION", alias = "val_data", display_order = 1)]
        val_data: String,
        /// Pairs of the held-out dataset that retrieval chooses among [default: all]
        #[arg(help_heading = "Data", value_name = "N")]
        val_retrieval_pool: NonZeroU64,
        /// Folder on a local disk that keeps what was read of the training set, shared by all ranks of a machine [default: none]
        #[arg(help_heading = "Data", value_name = "FOLDER")]
        data_cache: PathBuf,
        /// How often an epoch holds each of several training sets joined by `::`, as in 1::2.5 [default: once each]
        #[arg(help_heading = "Data", value_name = "FACTORS")]
        train_data_upsampling_factors: String,
        /// Height and width of the images, instead of the model config's
        #[arg(help_heading = "Model", value_name = "PIXELS", alias = "force-image-size")]
        image_size: i64,
        /// Tokens of a caption, start and end included, instead of the model config's
        #[arg(help_heading = "Model", value_name = "TOKENS", alias = "force-context-length")]
        context_length: i64,
        /// Fraction of an image's patches that a training step leaves out, instead of the model config's
        #[arg(help_heading = "Model", value_name = "FRACTION", alias = "force-patch-dropout")]
        patch_dropout: f64,
        /// Weights to begin with: a safetensors file of OpenCLIP's or OpenAI's, a folder with one, or a URL of either; embeddings of places are interpolated where the resolution or the context differs
        #[arg(help_heading = "Model", value_name = "PATH|URL")]
        pretrained: String,
        /// Initial temperature [default: that of --pretrained if it is trained, else 0.1 for siglip and 0.07 for others]
        #[arg(help_heading = "Objective", value_name = "TAU")]
        temperature: f64,
        /// How gamma comes down from 1 [default: constant for sogclr and isogclr, else cosine]
        #[arg(help_heading = "Objective", alias = "gamma_schedule")]
        gamma_schedule: GammaDecay,
        /// Epoch at which gamma arrives at its final value [default: half of the epochs; all of them with --gamma auto]
        #[arg(help_heading = "Objective", value_name = "EPOCHS", alias = "gamma_decay_epochs")]
        gamma_decay_epochs: u64,
        /// AdamW, LAMB: how much of the mean of squared gradients stays in a step. Lion: how much of the mean of gradients does [default: 0.98, 0.999 for ResNets, 0.99 for lion]
        #[arg(help_heading = "Optimization")]
        beta2: f64,
        /// AdamW, LAMB: added to the root in the denominator [default: 1e-6, 1e-8 for ResNets]
        #[arg(help_heading = "Optimization")]
        eps: f64,
        /// Norm of all gradients above which they are scaled down to it; logs tell the norm before [default: none]
        #[arg(help_heading = "Optimization", value_name = "NORM", alias = "grad_clip_norm")]
        grad_clip_norm: f64,
        /// Learning rate of the temperature; negative means that of the model [default: --lr]
        #[arg(help_heading = "Optimization", value_name = "RATE", alias = "lr_tau", allow_negative_numbers = true)]
        lr_tau: f64,
        /// How that rate runs [default: step_thresh for fastclip-v3, const for individual temperatures, else cosine]
        #[arg(help_heading = "Optimization", alias = "lr_tau_scheduler")]
        lr_tau_scheduler: TemperatureSchedule,
        /// Address at which a Prometheus server finds the figures of this process, such as 0.0.0.0:9464; further ranks of a machine take the ports after it [default: none]
        #[arg(help_heading = "Run", value_name = "ADDRESS:PORT")]
        prometheus: SocketAddr,
        /// Name of the run: its folder inside --logs [default: made of model, objective and seed]
        #[arg(help_heading = "Run", display_order = 0)]
        name: String,
        /// Threads that each rank computes with on the CPU; results can differ in the last bit between numbers of threads [default: the rank's share of the machine]
        #[arg(help_heading = "Run", value_name = "N")]
        threads: NonZeroUsize,
        /// Folder or URL (s3://bucket/path) that holds checkpoints, each run's below its name [default: `checkpoints` in the run's folder]
        #[arg(help_heading = "Checkpoints", value_name = "LOCATION", display_order = 0)]
        checkpoint_dir: String,
        /// Checkpoints to keep for good: those after a multiple of so many steps, or of epochs, as in 1epoch [default: none]
        #[arg(help_heading = "Checkpoints", value_name = "STEPS|EPOCHS")]
        keep_every: Span,
        /// Ends the session, with a checkpoint and exit code 75, whenever the run has taken a multiple of so many steps, or of epochs, as in 2epochs [default: none]
        #[arg(help_heading = "Run", value_name = "STEPS|EPOCHS")]
        stop_after: Span,
        /// Ends the session, with a checkpoint and exit code 75, after so long, as in 3h50m or 03:50:00; leave time for the checkpoint [default: none]
        #[arg(help_heading = "Run", value_name = "TIME")]
        time_limit: TimeSpan,
    }
}
