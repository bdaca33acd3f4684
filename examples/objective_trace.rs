//! Computes an objective step by step on given features, on several processes, and writes down everything it did: to be
//! compared with any other implementation.
//!
//! ```sh
//! cargo run --release --example objective_trace -- --input in.safetensors --config trace.toml --ranks 2 --output out.safetensors
//! ```
//!
//! Input and output tensors and the keys of the config are listed in docs/numerics.md. K = `--ranks` processes meet over
//! Gloo; rank r takes rows r·B/K to (r+1)·B/K of every global batch. All is computed in the kind of the features.

#![allow(clippy::print_stderr, reason = "a tool tells what went wrong")]

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use fastclip_schemas::SampleId;
use fastclip_trainer::config::{DeviceChoice, GammaChoice, Machine, ObjectiveChoice, RunConfig, RunOptions};
use fastclip_trainer::distributed::{Agreement, Communicator, ConnectOptions, Environment, connect};
use fastclip_trainer::estimator::{Dealing, EstimatorTable};
use fastclip_trainer::launch::{LaunchOptions, launch};
use fastclip_trainer::model::{Init, LOG_SCALE, MAX_LOGIT_SCALE, ParameterSpec, Parameters};
use fastclip_trainer::objective::{
    GammaDecay, GradientRule, INITIAL_BIAS, Local, NUM_VALUES, Objective, Share, Values,
};
use fastclip_trainer::optimizer::Optimizer;
use fastclip_trainer::schedule::{Schedule, TemperatureSchedule};
use serde::Deserialize;
use tch::{Device, Kind, Tensor, no_grad};

/// Trace an objective on given features
#[derive(Debug, Parser)]
struct Arguments {
    /// Safetensors with `image` and `text` (T, B, d) and `ids` (T, B)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// TOML file with the objective's settings
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Number of processes; it must divide B
    #[arg(long, value_name = "K", default_value = "1")]
    ranks: NonZeroUsize,
    /// Safetensors to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Where everything is computed; with cuda, rank r has GPU r
    #[arg(long, value_enum, default_value = "cpu")]
    device: On,
    /// Scale the given features to unit length first; gradients remain those of the given features
    #[arg(long)]
    normalize: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum On {
    Cpu,
    Cuda,
}

/// The objective's settings; the defaults are those of `train run`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceConfig {
    objective: ObjectiveChoice,
    num_samples: u64,
    steps_per_epoch: u64,
    tau_init: Option<f64>,
    epsilon: Option<f64>,
    rho: Option<f64>,
    gamma_schedule: Option<GammaDecay>,
    gamma_min: Option<f64>,
    gamma_decay_epochs: Option<u64>,
    tau_lr: Option<f64>,
    tau_lr_schedule: Option<TemperatureSchedule>,
    beta1: Option<f64>,
    beta2: Option<f64>,
    adam_epsilon: Option<f64>,
    gradients: Option<GradientRule>,
}

impl TraceConfig {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read config file `{}`", path.display()))?;
        toml::from_str(&text).with_context(|| format!("could not understand `{}`", path.display()))
    }

    /// Resolves the settings by the rules of a training run of so many epochs.
    fn resolve(&self, num_epochs: u64) -> anyhow::Result<RunConfig> {
        let options = RunOptions {
            train_data: Some(String::new()),
            model: Some("toy".to_owned()),
            device: Some(DeviceChoice::Cpu),
            objective: Some(self.objective),
            temperature: self.tau_init,
            fastclip_eps: self.epsilon,
            rho: self.rho,
            gamma_schedule: self.gamma_schedule,
            gamma: self.gamma_min.map(GammaChoice::Number),
            gamma_decay_epochs: self.gamma_decay_epochs,
            lr_tau: self.tau_lr,
            lr_tau_scheduler: self.tau_lr_schedule,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.adam_epsilon,
            gradients: self.gradients,
            epochs: Some(num_epochs),
            warmup: Some(0),
            ..RunOptions::default()
        };
        Ok(RunConfig::resolve(options, Machine { processors_per_rank: NonZeroUsize::MIN })?)
    }
}

