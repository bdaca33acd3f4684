//! `train check`: what a run will take, without training.

use std::fmt::Write as _;
use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;

use clap::Args;
use fastclip_trainer::check::{Check, TrainingSetSize};
use fastclip_trainer::config::RunConfig;
use fastclip_trainer::run::{open_dataset, training_loader};
use indicatif::HumanCount;

use super::run::{SharedArgs, machine};
use super::{Failure, print};

/// Says what a run will take, without training: size, memory, steps, traffic, operations, time
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct CheckArgs {
    /// Number of ranks
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Check")]
    ranks: NonZeroUsize,
    /// Pairs of the training set, if it is not there yet; otherwise it is opened and asked
    #[arg(long, value_name = "N", help_heading = "Check", alias = "train-num-samples")]
    samples: Option<NonZeroU64>,
    /// Samples a second of all ranks together, to say how long the run takes
    #[arg(long, value_name = "RATE", help_heading = "Check")]
    samples_per_second: Option<f64>,
    /// Prints JSON
    #[arg(long, help_heading = "Check")]
    json: bool,
    #[command(flatten)]
    run: SharedArgs,
}

const EXAMPLES: &str = "\
Examples:
  train check --config configs/cc3m/fastclip-v3.toml --ranks 8 --train-data s3://bucket/cc3m
  train check --config configs/laion400m/fastclip-v3.toml --ranks 16 --samples 315658316 --samples-per-second 40000";

impl CheckArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut options = self.run.layered()?;
        if self.samples.is_some() {
            options.train_data.get_or_insert_with(|| "(not opened)".to_owned());
        }
        let config = RunConfig::resolve(options, machine(self.ranks.get()))?;
        let training_set = match self.samples {
            Some(number) => TrainingSetSize::dense(number.get()),
            None => {
                let loader = training_loader(&config.data, 0, self.ranks.get())?;
                let manifest = loader.dataset().manifest();
                TrainingSetSize {
                    num_pairs: manifest.num_samples,
                    num_sample_ids: manifest.num_sample_ids,
                    samples_per_epoch: loader.num_samples(),
                }
            }
        };
        if let Some(evaluation) = config.evaluation.as_ref().filter(|_| self.samples.is_none()) {
            open_dataset(&evaluation.location)?;
        }
        let check = Check::of(&config, self.ranks.get() as u64, training_set, self.samples_per_second);
        if self.json {
            let json = serde_json::to_value(&check).expect("a check is made of plain values");
            return print(&format!("{json:#}\n"));
        }
        print(&table(&config, &check))
    }
}

fn table(config: &RunConfig, check: &Check) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<22} {value}");
    };
    let settings = &config.settings;
    row("model", format!("{}, {} parameters", settings.model, HumanCount(check.parameters)));
    row("", format!("{} of them for images", HumanCount(check.image_parameters)));
    row("objective", settings.objective.name().to_owned());
    row("training set", format!("{} pairs", HumanCount(check.num_samples)));
    row("global batch", {
        let (batch, micro) = (config.data.batch_size, config.data.accum_freq);
        let parts = if micro.get() == 1 { String::new() } else { format!(" x {micro} micro-batches") };
        format!("{} = {} ranks x {batch}{parts}", HumanCount(check.global_batch), check.num_ranks)
    });
    row("steps", {
        let (each, epochs) = (HumanCount(check.steps_per_epoch), config.rates.epochs);
        format!(
            "{} = {epochs} epochs x {each}, {} samples",
            HumanCount(check.total_steps),
            HumanCount(check.samples_seen)
        )
    });
    row("operations", format!("{:.1} GFLOP a sample", check.flops_per_sample as f64 / 1e9));
    if let Some(hours) = check.hours {
        let rate = check.samples_seen as f64 / hours / 3600.0;
        let flops = rate * check.flops_per_sample as f64 / check.num_ranks as f64 / 1e12;
        row("duration", format!("{hours:.1} h at {rate:.0} samples/s, {flops:.1} TFLOP/s of each rank"));
    }
    let memory = &check.memory;
    row("memory of a rank", mib(memory.total()));
    for (what, bytes) in [
        ("  parameters", memory.parameters),
        ("  gradients", memory.gradients),
        ("  optimizer", memory.optimizer),
        ("  estimators", memory.estimators),
        ("  features", memory.features),
        ("  similarities", memory.similarities),
        ("  activations (about)", memory.activations),
    ] {
        row(what, mib(bytes));
    }
    row("received in a step", mib(check.traffic.all_gather + check.traffic.all_reduce));
    row("  features and ids", mib(check.traffic.all_gather));
    row("  gradients and more", mib(check.traffic.all_reduce));
    text
}

fn mib(bytes: u64) -> String {
    format!("{:>12.1} MiB", bytes as f64 / f64::from(1 << 20))
}
