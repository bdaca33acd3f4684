//! `train bench`: how fast steps are on this machine.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastclip_torch_ext::HAS_CUDA;
use fastclip_trainer::bench::{BenchOptions, bench};
use fastclip_trainer::config::RunConfig;
use fastclip_trainer::progress::Progress;
use tracing::Level;

use super::run::{SharedArgs, device, machine};
use super::{Failure, log, print};

/// Times steps over batches that are on the device already, and prints figures as JSON
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct BenchArgs {
    /// Steps before the clock starts; their losses are printed
    #[arg(long, value_name = "N", default_value = "8")]
    warm_up: u64,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value = "20")]
    steps: NonZeroU64,
    /// Tokens of the longest caption of every batch [default: all that the model takes]
    #[arg(long, value_name = "N")]
    caption_length: Option<i64>,
    /// Fails where an operation of the timed steps makes the host wait for the GPU
    #[arg(long)]
    refuse_host_waits: bool,
    /// Takes three more steps, not timed, and writes what they do: Chrome's format, for ui.perfetto.dev
    #[arg(long, value_name = "PATH")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    options: SharedArgs,
}

const EXAMPLES: &str = "\
Examples:
  train bench --model ViT-B-16 --batch-size 320 --precision amp_bf16 --cuda-graphs
  train bench --model toy --batch-size 64 --device cpu --steps 3
  train bench --model ViT-B-32 --batch-size 256 --precision amp_bf16 --trace steps.json";

impl BenchArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let print_config = self.options.print_config;
        let mut options = self.options.layered()?;
        // No data is read.
        options.train_data.get_or_insert_with(|| "made".to_owned());
        let config = RunConfig::resolve(options, machine(1))?;
        if print_config {
            return print(&config.to_toml());
        }
        log::start(&Progress::hidden(), Level::WARN, None).map_err(Failure::broken)?;
        if self.refuse_host_waits && !HAS_CUDA {
            return Err(Failure::refused(anyhow::anyhow!(
                "`--refuse-host-waits` is about GPUs, and this program was built without the feature `cuda`"
            )));
        }
        let longest = config.model.text_cfg.context_length;
        let caption_length = self.caption_length.unwrap_or(longest);
        if !(2..=longest).contains(&caption_length) {
            return Err(Failure::refused(anyhow::anyhow!(
                "`--caption-length` is {caption_length}, this model takes 2 to {longest}"
            )));
        }
        if let Some(path) = &self.trace {
            // libtorch only logs when it cannot write, and that after the work.
            std::fs::write(path, "").map_err(|error| {
                let context = format!("could not write `{}`", path.display());
                Failure::refused(anyhow::Error::new(error).context(context))
            })?;
        }
        let device = device(config.settings.device, 0)?;
        let figures = bench(
            &config,
            device,
            &BenchOptions {
                warm_up: self.warm_up,
                steps: self.steps.get(),
                caption_length,
                refuses_host_waits: self.refuse_host_waits,
                trace: self.trace,
            },
        )?;
        print(&format!("{}\n", serde_json::to_string(&figures).map_err(Failure::broken)?))
    }
}