/// The given features of all steps.
struct Input {
    image: Tensor, // [T, B, d]
    text: Tensor,  // [T, B, d]
    ids: Tensor,   // [T, B]
}

impl Input {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let tensors = Tensor::read_safetensors(path)
            .with_context(|| format!("could not read tensors from `{}`", path.display()))?;
        let mut tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
        let mut take = |name: &str| {
            tensors.remove(name).with_context(|| format!("`{}` has no tensor `{name}`", path.display()))
        };
        let input = Self { image: take("image")?, text: take("text")?, ids: take("ids")? };
        let (shape, kind) = (input.image.size(), input.image.kind());
        ensure!(shape.len() == 3, "`image` has shape {shape:?}, it must be (T, B, d)");
        ensure!(input.text.size() == shape, "`text` has shape {:?}, `image` {shape:?}", input.text.size());
        ensure!(input.ids.size() == shape[..2], "`ids` has shape {:?}, `image` {shape:?}", input.ids.size());
        ensure!(
            matches!(kind, Kind::Double | Kind::Float),
            "`image` is {kind:?}, it must be float32 or float64"
        );
        ensure!(input.text.kind() == kind, "`text` is {:?}, `image` is {kind:?}", input.text.kind());
        ensure!(input.ids.kind() == Kind::Int64, "`ids` is {:?}, it must be int64", input.ids.kind());
        Ok(input)
    }

    fn to_device(&self, device: Device) -> Self {
        let Self { image, text, ids } = self;
        Self { image: image.to_device(device), text: text.to_device(device), ids: ids.to_device(device) }
    }
}

/// What is recorded of a step, over the global batch.
struct Record {
    tensors: Vec<(&'static str, Tensor)>,
}

/// An objective on the way, and the temperature that follows it.
struct Trace<'a> {
    config: &'a TraceConfig,
    comm: &'a dyn Communicator,
    objective: Box<dyn Objective>,
    kind: Kind,
    device: Device,
    /// s = ln(1/τ)
    log_scale: Tensor,
    optimizer: Optimizer,
    schedule: Schedule,
    normalizes: bool,
}

impl<'a> Trace<'a> {
    fn new(
        config: &'a TraceConfig,
        num_steps: u64,
        (kind, device): (Kind, Device),
        normalizes: bool,
        comm: &'a dyn Communicator,
    ) -> anyhow::Result<Self> {
        let run = config.resolve(num_steps.div_ceil(config.steps_per_epoch).max(1))?;
        let dealing =
            Dealing { num_ids: config.num_samples, rank: comm.rank(), world_size: comm.world_size() };
        let objective = run.objective.build(|initial| EstimatorTable::new(dealing, initial, kind, device));
        let specs = [ParameterSpec::new(LOG_SCALE, &[], Init::Constant(0.0))];
        let parameters = Parameters::draw(&specs, 0, kind, device);
        let log_scale = parameters.get(LOG_SCALE).expect("it is the only parameter").shallow_clone();
        // Parameters are drawn in fp32.
        let _ = no_grad(|| log_scale.shallow_clone().fill_(-run.objective.initial_temperature.ln()));
        Ok(Self {
            config,
            comm,
            objective,
            kind,
            device,
            optimizer: Optimizer::new(&parameters, run.optimizer),
            log_scale,
            schedule: run.rates.schedule(config.steps_per_epoch),
            normalizes,
        })
    }

