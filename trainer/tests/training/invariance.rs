//! The number of ranks changes nothing but who computes what: in fp64, over real Gloo.

use std::thread;
use std::time::Duration;

use fastclip_schemas::SampleId;
use fastclip_testkit::free_port;
use fastclip_trainer::distributed::{Alone, Communicator, ConnectOptions, Environment, connect};
use fastclip_trainer::estimator::{Dealing, EstimatorTable};
use fastclip_trainer::model::{Clip, ModelConfig};
use fastclip_trainer::objective::{
    FastClipV3, FastClipV3Options, GammaDecay, GammaSchedule, Objective, OpenClip, TemperatureGradient,
};
use fastclip_trainer::optimizer::{AdamOptions, Optimizer, OptimizerOptions, Rule};
use fastclip_trainer::schedule::{Decay, LearningRate, Schedule, TauThreshold};
use fastclip_trainer::step::{Inputs, Trainer};
use tch::{Device, Kind, Tensor};

const NUM_SAMPLES: i64 = 24;
const GLOBAL_BATCH: i64 = 8;
const NUM_STEPS: i64 = 20;

const MODEL: &str = r#"{
  "embed_dim": 12,
  "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
  "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 12, "heads": 2, "layers": 2}
}"#;

type MakeObjective = fn(&dyn Communicator) -> Box<dyn Objective>;

fn v3(comm: &dyn Communicator) -> Box<dyn Objective> {
    let dealing = Dealing { num_ids: NUM_SAMPLES as u64, rank: comm.rank(), world_size: comm.world_size() };
    let options = FastClipV3Options {
        gamma: GammaSchedule { decay: GammaDecay::Cosine, min: 0.3, decay_epochs: 5 },
        rho: 6.0,
        epsilon: 1e-8,
        gradient: TemperatureGradient::Reference,
    };
    let table = EstimatorTable::new(dealing, FastClipV3::NUM_COLUMNS, Kind::Double, Device::Cpu);
    Box::new(FastClipV3::new(options, table))
}

fn openclip(_: &dyn Communicator) -> Box<dyn Objective> {
    Box::new(OpenClip)
}

/// What a run comes to: its parameters and losses.
struct Result {
    parameters: Vec<(String, Tensor)>,
    losses: Vec<f64>,
}

fn train(comm: &dyn Communicator, objective: MakeObjective) -> Result {
    let config = ModelConfig::from_json("test", MODEL).unwrap();
    let model = Clip::with_kind(&config, Device::Cpu, Kind::Double, 11);
    let options = OptimizerOptions {
        rule: Rule::AdamW(AdamOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 }),
        weight_decay: 0.1,
        max_grad_norm: None,
    };
    let decay = Decay::Cosine { floor: 1e-4 };
    let mut trainer = Trainer {
        optimizer: Optimizer::new(model.parameters(), options),
        objective: objective(comm),
        schedule: Schedule {
            model: LearningRate { peak: 3e-3, warmup_steps: 4, total_steps: NUM_STEPS as u64, decay },
            temperature: LearningRate::constant(1e-2),
            threshold: Some(TauThreshold { tau: 0.03, factor: 1.0 / 3.0 }),
        },
        model,
        step: 0,
    };
    let num_local = GLOBAL_BATCH / comm.world_size() as i64;
    let mut losses = Vec::new();
    for step in 0..NUM_STEPS {
        // Each epoch deals the samples in another order, the same on all ranks.
        let (epoch, batch) = (step / 3, step % 3);
        let first = batch * GLOBAL_BATCH + comm.rank() as i64 * num_local;
        let samples: Vec<i64> =
            (first..first + num_local).map(|place| (place * 5 + epoch * 7) % NUM_SAMPLES).collect();
        let ids: Vec<SampleId> = samples.iter().map(|&sample| SampleId(sample as u64)).collect();
        let inputs = Inputs {
            images: Tensor::stack(&samples.iter().map(|&sample| image(sample)).collect::<Vec<_>>(), 0),
            tokens: Tensor::stack(&samples.iter().map(|&sample| tokens(sample)).collect::<Vec<_>>(), 0),
            ids: &ids,
            epoch: epoch as u64,
        };
        losses.push(trainer.step(&inputs, None, comm).unwrap().values.loss);
    }
    let parameters = trainer.model.parameters().iter();
    Result { parameters: parameters.map(|p| (p.name.clone(), p.tensor.detach())).collect(), losses }
}

fn image(sample: i64) -> Tensor {
    let pixels = Tensor::arange(3 * 16 * 16, (Kind::Int64, Device::Cpu)) * (sample * 2 + 1) + sample * 31;
    pixels.remainder(256).to_kind(Kind::Uint8).view([3, 16, 16])
}

/// Start token 38, three words, end token 39, padding.
fn tokens(sample: i64) -> Tensor {
    Tensor::from_slice(&[38, sample, (sample * 7) % 30, (sample * sample) % 30, 39, 0, 0, 0])
}

fn on_ranks(world_size: usize, objective: MakeObjective) -> Vec<Result> {
    let port = free_port();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                scope.spawn(move || {
                    let environment = Environment::detect(|name| match name {
                        "RANK" | "LOCAL_RANK" => Some(rank.to_string()),
                        "WORLD_SIZE" => Some(world_size.to_string()),
                        "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
                        "MASTER_PORT" => Some(port.to_string()),
                        _ => None,
                    });
                    let options = ConnectOptions {
                        timeout: Duration::from_secs(60),
                        agreement: "invariance".to_owned(),
                        device: Device::Cpu,
                    };
                    train(&*connect(&environment.unwrap(), &options).unwrap(), objective)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn assert_invariant(objective: MakeObjective) {
    let alone = train(&Alone::new(), objective);
    for world_size in [2, 4] {
        for (rank, found) in on_ranks(world_size, objective).iter().enumerate() {
            for (step, (found, expected)) in found.losses.iter().zip(&alone.losses).enumerate() {
                assert!(
                    (found - expected).abs() < 1e-10,
                    "step {step} of rank {rank} of {world_size}: {found} {expected}"
                );
            }
            for ((name, found), (_, expected)) in found.parameters.iter().zip(&alone.parameters) {
                let difference = (found - expected).abs().max().double_value(&[]);
                assert!(difference < 1e-10, "`{name}` on rank {rank} of {world_size}: {difference:e}");
            }
        }
    }
}

#[test]
fn fastclip_v3_trains_the_same_model_on_any_number_of_ranks() {
    assert_invariant(v3);
}

#[test]
fn the_baseline_trains_the_same_model_on_any_number_of_ranks() {
    assert_invariant(openclip);
}
