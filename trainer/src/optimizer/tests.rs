use super::*;
use crate::model::{Clip, ModelConfig, Parameter};
use crate::schedule::TauThreshold;

const ADAM: AdamOptions = AdamOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 };
const RULES: [Rule; 6] = [
    Rule::AdamW(ADAM),
    Rule::Lamb(ADAM),
    Rule::Lion { beta1: 0.9, beta2: 0.99 },
    Rule::Sgd { momentum: 0.9, is_nesterov: false },
    Rule::Sgd { momentum: 0.9, is_nesterov: true },
    Rule::Sgd { momentum: 0.0, is_nesterov: false },
];
const THRESHOLD: TauThreshold = TauThreshold { tau: 0.03, factor: 1.0 / 3.0 };

const MODEL: &str = r#"{
  "embed_dim": 12,
  "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
  "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 12, "heads": 2, "layers": 1}
}"#;

fn model() -> Clip {
    Clip::with_kind(&ModelConfig::from_json("test", MODEL).unwrap(), Device::Cpu, Kind::Double, 3)
}

fn optimizer(model: &Clip, rule: Rule) -> Optimizer {
    Optimizer::new(model.parameters(), OptimizerOptions { rule, weight_decay: 0.2, max_grad_norm: None })
}

fn rates(model: f64, temperature: f64) -> Rates {
    Rates { model, temperature, threshold: None }
}

fn gradients(model: &Clip, salt: f64) -> Vec<Tensor> {
    let of = |parameter: &Parameter| (parameter.tensor.detach() * 31.0 + salt).sin();
    model.parameters().iter().map(of).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().reshape([-1])).unwrap()
}