    /// Takes a step with this rank's rows of `image` and `text`, `[B, d]`, and `ids`, `[B]`.
    fn step(&mut self, step: u64, image: &Tensor, text: &Tensor, ids: &Tensor) -> anyhow::Result<Record> {
        let num_local = ids.size()[0] / self.comm.world_size() as i64;
        let first = self.comm.rank() as i64 * num_local;
        let mine = |rows: &Tensor| rows.narrow(0, first, num_local);
        let given = [mine(image), mine(text)];
        let lengths = given.each_ref().map(|rows| rows.norm_scalaropt_dim(2, [1i64], true));
        let unit: Vec<Tensor> = given
            .iter()
            .zip(&lengths)
            .map(|(rows, length)| if self.normalizes { rows / length } else { rows.copy() })
            .collect();
        let local_ids: Vec<SampleId> =
            Vec::<i64>::try_from(&mine(ids))?.into_iter().map(|id| SampleId(id as u64)).collect();
        let epoch = step / self.config.steps_per_epoch;
        let local = Local {
            ids_on_device: None,
            image: &unit[0],
            text: &unit[1],
            ids: &local_ids,
            log_scale: &self.log_scale,
            bias: Some(&Tensor::from(INITIAL_BIAS).to_kind(self.kind).to_device(self.device)),
            epoch,
        };
        let share = self.objective.differentiate(&local, self.comm)?;
        let Share { image, text, log_scale, values, .. } = share;

        let scalars = values.into_array().into_iter().chain([log_scale]);
        let scalars = Tensor::stack(&scalars.map(|value| value.to_kind(self.kind)).collect::<Vec<_>>(), 0);
        self.comm.all_reduce_sum(&scalars)?;
        let (values, tau_grad) = (scalars.narrow(0, 0, NUM_VALUES as i64), scalars.get(NUM_VALUES as i64));
        let values: [Tensor; NUM_VALUES] =
            values.unbind(0).try_into().map_err(|_| anyhow::anyhow!("the values were summed one by one"))?;
        let Values { loss, surrogate, .. } = Values::from_array(values);
        self.move_temperature(step, &tau_grad)?;

        let mut tensors = vec![
            ("loss", loss),
            ("surrogate", surrogate),
            ("tau_grad", tau_grad),
            ("gamma", Tensor::from(self.objective.gamma(epoch).unwrap_or(1.0)).to_kind(self.kind)),
            ("grad_image", self.of_given(&image, &unit[0], &lengths[0])?),
            ("grad_text", self.of_given(&text, &unit[1], &lengths[1])?),
        ];
        let remembered = self.rows(ids)?; // [B, columns]
        let column = |index| remembered.as_ref().map(|rows| rows.select(1, index));
        let none = || Tensor::zeros([ids.size()[0]], (self.kind, self.device));
        tensors.push(("u1", column(0).map_or_else(none, |log_u| log_u.exp())));
        tensors.push(("u2", column(1).map_or_else(none, |log_u| log_u.exp())));
        if let Some(rows) = remembered.as_ref().filter(|rows| rows.size()[1] > 2) {
            let (tau1, tau2) = (rows.select(1, 2), rows.select(1, 3));
            tensors.push(("tau", (&tau1 + &tau2).mean(None::<Kind>) / 2.0));
            tensors.push(("tau1", tau1));
            tensors.push(("tau2", tau2));
        } else {
            tensors.push(("tau", (-self.log_scale.detach()).exp()));
        }
        Ok(Record { tensors })
    }

    fn move_temperature(&mut self, step: u64, gradient: &Tensor) -> anyhow::Result<()> {
        self.optimizer.step(&[gradient.shallow_clone()], &self.schedule.at(step), None)?;
        let _ = no_grad(|| self.log_scale.shallow_clone().clamp_(0.0, MAX_LOGIT_SCALE.ln()));
        Ok(())
    }

