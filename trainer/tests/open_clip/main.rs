//! The same model in open_clip: what it computes from the same weights, what it learns, and how it begins.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;

use fastclip_schemas::SampleId;
use fastclip_testkit::Python;
use fastclip_trainer::distributed::Alone;
use fastclip_trainer::gradients::Gradients;
use fastclip_trainer::model::{Clip, ModelConfig, ModelCost, Pass};
use fastclip_trainer::objective::OpenClip;
use fastclip_trainer::optimizer::{AdamOptions, Optimizer, OptimizerOptions, Rule};
use fastclip_trainer::schedule::{LearningRate, Schedule};
use fastclip_trainer::step::{Inputs, Trainer};
use tch::{Device, Kind, Tensor};

const REFERENCE: &str = include_str!("reference.py");

/// A ViT with layer scale and a small ResNet, where real sizes would take long.
const TINY_VIT: &str = r#"{
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "ls_init_value": 0.1},
    "text_cfg": {"context_length": 12, "vocab_size": 100, "width": 16, "heads": 2, "layers": 2, "ls_init_value": 0.1}
}"#;
const TINY_RESNET: &str = r#"{
    "embed_dim": 16, "quick_gelu": true,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 16, "patch_size": null},
    "text_cfg": {"context_length": 12, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
}"#;

/// A model, and the two ways to describe it to open_clip.
struct Subject {
    name: &'static str,
    json: &'static str,
    model: Clip,
    folder: tempfile::TempDir,
}

impl Subject {
    fn named(name: &'static str, seed: u64) -> Self {
        let model = Clip::new(&ModelConfig::load(name).unwrap(), Device::Cpu, seed);
        Self { name, json: "", model, folder: tempfile::tempdir().unwrap() }
    }

    fn described(json: &'static str, kind: Kind, seed: u64) -> Self {
        let config = ModelConfig::from_json("test", json).unwrap();
        let model = Clip::with_kind(&config, Device::Cpu, kind, seed);
        Self { name: "none", json, model, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.folder.path().join(file)
    }

    /// Hands model and inputs to open_clip and returns what it wrote.
    fn ask(&self, what: &str, inputs: &[(&str, Tensor)]) -> HashMap<String, Tensor> {
        self.model.write_folder(self.folder.path()).unwrap();
        Tensor::write_safetensors(inputs, self.path("inputs.safetensors")).unwrap();
        let folder = self.folder.path().to_str().unwrap();
        Python::with_torch().run(REFERENCE, &[what, folder, self.name, self.json]);
        Tensor::read_safetensors(self.path("reference.safetensors")).unwrap().into_iter().collect()
    }

    /// Normalised pixels and tokens, the same in every run.
    fn inputs(&self, shape: &[i64], seed: i64) -> (Tensor, Tensor) {
        let config = self.model.config();
        let side = config.vision_cfg.image_size;
        let images = noise(&[shape, &[3, side, side]].concat(), seed);
        let (length, vocabulary) = (config.text_cfg.context_length, config.text_cfg.vocab_size);
        let words = noise(&[shape, &[length]].concat(), seed + 1).abs() * 1e4;
        let words = words.to_kind(Kind::Int64).remainder(vocabulary - 2);
        // Captions of different lengths: an end token, and zeros after it.
        let number: i64 = shape.iter().product();
        let ends = (Tensor::arange(number, (Kind::Int64, Device::Cpu)) * 3).remainder(length - 2) + 2;
        let ends = ends.view([shape, &[1]].concat().as_slice());
        let place = Tensor::arange(length, (Kind::Int64, Device::Cpu));
        let words = words.where_scalarother(&place.lt_tensor(&ends), 0);
        let tokens = (place.eq_tensor(&ends).to_kind(Kind::Int64) * (vocabulary - 1)) + words;
        (images, tokens)
    }
}

/// Numbers around zero that no generator has to make: libtorch's may differ between versions.
fn noise(shape: &[i64], seed: i64) -> Tensor {
    let number: i64 = shape.iter().product();
    let place = Tensor::arange(number, (Kind::Double, Device::Cpu)) + seed as f64 * 0.37;
    ((place * 12.9898).sin() * 43758.5453).frac().to_kind(Kind::Float).view(shape) * 1.5
}

/// Largest difference, over the largest value of what is expected.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let largest = expected.abs().max().double_value(&[]).max(f64::MIN_POSITIVE);
    (found - expected).abs().max().double_value(&[]) / largest
}

#[track_caller]
fn assert_close(name: &str, found: &Tensor, expected: &Tensor, bound: f64) {
    let error = relative_error(found, expected);
    assert!(error <= bound, "{name}: relative error {error:e}, at most {bound:e}");
}

