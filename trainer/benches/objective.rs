//! What an objective costs: `scripts/bench/objective` runs this beside a PyTorch implementation and prints the ratios.
//!
//! `step`: one rank's forward and backward of an objective, in a world whose other ranks answer at once, so that the time
//! is that of the arithmetic. `table`: the exchange of estimators over real processes, for tables of different sizes. Each
//! prints one line of JSON.

#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::fs;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use fastclip_schemas::SampleId;
use fastclip_torch_ext::{GradientBuckets, set_num_threads};
use fastclip_trainer::config::{Machine, ObjectiveChoice, RunConfig, RunOptions};
use fastclip_trainer::distributed::{
    Agreement, CommCounters, CommError, Communicator, ConnectOptions, Environment, connect,
};
use fastclip_trainer::estimator::{Dealing, EstimatorTable};
use fastclip_trainer::launch::{LaunchOptions, launch};
use fastclip_trainer::objective::{Global, Local};
use serde_json::json;
use tch::{Device, Kind, Tensor};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Cargo says this to every benchmark
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// One rank's step of an objective on given features
    Step {
        /// Which
        #[arg(long)]
        objective: ObjectiveChoice,
        /// Safetensors with `image` and `text` of one rank, (b, d)
        #[arg(long)]
        features: std::path::PathBuf,
        /// Number of ranks; all have the same features
        #[arg(long)]
        ranks: NonZeroUsize,
        #[arg(long)]
        repetitions: usize,
        #[arg(long)]
        threads: NonZeroUsize,
        #[arg(long, default_value = "256")]
        block_mib: NonZeroUsize,
    },
    /// The exchange of estimators between ranks
    Table {
        /// Rows of the whole table
        #[arg(long)]
        rows: u64,
        #[arg(long)]
        ranks: NonZeroUsize,
        /// Samples of all ranks
        #[arg(long)]
        batch: i64,
        #[arg(long)]
        repetitions: usize,
    },
}

/// Rank 0 of a world in which all ranks have the same batch.
struct Equals {
    world_size: usize,
}

impl Equals {
    fn repeated(&self, rows: &Tensor) -> Tensor {
        rows.repeat([self.world_size as i64, 1])
    }
}

impl Communicator for Equals {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<(), CommError> {
        let own = tensor.narrow(0, 0, tensor.size()[0] / self.world_size as i64).copy();
        tensor.shallow_clone().copy_(&self.repeated(&own));
        Ok(())
    }

    fn all_reduce_during(
        &self,
        _buckets: &mut GradientBuckets,
        backward: &mut dyn FnMut(),
    ) -> Result<(), CommError> {
        backward();
        Ok(())
    }

    fn all_gather(&self, local: &Tensor) -> Result<Tensor, CommError> {
        Ok(self.repeated(local))
    }

    fn broadcast(&self, _tensor: &Tensor, _root: usize) -> Result<(), CommError> {
        Ok(())
    }

    fn barrier(&self) -> Result<(), CommError> {
        Ok(())
    }

    fn announce_failure(&self, _cause: &str, _is_refusal: bool) {}

    fn counters(&self) -> CommCounters {
        CommCounters::default()
    }
}

/// Returns a field of this process's status in bytes: `VmRSS` or `VmHWM`.
fn memory(field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).context("Linux tells it")?;
    let kib: u64 = line.split_whitespace().nth(1).context("it is a number")?.parse()?;
    Ok(kib * 1024)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn timed(repetitions: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let seconds = (0..repetitions).map(|_| {
        let start = Instant::now();
        run().map(|()| start.elapsed().as_secs_f64())
    });
    Ok(median(seconds.collect::<anyhow::Result<_>>()?))
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Step { objective, features, ranks, repetitions, threads, block_mib } => {
            set_num_threads(threads)?;
            let features = Tensor::read_safetensors(&features)?;
            let feature = |wanted: &str| -> anyhow::Result<Tensor> {
                let found = features.iter().find(|(name, _)| name == wanted);
                Ok(found.with_context(|| format!("no tensor `{wanted}`"))?.1.shallow_clone())
            };
            step(objective, &feature("image")?, &feature("text")?, ranks, repetitions, block_mib)
        }
        What::Table { rows, ranks, batch, repetitions } => {
            let variable = |name: &str| std::env::var(name).ok();
            if variable("RANK").is_some() {
                return table(&Environment::detect(variable)?, rows, batch, repetitions);
            }
            let outcome = launch(&LaunchOptions {
                num_ranks: ranks,
                machines: None,
                program: None,
                args: std::env::args_os().skip(1).collect(),
                threads: Some(NonZeroUsize::MIN),
                port: None,
                grace: Duration::from_secs(10),
                num_restarts: 0,
                visible_devices: None,
            })?;
            std::process::exit(outcome.exit_code().into())
        }
    }
}