    /// Gathers gradients of all ranks, `[B, d]`, of the features that were given.
    fn of_given(&self, gradient: &Tensor, unit: &Tensor, length: &Tensor) -> anyhow::Result<Tensor> {
        let gradient = if self.normalizes {
            // d(x/|x|)/dx takes away what points along x.
            let along = (gradient * unit).sum_dim_intlist(1i64, true, None::<Kind>);
            (gradient - unit * along) / length
        } else {
            gradient.shallow_clone()
        };
        Ok(self.comm.all_gather(&gradient)?)
    }

    /// Returns what is remembered of samples, from whichever ranks own them.
    fn rows(&self, ids: &Tensor) -> anyhow::Result<Option<Tensor>> {
        let Some(table) = self.objective.estimators() else { return Ok(None) };
        let rows = table.offer(ids);
        self.comm.all_reduce_sum(&rows)?;
        Ok(Some(rows))
    }
}

fn trace(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let config = TraceConfig::read(&arguments.config)?;
    ensure!(config.steps_per_epoch > 0, "`steps_per_epoch` is 0, it must be at least 1");
    let input = Input::read(&arguments.input)?;
    let (num_steps, batch) = (input.ids.size()[0], input.ids.size()[1]);
    let num_ranks = arguments.ranks.get() as i64;
    ensure!(batch % num_ranks == 0, "{num_ranks} ranks cannot share batches of {batch} evenly");
    if num_steps == 0 {
        bail!("`{}` has no steps", arguments.input.display());
    }
    let device = match arguments.device {
        On::Cpu => Device::Cpu,
        On::Cuda => Device::Cuda(environment.local_rank),
    };
    let input = input.to_device(device);
    let options = ConnectOptions {
        timeout: Duration::from_secs(60),
        agreement: Agreement { program: String::new(), configuration: format!("{config:?}") },
        device,
    };
    let comm = connect(environment, &options)?;
    let mut trace =
        Trace::new(&config, num_steps as u64, (input.image.kind(), device), arguments.normalize, &*comm)?;

    let mut steps: Vec<(&'static str, Vec<Tensor>)> = Vec::new();
    for step in 0..num_steps {
        let [image, text, ids] = [&input.image, &input.text, &input.ids].map(|tensor| tensor.get(step));
        let record = trace
            .step(step as u64, &image, &text, &ids)
            .with_context(|| format!("could not take step {step}"))?;
        for (place, (name, tensor)) in record.tensors.into_iter().enumerate() {
            match steps.get_mut(place) {
                Some((_, tensors)) => tensors.push(tensor),
                None => steps.push((name, vec![tensor])),
            }
        }
    }
    let mut output: Vec<(&str, Tensor)> =
        steps.iter().map(|(name, tensors)| (*name, Tensor::stack(tensors, 0).contiguous())).collect();
    let all = Tensor::arange(config.num_samples as i64, (Kind::Int64, device));
    let remembered = trace.rows(&all)?;
    for (index, name) in [(0, "u1_final"), (1, "u2_final")] {
        let none = || Tensor::zeros([config.num_samples as i64], (trace.kind, device));
        output.push((name, remembered.as_ref().map_or_else(none, |rows| rows.select(1, index).exp())));
    }
    if comm.rank() == 0 {
        for (_, tensor) in &mut output {
            *tensor = tensor.to_device(Device::Cpu);
        }
        Tensor::write_safetensors(&output, &arguments.output)
            .with_context(|| format!("could not write `{}`", arguments.output.display()))?;
    }
    Ok(())
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let variable = |name: &str| std::env::var(name).ok();
    if variable("RANK").is_some() {
        let environment = Environment::detect(variable)?;
        return trace(&arguments, &environment).map(|()| ExitCode::SUCCESS);
    }
    let outcome = launch(&LaunchOptions {
        num_ranks: arguments.ranks,
        machines: None,
        program: None,
        args: std::env::args_os().skip(1).collect(),
        threads: None,
        port: None,
        grace: Duration::from_secs(10),
        num_restarts: 0,
        visible_devices: None,
    })?;
    Ok(ExitCode::from(outcome.exit_code()))
}
