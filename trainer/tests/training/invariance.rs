//! The number of ranks and of micro-batches changes nothing but who computes what, and when: in fp64, over real Gloo.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use fastclip_schemas::SampleId;
use fastclip_testkit::free_port;
use fastclip_trainer::distributed::{
    Agreement, Alone, CommCounters, Communicator, ConnectOptions, Environment, connect,
};
use fastclip_trainer::estimator::{Dealing, EstimatorTable};
use fastclip_trainer::gradients::{Agreement as AgreementOfRanks, Contribution, Gradients, Part};
use fastclip_trainer::model::{Clip, Layers, ModelConfig};
use fastclip_trainer::objective::{
    ContrastOptions, GammaDecay, GammaSchedule, Global, GlobalOptions, GlobalVariant, GradientRule,
    Individual, IndividualOptions, IndividualVariant, Objective, OpenClip, SigLip, Values,
};
use fastclip_trainer::optimizer::{AdamOptions, Optimizer, OptimizerOptions, Rule};
use fastclip_trainer::schedule::{Decay, LearningRate, Schedule, TauThreshold};
use fastclip_trainer::step::{Inputs, Message, Trainer};
use tch::{Device, Kind, Tensor};

const NUM_SAMPLES: i64 = 48;
pub(crate) const GLOBAL_BATCH: i64 = 16;
const NUM_STEPS: i64 = 20;

/// Small enough for several buckets.
const BUCKET_BYTES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

pub(crate) const EMBED_DIM: usize = 12;

const MODEL: &str = r#"{
  "embed_dim": 12,
  "init_logit_bias": -10,
  "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
  "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 12, "heads": 2, "layers": 2}
}"#;

pub(crate) type MakeObjective = fn(&dyn Communicator) -> Box<dyn Objective>;

fn table(comm: &dyn Communicator, initial: &[f64]) -> EstimatorTable {
    let dealing = Dealing { num_ids: NUM_SAMPLES as u64, rank: comm.rank(), world_size: comm.world_size() };
    EstimatorTable::new(dealing, initial, Kind::Double, Device::Cpu)
}

const GAMMA: GammaSchedule = GammaSchedule { decay: GammaDecay::Cosine, min: 0.3, decay_epochs: 5 };

pub(crate) fn v3(comm: &dyn Communicator) -> Box<dyn Objective> {
    let options = GlobalOptions {
        variant: GlobalVariant::V3,
        gamma: GAMMA,
        rho: 6.0,
        epsilon: 1e-8,
        gradients: GradientRule::Reference,
        contrast: ContrastOptions::default(),
    };
    Box::new(Global::new(options, table(comm, &Global::INITIAL_ROW)))
}

pub(crate) fn v2(comm: &dyn Communicator) -> Box<dyn Objective> {
    let options = IndividualOptions {
        variant: IndividualVariant::V2,
        gamma: GAMMA,
        rho: 6.0,
        epsilon: 1e-8,
        lr_tau: 1e-2,
        beta1: 0.9,
        beta2: 0.98,
        adam_epsilon: 1e-6,
        gradients: GradientRule::Reference,
        contrast: ContrastOptions::default(),
    };
    Box::new(Individual::new(options, table(comm, &Individual::initial_row(0.07))))
}

pub(crate) fn openclip(_: &dyn Communicator) -> Box<dyn Objective> {
    Box::new(OpenClip::default())
}

pub(crate) fn siglip(_: &dyn Communicator) -> Box<dyn Objective> {
    Box::new(SigLip::default())
}

/// What a run comes to.
pub(crate) struct Result {
    pub(crate) parameters: Vec<(String, Tensor)>,
    pub(crate) losses: Vec<f64>,
    /// Names of what the optimizer remembers.
    pub(crate) optimizer: Vec<String>,
    /// What the last step moved.
    pub(crate) traffic: CommCounters,
    pub(crate) num_buckets: usize,
}