fn step(
    choice: ObjectiveChoice,
    image: &Tensor,
    text: &Tensor,
    ranks: NonZeroUsize,
    repetitions: usize,
    block_mib: NonZeroUsize,
) -> anyhow::Result<()> {
    let options = RunOptions {
        train_data: Some(String::new()),
        objective: Some(choice),
        loss_block_mib: Some(block_mib),
        ..RunOptions::default()
    };
    let config = RunConfig::resolve(options, Machine { processors_per_rank: NonZeroUsize::MIN })?;
    let num_local = image.size()[0];
    let ids: Vec<SampleId> = (0..num_local as u64).map(SampleId).collect();
    let dealing = Dealing { num_ids: num_local as u64, rank: 0, world_size: 1 };
    let mut objective =
        config.objective.build(|initial| EstimatorTable::new(dealing, initial, Kind::Float, Device::Cpu));
    let (log_scale, bias) = (Tensor::from((1.0f32 / 0.07).ln()), Tensor::from(-10.0f32));
    let comm = Equals { world_size: ranks.get() };
    let mut differentiate = || {
        let local = Local {
            image,
            text,
            ids: &ids,
            ids_on_device: None,
            log_scale: &log_scale,
            bias: Some(&bias),
            epoch: 0,
        };
        objective.differentiate(&local, &comm)
    };
    let before = memory("VmRSS")?;
    let share = differentiate()?;
    let peak = memory("VmHWM")? - before;
    let norm = |gradient: &Tensor| gradient.norm().double_value(&[]);
    let figures = json!({
        "objective": choice.name(),
        "peak_bytes": peak,
        "loss": share.values.loss.double_value(&[]) * ranks.get() as f64,
        "image_norm": norm(&share.image),
        "text_norm": norm(&share.text),
        "log_scale": share.log_scale.double_value(&[]) * ranks.get() as f64,
        "seconds": timed(repetitions, || differentiate().map(drop).map_err(anyhow::Error::from))?,
    });
    println!("{figures}");
    Ok(())
}

fn table(environment: &Environment, rows: u64, batch: i64, repetitions: usize) -> anyhow::Result<()> {
    let options = ConnectOptions {
        timeout: Duration::from_secs(300),
        agreement: Agreement::default(),
        device: Device::Cpu,
    };
    let comm = connect(environment, &options)?;
    let dealing = Dealing { num_ids: rows, rank: comm.rank(), world_size: comm.world_size() };
    let mut table = EstimatorTable::new(dealing, &Global::INITIAL_ROW, Kind::Float, Device::Cpu);
    // A stride that meets rows all over the table, each at most once.
    let ids = |step: i64| {
        let places = Tensor::arange_start(step * batch, (step + 1) * batch, (Kind::Int64, Device::Cpu));
        (places * 1_000_003).remainder(rows as i64)
    };
    let mut step = 0;
    let mut exchange = || {
        let ids = ids(step);
        step += 1;
        let rows = table.offer(&ids);
        let parcel = Tensor::cat(&[&rows, &Tensor::zeros_like(&rows)], 1);
        comm.all_reduce_sum(&parcel)?;
        table.store(&ids, &parcel.narrow(1, 2, 2));
        Ok(())
    };
    exchange()?;
    let seconds = timed(repetitions, &mut exchange)?;
    if comm.rank() == 0 {
        let (rank_bytes, num_ranks) = (table.num_bytes(), comm.world_size());
        let microseconds = seconds * 1e6;
        println!(
            "{}",
            json!({"rows": rows, "ranks": num_ranks, "rank_bytes": rank_bytes, "microseconds": microseconds})
        );
    }
    Ok(())
}
