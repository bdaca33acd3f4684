//! How fast steps are, over batches that are on the device already.

use std::path::PathBuf;
use std::time::Instant;

use fastclip_schemas::SampleId;
use fastclip_torch_ext::{
    HostWaits, Stream, memory_peak, peak_memory, profile, set_host_waits, torch_version,
};
use serde::Serialize;
use tch::{Cuda, Device, Kind, Tensor};

use crate::check::{Check, TrainingSetSize};
use crate::config::RunConfig;
use crate::distributed::Alone;
use crate::graphs::StepGraphs;
use crate::model::ModelCost;
use crate::pending::InFlight;
use crate::run::{Extent, RunError, build, set_up_libtorch};
use crate::step::{Inputs, Message, StepReport, Trainer};

/// Batches that steps take in turn.
const NUM_BATCHES: usize = 4;

/// Steps in a trace.
const NUM_TRACED: u64 = 3;

/// How to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Steps before the clock starts; what they find is reported.
    pub warm_up: u64,
    /// Steps that are timed.
    pub steps: u64,
    /// Tokens of the longest caption of every batch; the others have any length up to it.
    pub caption_length: i64,
    /// Whether an operation of the timed steps that makes the host wait for a GPU is an error.
    pub refuses_host_waits: bool,
    /// Where a trace of further steps is written.
    pub trace: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// libtorch's version.
    pub torch: String,
    /// Samples of a step.
    pub batch: u64,
    /// Columns of tokens that were computed.
    pub caption_length: i64,
    /// Milliseconds of a step, on average over those that were timed.
    pub step_milliseconds: f64,
    /// Samples in a second.
    pub samples_per_second: f64,
    /// Floating point operations of training on a sample with a caption of full length.
    pub flops_per_sample: u64,
    /// Trillions of them in a second, had all captions been of full length.
    pub teraflops: f64,
    /// Most bytes that tensors took on the device.
    pub peak_allocated_bytes: Option<u64>,
    /// What they were expected to take, see [`Check`].
    pub estimated_bytes: u64,
    /// Most bytes that were taken from the driver of a GPU.
    pub peak_reserved_bytes: Option<u64>,
    /// Recorded steps, if steps were to be recorded.
    pub num_recorded: Option<usize>,
    /// Losses of the warm-up.
    pub losses: Vec<f64>,
    /// Norms of its gradients.
    pub grad_norms: Vec<f64>,
}

struct MadeBatch {
    images: Tensor,
    tokens: Tensor,
    ids: Vec<SampleId>,
}

impl MadeBatch {
    /// Draws a batch, the same on every device.
    fn draw(config: &RunConfig, number: usize, caption_length: i64, device: Device) -> Self {
        let num_samples = (config.data.batch_size.get() * config.data.accum_freq.get()) as i64;
        let side = i64::from(config.data.image_size);
        let words = config.model.text_cfg.vocab_size - 2;
        let on_host = (Kind::Int64, Device::Cpu);
        tch::manual_seed(number as i64);
        let images = Tensor::randint(256, [num_samples, 3, side, side], (Kind::Uint8, Device::Cpu));
        // Start, words, end, padding. The end token has the largest id.
        let tokens = Tensor::randint_low(1, words, [num_samples, caption_length], on_host);
        let ends = Tensor::randint_low(caption_length / 2, caption_length, [num_samples, 1], on_host);
        let _ = ends.get(0).fill_(caption_length - 1);
        let _ = tokens.select(1, 0).fill_(words);
        let columns = Tensor::arange(caption_length, on_host).unsqueeze(0);
        let tokens = tokens.where_self(&columns.lt_tensor(&ends), &tokens.zeros_like());
        let tokens = tokens + columns.eq_tensor(&ends).to_kind(Kind::Int64) * (words + 1);
        let first = number as u64 * num_samples as u64;
        let ids: Vec<SampleId> = (first..first + num_samples as u64).map(SampleId).collect();
        Self { images: images.to_device(device), tokens: tokens.to_kind(Kind::Int).to_device(device), ids }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            images: self.images.shallow_clone(),
            tokens: self.tokens.shallow_clone(),
            ids: &self.ids,
            epoch: 0,
        }
    }
}

/// Steps over made batches.
struct Bench {
    trainer: Trainer,
    graphs: Option<StepGraphs>,
    batches: Vec<MadeBatch>,
    comm: Alone,
    in_flight: InFlight<()>,
}