/// InfoNCE as OpenCLIP computes it.
fn contrast(image: &Tensor, text: &Tensor, scale: &Tensor) -> Tensor {
    let logits = image.matmul(&text.transpose(0, 1)) * scale;
    let labels = Tensor::arange(image.size()[0], (Kind::Int64, Device::Cpu));
    let loss = |logits: &Tensor| logits.cross_entropy_for_logits(&labels);
    (loss(&logits) + loss(&logits.transpose(0, 1))) / 2.0
}

fn computes_the_same(subject: &Subject) {
    let (images, tokens) = subject.inputs(&[4], 1);
    let expected =
        subject.ask("compare", &[("images", images.shallow_clone()), ("tokens", tokens.shallow_clone())]);
    let model = &subject.model;
    tch::no_grad(|| {
        assert_close("image", &model.encode_image(&images, Pass::Evaluation), &expected["image"], 1e-5);
        assert_close("text", &model.encode_text(&tokens), &expected["text"], 1e-5);
    });
    let image = model.encode_image(&images, Pass::Training);
    let loss = contrast(&image, &model.encode_text(&tokens), &model.logit_scale());
    loss.backward();
    assert_close("loss", &loss.detach(), &expected["loss"], 1e-5);
    // A parameter that hardly matters has a gradient of rounding errors: what counts is the whole gradient.
    let largest = |tensors: &mut dyn Iterator<Item = &Tensor>| {
        tensors.map(|t| t.abs().max().double_value(&[])).fold(0.0, f64::max)
    };
    let scale =
        largest(&mut expected.iter().filter(|(name, _)| name.starts_with("gradient")).map(|(_, t)| t));
    for parameter in model.parameters() {
        let expected = &expected[&format!("gradient {}", parameter.name)];
        let difference = (parameter.tensor.grad() - expected).abs().max().double_value(&[]);
        let own = expected.abs().max().double_value(&[]);
        assert!(
            difference <= 1e-4 * own + 1e-6 * scale,
            "gradient of {}: {difference:e} off, largest value {own:e}",
            parameter.name
        );
    }
    for buffer in model.parameters().buffers() {
        assert_close(&buffer.name, &buffer.tensor, &expected[&format!("buffer {}", buffer.name)], 1e-5);
    }
}

#[test]
fn vit_b_32_computes_what_open_clip_computes() {
    computes_the_same(&Subject::named("ViT-B-32", 1));
}

#[test]
fn vit_b_16_computes_what_open_clip_computes() {
    computes_the_same(&Subject::named("ViT-B-16", 2));
}

#[test]
fn quick_gelu_is_that_of_open_clip() {
    computes_the_same(&Subject::named("ViT-B-32-quickgelu", 3));
}

#[test]
fn rn50_computes_what_open_clip_computes() {
    computes_the_same(&Subject::named("RN50", 4));
}

#[test]
fn tiny_models_of_every_kind_compute_what_open_clip_computes() {
    computes_the_same(&Subject::described(TINY_VIT, Kind::Float, 5));
    computes_the_same(&Subject::described(TINY_RESNET, Kind::Float, 6));
}

fn learns_the_same(json: &'static str) {
    const STEPS: i64 = 20;
    let subject = Subject::described(json, Kind::Double, 7);
    let (images, tokens) = subject.inputs(&[STEPS, 8], 3);
    let images = images.to_kind(Kind::Double);
    let expected =
        subject.ask("trajectory", &[("images", images.shallow_clone()), ("tokens", tokens.shallow_clone())]);
    let options = OptimizerOptions {
        rule: Rule::AdamW(AdamOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 }),
        weight_decay: 0.2,
        max_grad_norm: None,
    };
    let model = subject.model;
    let mut trainer = Trainer {
        optimizer: Optimizer::new(model.parameters(), options),
        objective: Box::new(OpenClip::new(Default::default())),
        schedule: Schedule {
            model: LearningRate::constant(1e-3),
            temperature: LearningRate::constant(1e-3),
            threshold: None,
        },
        gradients: Gradients::new(model.parameters(), NonZeroUsize::MAX).unwrap(),
        num_micro_batches: NonZeroUsize::MIN,
        readback: Trainer::readback(&model, 1),
        graphs: None,
        model,
        step: 0,
    };
    let ids: Vec<SampleId> = (0..8).map(SampleId).collect();
    for step in 0..STEPS {
        let inputs = Inputs {
            images: images.get(step),
            tokens: tokens.get(step),
            ids: &ids,
            ids_on_device: None,
            epoch: 0,
        };
        trainer.step(&inputs, None, &Alone::new()).unwrap().read().unwrap();
    }
    for parameter in trainer.model.parameters() {
        assert_close(&parameter.name, &parameter.tensor.detach(), &expected[&parameter.name], 1e-9);
    }
}