impl Result {
    /// Number of values in all parameters.
    pub(crate) fn num_values(&self) -> usize {
        // There are no statistics, and nothing is locked, where this is asked.
        self.parameters.iter().map(|(_, tensor)| tensor.numel()).sum()
    }
}

pub(crate) fn train(comm: &dyn Communicator, objective: MakeObjective, num_micro_batches: usize) -> Result {
    train_prepared(comm, objective, num_micro_batches, |_| {}, |_| {})
}

/// Everything that trains a model, and nothing but it.
fn trainer_of(model: Clip, objective: Box<dyn Objective>, num_micro_batches: usize) -> Trainer {
    let options = OptimizerOptions {
        rule: Rule::AdamW(AdamOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 }),
        weight_decay: 0.1,
        max_grad_norm: None,
    };
    let decay = Decay::Cosine { floor: 1e-4 };
    Trainer {
        optimizer: Optimizer::new(model.parameters(), options),
        objective,
        schedule: Schedule {
            model: LearningRate { peak: 3e-3, warmup_steps: 4, total_steps: NUM_STEPS as u64, decay },
            temperature: LearningRate::constant(1e-2),
            threshold: Some(TauThreshold { tau: 0.03, factor: 1.0 / 3.0 }),
        },
        gradients: Gradients::new(model.parameters(), BUCKET_BYTES).unwrap(),
        num_micro_batches: NonZeroUsize::new(num_micro_batches).unwrap(),
        model,
        step: 0,
    }
}

/// The same for a model of its own, a transformer or a ResNet, in one process.
pub(crate) fn trainer(objective: MakeObjective, is_resnet: bool) -> Trainer {
    let mut config = ModelConfig::from_json("test", MODEL).unwrap();
    if is_resnet {
        let vision = &mut config.vision_cfg;
        (vision.layers, vision.image_size, vision.patch_size) = (Layers::Stages([1; 4]), 32, None);
        vision.width = 8;
    }
    trainer_of(Clip::with_kind(&config, Device::Cpu, Kind::Double, 11), objective(&Alone::new()), 1)
}

/// The same with another config, or a model that is changed before it is trained.
pub(crate) fn train_prepared(
    comm: &dyn Communicator,
    objective: MakeObjective,
    num_micro_batches: usize,
    change: impl Fn(&mut ModelConfig),
    prepare: impl Fn(&mut Clip),
) -> Result {
    let mut config = ModelConfig::from_json("test", MODEL).unwrap();
    change(&mut config);
    let mut model = Clip::with_kind(&config, Device::Cpu, Kind::Double, 11);
    prepare(&mut model);
    let mut trainer = trainer_of(model, objective(comm), num_micro_batches);
    let num_local = GLOBAL_BATCH / comm.world_size() as i64;
    let (mut losses, mut traffic) = (Vec::new(), CommCounters::default());
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
        let report = trainer.step(&inputs, Message::default(), comm).unwrap();
        losses.push(report.values.loss);
        traffic = report.communication;
    }
    let parameters = trainer.model.parameters().state();
    Result {
        optimizer: trainer.optimizer.state().into_iter().map(|(name, _)| name).collect(),
        parameters: parameters.map(|p| (p.name.clone(), p.tensor.detach())).collect(),
        losses,
        traffic,
        num_buckets: trainer.gradients.num_buckets(),
    }
}

fn image(sample: i64) -> Tensor {
    image_of(sample, 16)
}

pub(crate) fn image_of(sample: i64, side: i64) -> Tensor {
    let pixels = Tensor::arange(3 * side * side, (Kind::Int64, Device::Cpu)) * (sample * 2 + 1) + sample * 31;
    pixels.remainder(256).to_kind(Kind::Uint8).view([3, side, side])
}

/// Start token 38, three words, end token 39, padding.
pub(crate) fn tokens(sample: i64) -> Tensor {
    Tensor::from_slice(&[38, sample % 37, (sample * 7) % 30, (sample * sample) % 30, 39, 0, 0, 0])
}