impl Bench {
    /// Takes a step and returns the reports that have come: that of this step if it is wanted, and that of an earlier one.
    fn step(&mut self, is_wanted: bool) -> Result<Vec<StepReport>, RunError> {
        let Self { trainer, graphs, batches, comm, in_flight } = self;
        let batch = &batches[trainer.step as usize % batches.len()].inputs();
        let pending = match graphs {
            Some(graphs) => graphs.launch(trainer, batch, Message::default(), comm),
            None => trainer.launch(batch, Message::default(), comm),
        }?;
        let arrived = in_flight.push(pending, (), is_wanted);
        Ok(arrived.into_iter().map(|(report, ())| report).collect::<Result<_, _>>()?)
    }

    /// Takes steps, and returns when the last is done.
    fn take(&mut self, steps: u64) -> Result<(), RunError> {
        for step in 1..=steps {
            // As in a run, the next step is on the queue before one is read about.
            self.step(step == steps)?;
        }
        Ok(())
    }
}

/// Times steps of a run's model, objective and optimizer in one process.
///
/// # Errors
/// When a step fails.
pub fn bench(config: &RunConfig, device: Device, options: &BenchOptions) -> Result<Figures, RunError> {
    Stream::beside(device)?.within(|| {
        let measure = || measure(config, device, options);
        let (mut bench, figures) = if device.is_cuda() {
            measure()?
        } else {
            let (measured, peak) = peak_memory(measure)?;
            let (bench, figures) = measured?;
            (bench, Figures { peak_allocated_bytes: Some(peak), ..figures })
        };
        // Behind the measurement: libtorch counts memory or observes, not both.
        if let Some(path) = &options.trace {
            profile(path, || bench.take(NUM_TRACED))??;
        }
        Ok(figures)
    })?
}

/// Returns what took the steps, too, for more of them.
fn measure(config: &RunConfig, device: Device, options: &BenchOptions) -> Result<(Bench, Figures), RunError> {
    set_up_libtorch(config)?;
    let batch = (config.data.batch_size.get() * config.data.accum_freq.get()) as u64;
    let comm = Alone::new();
    let extent = Extent { num_sample_ids: batch * NUM_BATCHES as u64, steps_per_epoch: NUM_BATCHES as u64 };
    let mut trainer = build(config, extent, device, &comm)?;
    let mut bench = Bench {
        graphs: StepGraphs::if_wanted(config.settings.cuda_graphs, &mut trainer, 1),
        trainer,
        batches: (0..NUM_BATCHES)
            .map(|number| MadeBatch::draw(config, number, options.caption_length, device))
            .collect(),
        comm,
        in_flight: InFlight::default(),
    };
    let (mut losses, mut grad_norms) = (Vec::new(), Vec::new());
    for _ in 0..options.warm_up {
        for report in bench.step(true)? {
            losses.push(report.values.loss);
            grad_norms.push(report.grad_norm);
        }
    }
    finish(device);
    if options.refuses_host_waits {
        set_host_waits(HostWaits::Refused)?;
    }
    let started = Instant::now();
    bench.take(options.steps)?;
    let seconds = started.elapsed().as_secs_f64();
    if options.refuses_host_waits {
        set_host_waits(HostWaits::Allowed)?;
    }
    // Of the first steps, too: recorded ones take no memory when they are replayed.
    let peak = memory_peak(device)?;
    let samples_per_second = (batch * options.steps) as f64 / seconds;
    let flops_per_sample = ModelCost::of(&config.model).training_flops();
    let figures = Figures {
        torch: torch_version().to_owned(),
        batch,
        caption_length: options.caption_length,
        step_milliseconds: seconds * 1e3 / options.steps as f64,
        samples_per_second,
        flops_per_sample,
        teraflops: samples_per_second * flops_per_sample as f64 / 1e12,
        peak_allocated_bytes: peak.map(|peak| peak.allocated),
        estimated_bytes: Check::of(config, 1, TrainingSetSize::dense(extent.num_sample_ids), None)
            .memory
            .total(),
        peak_reserved_bytes: peak.map(|peak| peak.reserved),
        num_recorded: bench.graphs.as_ref().map(StepGraphs::num_recorded),
        losses,
        grad_norms,
    };
    Ok((bench, figures))
}

/// Waits until the device has nothing left to do.
fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}