#[test]
fn twenty_steps_of_adamw_lead_where_open_clip_gets() {
    learns_the_same(TINY_VIT);
    learns_the_same(TINY_RESNET);
}

/// Statistics of every tensor of a new model as open_clip draws it.
fn initial(name: &str) -> HashMap<String, [f64; 4]> {
    serde_json::from_str(&Python::with_torch().run(REFERENCE, &["initial", "", name, ""])).unwrap()
}

fn begins_alike(name: &'static str) {
    let expected = initial(name);
    let subject = Subject::named(name, 8);
    assert_eq!(subject.model.parameters().state().count(), expected.len());
    for parameter in subject.model.parameters().state() {
        let values = parameter.tensor.detach().to_kind(Kind::Double);
        let [mean, spread, least, largest] = expected[&parameter.name];
        let found = [values.mean(None::<Kind>), values.std(false), values.min(), values.max()];
        let [found_mean, found_spread, found_least, found_largest] =
            found.map(|value| value.double_value(&[]));
        let name = &parameter.name;
        if spread == 0.0 {
            assert_eq!(
                [found_least, found_largest],
                [least, largest].map(|value| f64::from(value as f32)),
                "{name}"
            );
            continue;
        }
        // Both are drawn: five standard errors of a difference, of the mean and of the spread.
        let error = spread / (values.numel() as f64).sqrt();
        assert!((found_mean - mean).abs() < 5.0 * 2f64.sqrt() * error, "{name}: mean {found_mean}, {mean}");
        assert!((found_spread - spread).abs() < 5.0 * error, "{name}: spread {found_spread}, {spread}");
        // A uniform distribution ends somewhere; a normal one of as many values goes about as far.
        let reach = |least: f64, largest: f64| largest.max(-least);
        let ratio = reach(found_least, found_largest) / reach(least, largest);
        assert!((0.6..1.6).contains(&ratio), "{name}: reaches {ratio} times as far");
    }
}

#[test]
fn new_vits_are_drawn_as_open_clip_draws_them() {
    begins_alike("ViT-B-32");
    begins_alike("ViT-B-16");
}

#[test]
fn new_quick_gelu_models_are_drawn_as_open_clip_draws_them() {
    begins_alike("ViT-B-32-quickgelu");
}

#[test]
fn new_resnets_are_drawn_as_open_clip_draws_them() {
    begins_alike("RN50");
}

#[test]
fn operations_are_those_that_pytorch_counts() {
    for name in ["ViT-B-32", "ViT-B-16", "RN50"] {
        let [image, text]: [u64; 2] =
            serde_json::from_str(&Python::with_torch().run(REFERENCE, &["flops", "", name, ""])).unwrap();
        let cost = ModelCost::of(&ModelConfig::load(name).unwrap());
        // OpenCLIP's attention pool lets all 49 places ask, too, and projects what they get.
        let unused = if name == "RN50" { 49 * 2 * (2048 * 2048 + 50 * 2 * 2048 + 2048 * 1024) } else { 0 };
        assert_eq!((cost.image.flops, cost.text.flops), (image - unused, text), "{name}");
    }
}

#[test]
fn every_built_in_model_is_that_of_open_clip() {
    let names: Vec<String> =
        ModelConfig::built_in_names().map(str::to_owned).filter(|name| name != "toy").collect();
    let names: Vec<String> =
        names.iter().flat_map(|name| [name.clone(), format!("{name}-quickgelu")]).collect();
    let mut arguments = vec!["configs".to_owned()];
    arguments.extend(names.iter().cloned());
    let found: HashMap<String, serde_json::Value> =
        serde_json::from_str(&Python::with_torch().run(REFERENCE, &arguments)).unwrap();
    let mut compared = 0;
    for name in &names {
        // Not every model has a variant of its own with another activation; every plain one is there.
        let theirs = &found[name];
        if theirs.is_null() {
            assert!(name.ends_with("-quickgelu"), "open_clip has no {name}");
            continue;
        }
        let theirs = ModelConfig::from_json(name, &theirs.to_string()).unwrap();
        assert_eq!(ModelConfig::load(name).unwrap(), theirs, "{name}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn a_checkpoint_is_found_by_open_clip_as_a_local_folder() {
    let subject = Subject::described(TINY_RESNET, Kind::Float, 9);
    subject.model.write_folder(subject.folder.path()).unwrap();
    let script = "import sys, open_clip\nmodel, _, _ = open_clip.create_model_and_transforms('local-dir:' + sys.argv[1])\n\
                  print(sum(p.numel() for p in model.parameters()))";
    let folder: &Path = subject.folder.path();
    let printed = Python::with_torch().run(script, &[folder]);
    assert_eq!(printed.trim().parse::<usize>().unwrap(), subject.model.parameters().numel());
}