/// A parameter in plain numbers, moved by the formulas in the module's table.
struct Plain {
    w: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Plain {
    fn new(tensor: &Tensor) -> Self {
        let w = values(tensor);
        Self { m: vec![0.0; w.len()], v: vec![0.0; w.len()], w }
    }

    fn step(&mut self, rule: Rule, g: &[f64], t: i32, lr: f64, decay: f64) {
        let before = self.w.clone();
        let mut update = vec![0.0; g.len()];
        for i in 0..g.len() {
            let (w, m, v) = (before[i], &mut self.m[i], &mut self.v[i]);
            update[i] = match rule {
                Rule::AdamW(adam) | Rule::Lamb(adam) => {
                    *m = adam.beta1 * *m + (1.0 - adam.beta1) * g[i];
                    *v = adam.beta2 * *v + (1.0 - adam.beta2) * g[i] * g[i];
                    let (m_hat, v_hat) = (*m / (1.0 - adam.beta1.powi(t)), *v / (1.0 - adam.beta2.powi(t)));
                    m_hat / (v_hat.sqrt() + adam.eps) + decay * w
                }
                Rule::Lion { beta1, beta2 } => {
                    let sign = (beta1 * *m + (1.0 - beta1) * g[i]).signum();
                    *m = beta2 * *m + (1.0 - beta2) * g[i];
                    sign + decay * w
                }
                Rule::Sgd { momentum, is_nesterov } => {
                    let g = g[i] + decay * w;
                    *m = momentum * *m + g;
                    if is_nesterov { g + momentum * *m } else { *m }
                }
            };
        }
        let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let is_scaled = matches!(rule, Rule::Lamb(_)) && decay != 0.0;
        let ratio = if is_scaled { norm(&before) / norm(&update) } else { 1.0 };
        for (w, update) in self.w.iter_mut().zip(&update) {
            *w -= lr * ratio * update;
        }
    }
}

#[test]
fn groups_are_those_of_openclip() {
    let model = model();
    let optimizer = optimizer(&model, Rule::AdamW(ADAM));
    let kind = |name: &str| optimizer.slots.iter().find(|slot| slot.name == name).unwrap().kind;
    assert_eq!(kind("logit_scale"), GroupKind::Temperature);
    for name in ["positional_embedding", "visual.proj", "visual.conv1.weight", "token_embedding.weight"] {
        assert_eq!(kind(name), GroupKind::Decayed, "{name}");
    }
    for name in
        ["visual.class_embedding", "visual.ln_pre.weight", "transformer.resblocks.0.attn.in_proj_bias"]
    {
        assert_eq!(kind(name), GroupKind::Plain, "{name}");
    }
}

#[test]
fn steps_follow_the_formulas_with_decay_and_without() {
    // One of each group, with the decay and the rate that it gets.
    let watched =
        [("visual.proj", 0.2, 1e-2), ("visual.class_embedding", 0.0, 1e-2), ("logit_scale", 0.0, 3e-2)];
    for rule in RULES {
        let model = model();
        let mut optimizer = optimizer(&model, rule);
        let place = |name| model.parameters().iter().position(|parameter| parameter.name == name).unwrap();
        let mut expected = watched.map(|(name, ..)| Plain::new(model.parameters().get(name).unwrap()));
        for step in 1..=4 {
            let gradients = gradients(&model, f64::from(step));
            optimizer.step(&gradients, &rates(1e-2, 3e-2), None).unwrap();
            for ((name, decay, lr), plain) in watched.iter().zip(&mut expected) {
                let rule = match rule {
                    Rule::Sgd { .. } if *name == "logit_scale" => {
                        Rule::Sgd { momentum: 0.0, is_nesterov: false }
                    }
                    rule => rule,
                };
                plain.step(rule, &values(&gradients[place(*name)]), step, *lr, *decay);
                for (found, expected) in values(model.parameters().get(name).unwrap()).iter().zip(&plain.w) {
                    assert!(
                        (found - expected).abs() < 1e-12,
                        "{rule:?}, {name}, step {step}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_low_temperature_moves_by_a_part_of_the_step() {
    for rule in RULES {
        let moved = |s: f64, threshold| {
            let model = model();
            let mut optimizer = optimizer(&model, rule);
            let _ = no_grad(|| model.log_scale().shallow_clone().fill_(s));
            let rates = Rates { threshold, ..rates(0.0, 1e-2) };
            optimizer.step(&gradients(&model, 0.5), &rates, None).unwrap();
            model.log_scale().double_value(&[]) - s
        };
        for threshold in [THRESHOLD, TauThreshold { tau: 0.2, factor: 0.25 }] {
            let low = (1.0 / (threshold.tau - 0.001)).ln();
            let shortened = moved(low, None) * threshold.factor;
            assert!((moved(low, Some(threshold)) - shortened).abs() < 1e-12, "{rule:?}");
            let high = (1.0 / (threshold.tau + 0.001)).ln();
            assert_eq!(moved(high, Some(threshold)), moved(high, None), "{rule:?}");
        }
    }
}

#[test]
fn clipping_scales_all_gradients_to_the_norm_that_is_allowed() {
    let norm = |gradients: &[Tensor]| foreach_norm(gradients).unwrap().double_value(&[]);
    let clipped = |max_grad_norm| {
        let model = model();
        let options = OptimizerOptions {
            rule: Rule::Sgd { momentum: 0.0, is_nesterov: false },
            weight_decay: 0.0,
            max_grad_norm,
        };
        let gradients = gradients(&model, 0.5);
        Optimizer::new(model.parameters(), options).step(&gradients, &rates(1.0, 1.0), None).unwrap();
        let weights: Vec<Tensor> =
            model.parameters().iter().map(|parameter| parameter.tensor.detach()).collect();
        (gradients, weights)
    };
    let (whole, moved) = clipped(None);
    let before: Vec<Tensor> =
        model().parameters().iter().map(|parameter| parameter.tensor.detach()).collect();

    let max_norm = norm(&whole) / 4.0;
    let factor = max_norm / (norm(&whole) + 1e-6);
    let (scaled, moved_less) = clipped(Some(max_norm));
    assert!((norm(&scaled) - max_norm).abs() < 1e-6 * max_norm);
    for (((start, end), nearer), (gradient, shorter)) in
        before.iter().zip(&moved).zip(&moved_less).zip(whole.iter().zip(&scaled))
    {
        let near = |left: Tensor, right: Tensor| (left - right).abs().max().double_value(&[]) < 1e-12;
        assert!(near(gradient * factor, shorter.copy()));
        assert!(near((end - start) * factor, nearer - start));
    }

    let (untouched, moved_alike) = clipped(Some(norm(&whole) * 4.0));
    assert!(untouched.iter().zip(&whole).all(|(left, right)| left.equal(right)));
    assert!(moved_alike.iter().zip(&moved).all(|(left, right)| left.equal(right)));
}

#[test]
fn a_gradient_of_zero_survives_clipping() {
    let gradients = [Tensor::zeros([3], (Kind::Float, Device::Cpu))];
    clip(&gradients, 1.0).unwrap();
    assert_eq!(values(&gradients[0].to_kind(Kind::Double)), [0.0; 3]);
}

#[test]
fn a_restored_optimizer_goes_on_as_if_nothing_had_happened() {
    for rule in RULES {
        let (whole, resumed) = (model(), model());
        let mut first = optimizer(&whole, rule);
        for salt in [1.0, 2.0] {
            first.step(&gradients(&whole, salt), &rates(1e-3, 1e-3), None).unwrap();
        }
        for (from, to) in whole.parameters().iter().zip(resumed.parameters()) {
            no_grad(|| to.tensor.shallow_clone().copy_(&from.tensor));
        }
        let mut second = optimizer(&resumed, rule);
        let copied = first.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        second.restore(copied).unwrap();
        for (model, optimizer) in [(&whole, &mut first), (&resumed, &mut second)] {
            optimizer.step(&gradients(model, 3.0), &rates(1e-3, 1e-3), None).unwrap();
        }
        for (left, right) in whole.parameters().iter().zip(resumed.parameters()) {
            assert!(left.tensor.equal(&right.tensor), "{rule:?}, {}", left.name);
        }
    }
}

#[test]
fn state_has_the_names_of_pytorchs_optimizers() {
    let model = model();
    let names = |rule: Rule, parameter: &str| -> Vec<String> {
        let state = optimizer(&model, rule).state();
        let parts = state.iter().filter_map(|(name, _)| name.strip_prefix(parameter)?.strip_prefix('.'));
        parts.map(str::to_owned).collect()
    };
    for (rule, expected) in RULES.into_iter().zip([
        &["exp_avg", "exp_avg_sq", "step"][..],
        &["exp_avg", "exp_avg_sq", "step"],
        &["exp_avg"],
        &["momentum_buffer"],
        &["momentum_buffer"],
        &[],
    ]) {
        assert_eq!(names(rule, "visual.proj"), expected, "{rule:?}");
    }
    let momentum = Rule::Sgd { momentum: 0.9, is_nesterov: false };
    assert!(names(momentum, "logit_scale").is_empty());
}

#[test]
fn state_of_another_model_or_rule_is_refused_by_name() {
    let model = model();
    let mut adamw = optimizer(&model, Rule::AdamW(ADAM));
    let mut state = adamw.state();
    let (name, _) = state.remove(4);
    let message = adamw.restore(state).unwrap_err().to_string();
    assert!(message.contains(&name) && message.contains("missing"), "{message}");

    let mut lion = optimizer(&model, Rule::Lion { beta1: 0.9, beta2: 0.99 });
    let message = lion.restore(adamw.state()).unwrap_err().to_string();
    assert!(message.contains(".exp_avg_sq` is nothing that this optimizer keeps"), "{message}");
}

#[test]
fn a_step_that_is_skipped_changes_nothing_under_any_rule() {
    for rule in RULES {
        let model = model();
        let mut optimizer = optimizer(&model, rule);
        let snapshot = |optimizer: &Optimizer| -> Vec<Tensor> {
            let parameters = model.parameters().iter().map(|parameter| parameter.tensor.detach().copy());
            parameters.chain(optimizer.state().iter().map(|(_, tensor)| tensor.copy())).collect()
        };
        let rates = Rates { threshold: Some(THRESHOLD), ..rates(1e-2, 1e-2) };
        optimizer.step(&gradients(&model, 0.5), &rates, None).unwrap();
        let before = snapshot(&optimizer);
        let bad: Vec<Tensor> =
            gradients(&model, 0.5).iter().map(|gradient| gradient.full_like(f64::NAN)).collect();
        optimizer.step(&bad, &rates, Some(&Tensor::from(1f32))).unwrap();
        for (before, after) in before.iter().zip(snapshot(&optimizer)) {
            assert!(before.equal(&after), "{rule:?}");
        }
        optimizer.step(&gradients(&model, 0.5), &rates, Some(&Tensor::from(0f32))).unwrap();
        assert!(before.iter().zip(snapshot(&optimizer)).any(|(before, after)| !before.equal(&after)));
    }
}

#[test]
fn rates_that_are_read_on_the_device_are_those_of_the_step() {
    for rule in RULES.into_iter().filter(|rule| rule.is_fused()) {
        let found = [false, true].map(|on_device| {
            let model = model();
            let mut optimizer = optimizer(&model, rule);
            if on_device {
                assert!(optimizer.keep_rates_on(Device::Cpu));
            }
            // Numbers that fp32 holds exactly.
            for rate in [0.25, 0.125] {
                let rates = rates(rate, rate / 2.0);
                optimizer.set_rates(&rates);
                optimizer.step(&gradients(&model, 0.5), &rates, None).unwrap();
            }
            model.parameters().iter().flat_map(|parameter| values(&parameter.tensor)).collect::<Vec<_>>()
        });
        assert_eq!(found[0], found[1], "{rule:?}");
    }
    for rule in RULES.into_iter().filter(|rule| !rule.is_fused()) {
        assert!(!optimizer(&model(), rule).keep_rates_on(Device::Cpu), "{rule:?}");
    }
}