/// Calls `body` on so many ranks, which are threads of this process, and returns what it returns in their order.
pub(crate) fn on_ranks<T: Send>(world_size: usize, body: impl Fn(&dyn Communicator) -> T + Sync) -> Vec<T> {
    let port = free_port();
    let start = |rank: usize| {
        let environment = Environment::detect(|name| match name {
            "RANK" | "LOCAL_RANK" => Some(rank.to_string()),
            "WORLD_SIZE" => Some(world_size.to_string()),
            "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
            "MASTER_PORT" => Some(port.to_string()),
            _ => None,
        });
        let options = ConnectOptions {
            timeout: Duration::from_secs(60),
            agreement: Agreement::default(),
            device: Device::Cpu,
        };
        body(&*connect(&environment.unwrap(), &options).unwrap())
    };
    thread::scope(|scope| {
        let start = &start;
        let ranks: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || start(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn assert_invariant(objective: MakeObjective) {
    let expected = train(&Alone::new(), objective, 1);
    for num_micro_batches in [2, 4] {
        let found = train(&Alone::new(), objective, num_micro_batches);
        assert_same(&found, &expected, &format!("{num_micro_batches} micro-batches alone"));
    }
    for world_size in [2, 4] {
        for num_micro_batches in [1, 2, 4] {
            let results = on_ranks(world_size, |comm| train(comm, objective, num_micro_batches));
            for (rank, found) in results.iter().enumerate() {
                let place = format!("rank {rank} of {world_size} with {num_micro_batches} micro-batches");
                assert_same(found, &expected, &place);
            }
        }
    }
}

#[track_caller]
pub(crate) fn assert_same(found: &Result, expected: &Result, place: &str) {
    for (step, (found, expected)) in found.losses.iter().zip(&expected.losses).enumerate() {
        assert!((found - expected).abs() < 1e-10, "step {step} of {place}: {found} {expected}");
    }
    for ((name, found), (_, expected)) in found.parameters.iter().zip(&expected.parameters) {
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-10, "`{name}` of {place}: {difference:e}");
    }
}

#[test]
fn fastclip_v3_trains_the_same_model_on_any_number_of_ranks_and_micro_batches() {
    assert_invariant(v3);
}

#[test]
fn the_baseline_trains_the_same_model_on_any_number_of_ranks_and_micro_batches() {
    assert_invariant(openclip);
}

#[test]
fn individual_temperatures_train_the_same_model_on_any_number_of_ranks_and_micro_batches() {
    assert_invariant(v2);
}

#[test]
fn the_sigmoid_loss_trains_the_same_model_on_any_number_of_ranks_and_micro_batches() {
    assert_invariant(siglip);
}

#[test]
fn gradients_that_are_not_finite_name_the_rank_whose_they_are() {
    let found = on_ranks(3, |comm| {
        let config = ModelConfig::from_json("test", MODEL).unwrap();
        let model = Clip::with_kind(&config, Device::Cpu, Kind::Double, 11);
        let mut gradients = Gradients::new(model.parameters(), BUCKET_BYTES).unwrap();
        let factor = if comm.rank() == 1 { f64::INFINITY } else { 1.0 };
        let parameter = model.parameters().get("ln_final.bias").unwrap();
        gradients.sum_during(comm, &mut || (parameter * factor).sum(Kind::Double).backward()).unwrap();
        let values = Values::from_array(std::array::from_fn(|_| Tensor::from(0.0)));
        let contribution = Contribution { values, stop: None, part: Part::Nothing };
        let numbers = gradients.agree(contribution, comm).unwrap().numbers;
        let agreement = AgreementOfRanks::of(&Vec::<f64>::try_from(numbers).unwrap());
        let name = agreement.first_not_finite.map(|place| gradients.names()[place].clone());
        (agreement.not_finite_on, name)
    });
    for of_rank in found {
        assert_eq!(of_rank, (vec![1], Some("ln_final.bias".to_owned())));
    }
}
