//! AdamW over OpenCLIP's groups of parameters.
//!
//! | group | holds | weight decay | learning rate |
//! |---|---|---|---|
//! | plain | fewer than two dimensions, or `bn`, `ln` or `bias` in the name | none | of the model |
//! | decayed | all others, positional embeddings among them | `wd` | of the model |
//! | temperature | `logit_scale` | none | its own |
//!
//! This is the rule of OpenCLIP's stable releases and of FastCLIP, whose recipes we want to reproduce.

use std::collections::HashMap;

use fastclip_torch_ext::{FusedAdamW, TorchError, fused_adamw};
use tch::{Kind, Tensor, no_grad};

use crate::model::{LOG_SCALE, Parameter, Parameters};
use crate::schedule::Rates;

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// How much of the running mean stays in a step.
    pub beta1: f64,
    /// How much of the running mean of squares stays in a step.
    pub beta2: f64,
    /// Added to the root in the denominator.
    pub eps: f64,
    /// Decoupled weight decay of the parameters that have it.
    pub weight_decay: f64,
}

/// AdamW and its running means.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    plain: Group,
    decayed: Group,
    temperature: Group,
    /// Names in the order of the model, to save and restore by.
    slots: Vec<Slot>,
}

/// Parameters that share their settings. Entry i of each list belongs to one parameter.
#[derive(Debug, Default)]
struct Group {
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

/// Where a parameter's state is kept.
#[derive(Debug)]
struct Slot {
    name: String,
    kind: GroupKind,
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupKind {
    Plain,
    Decayed,
    Temperature,
}

impl GroupKind {
    fn of(Parameter { name, tensor }: &Parameter) -> Self {
        if name == LOG_SCALE {
            Self::Temperature
        } else if tensor.dim() < 2 || ["bn", "ln", "bias"].iter().any(|part| name.contains(part)) {
            Self::Plain
        } else {
            Self::Decayed
        }
    }
}

/// A step or a restore that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// libtorch refused.
    #[error("could not take a step of the optimizer")]
    Torch(#[from] TorchError),
    /// Saved state that does not belong to this model.
    #[error("saved optimizer state `{name}` {reason}")]
    State {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Group {
    fn push(&mut self, tensor: &Tensor) -> usize {
        self.params.push(tensor.shallow_clone());
        self.exp_avgs.push(tensor.zeros_like());
        self.exp_avg_sqs.push(tensor.zeros_like());
        self.steps.push(Tensor::zeros([] as [i64; 0], (Kind::Float, tensor.device())));
        self.params.len() - 1
    }

    fn step(
        &self,
        grads: &[Tensor],
        lr: f64,
        weight_decay: f64,
        options: AdamWOptions,
    ) -> Result<(), TorchError> {
        no_grad(|| {
            fused_adamw(&FusedAdamW {
                params: &self.params,
                grads,
                exp_avgs: &self.exp_avgs,
                exp_avg_sqs: &self.exp_avg_sqs,
                steps: &self.steps,
                lr,
                beta1: options.beta1,
                beta2: options.beta2,
                weight_decay,
                eps: options.eps,
            })
        })
    }
}

impl AdamW {
    /// Starts with running means of zero.
    pub fn new(parameters: &Parameters, options: AdamWOptions) -> Self {
        let [mut plain, mut decayed, mut temperature] = [(); 3].map(|()| Group::default());
        let slots = parameters
            .iter()
            .map(|parameter| {
                let kind = GroupKind::of(parameter);
                let group = match kind {
                    GroupKind::Plain => &mut plain,
                    GroupKind::Decayed => &mut decayed,
                    GroupKind::Temperature => &mut temperature,
                };
                Slot { name: parameter.name.clone(), kind, index: group.push(&parameter.tensor) }
            })
            .collect();
        Self { options, plain, decayed, temperature, slots }
    }

    /// Takes a step; `gradients` are in the order of the model's parameters.
    ///
    /// # Errors
    /// When libtorch refuses the tensors.
    pub fn step(&mut self, gradients: &[Tensor], rates: &Rates) -> Result<(), OptimizerError> {
        let of = |kind: GroupKind| -> Vec<Tensor> {
            let slots = self.slots.iter().zip(gradients);
            slots
                .filter(|(slot, _)| slot.kind == kind)
                .map(|(_, gradient)| gradient.shallow_clone())
                .collect()
        };
        let options = self.options;
        self.plain.step(&of(GroupKind::Plain), rates.model, 0.0, options)?;
        self.decayed.step(&of(GroupKind::Decayed), rates.model, options.weight_decay, options)?;
        self.step_temperature(&of(GroupKind::Temperature), rates)
    }

    /// Without weight decay a step is proportional to its rate. So the threshold on τ, which is on the device, can be
    /// applied there to the finished step; choosing the rate beforehand would make every step wait for τ.
    fn step_temperature(&mut self, gradients: &[Tensor], rates: &Rates) -> Result<(), OptimizerError> {
        let before: Vec<Tensor> = self.temperature.params.iter().map(|s| s.detach().copy()).collect();
        self.temperature.step(gradients, rates.temperature, 0.0, self.options)?;
        let Some(threshold) = rates.threshold else { return Ok(()) };
        no_grad(|| {
            for (s, before) in self.temperature.params.iter_mut().zip(&before) {
                let shortened = before + (&*s - before) * threshold.factor;
                let is_low = before.ge(-threshold.tau.ln());
                s.copy_(&shortened.where_self(&is_low, s));
            }
        });
        Ok(())
    }

    fn state_of(&self, slot: &Slot) -> [(&'static str, &Tensor); 3] {
        let group = match slot.kind {
            GroupKind::Plain => &self.plain,
            GroupKind::Decayed => &self.decayed,
            GroupKind::Temperature => &self.temperature,
        };
        [
            ("exp_avg", &group.exp_avgs[slot.index]),
            ("exp_avg_sq", &group.exp_avg_sqs[slot.index]),
            ("step", &group.steps[slot.index]),
        ]
    }

    /// Returns the state by name, `<parameter>.exp_avg` and so on, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| {
            self.state_of(slot)
                .map(|(part, tensor)| (format!("{}.{part}", slot.name), tensor.shallow_clone()))
        };
        self.slots.iter().flat_map(named).collect()
    }

    /// Takes over saved state.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or belongs to no parameter.
    pub fn restore(&mut self, state: Vec<(String, Tensor)>) -> Result<(), OptimizerError> {
        let mut saved: HashMap<String, Tensor> = state.into_iter().collect();
        for slot in &self.slots {
            for (part, tensor) in self.state_of(slot) {
                let name = format!("{}.{part}", slot.name);
                let refuse = |name, reason| OptimizerError::State { name, reason };
                let Some(found) = saved.remove(&name) else {
                    return Err(refuse(name, "is missing".to_owned()));
                };
                if found.size() != tensor.size() {
                    let reason =
                        format!("has shape {:?}, this model needs {:?}", found.size(), tensor.size());
                    return Err(refuse(name, reason));
                }
                no_grad(|| tensor.shallow_clone().copy_(&found));
            }
        }
        match saved.into_keys().min() {
            Some(name) => Err(OptimizerError::State {
                name,
                reason: "belongs to no parameter of this model".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::{Clip, ModelConfig};
    use crate::schedule::STEP_THRESHOLD;

    const OPTIONS: AdamWOptions = AdamWOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.2 };

    fn model() -> Clip {
        Clip::with_kind(&ModelConfig::load("toy").unwrap(), Device::Cpu, Kind::Double, 3)
    }

    fn rates(model: f64, temperature: f64) -> Rates {
        Rates { model, temperature, threshold: None }
    }

    fn gradients(model: &Clip, salt: f64) -> Vec<Tensor> {
        let of = |parameter: &Parameter| (parameter.tensor.detach() * 31.0 + salt).sin();
        model.parameters().iter().map(of).collect()
    }

    #[test]
    fn groups_are_those_of_openclip() {
        let model = model();
        let optimizer = AdamW::new(model.parameters(), OPTIONS);
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
    fn steps_follow_the_formula_of_adamw() {
        let model = model();
        let mut optimizer = AdamW::new(model.parameters(), OPTIONS);
        let names = ["visual.proj", "visual.class_embedding", "logit_scale"];
        let mut expected: Vec<_> =
            names.iter().map(|name| model.parameters().get(name).unwrap().detach().copy()).collect();
        let mut moments: Vec<_> = expected.iter().map(|w| (w.zeros_like(), w.zeros_like())).collect();
        for step in 1..=3 {
            let gradients = gradients(&model, f64::from(step));
            optimizer.step(&gradients, &rates(1e-2, 3e-2)).unwrap();
            for (index, name) in names.iter().enumerate() {
                let place = model.parameters().iter().position(|parameter| parameter.name == *name).unwrap();
                let (lr, decay) = [(1e-2, 0.2), (1e-2, 0.0), (3e-2, 0.0)][index];
                let (m, v) = &mut moments[index];
                *m = &*m * 0.9 + &gradients[place] * 0.1;
                *v = &*v * 0.98 + gradients[place].square() * 0.02;
                let (m_hat, v_hat) = (&*m / (1.0 - 0.9f64.powi(step)), &*v / (1.0 - 0.98f64.powi(step)));
                let w = &expected[index];
                expected[index] = w * (1.0 - lr * decay) - m_hat / (v_hat.sqrt() + 1e-6) * lr;
                let found = model.parameters().get(name).unwrap();
                let difference = (found - &expected[index]).abs().max().double_value(&[]);
                assert!(difference < 1e-12, "{name}, step {step}: {difference:e}");
            }
        }
    }

    #[test]
    fn a_low_temperature_moves_by_a_third() {
        let moved = |s: f64, threshold| {
            let model = model();
            let mut optimizer = AdamW::new(model.parameters(), OPTIONS);
            let _ = no_grad(|| model.log_scale().shallow_clone().fill_(s));
            let rates = Rates { threshold, ..rates(0.0, 1e-2) };
            optimizer.step(&gradients(&model, 0.5), &rates).unwrap();
            model.log_scale().double_value(&[]) - s
        };
        let low = (1.0f64 / 0.029).ln();
        assert!((moved(low, Some(STEP_THRESHOLD)) - moved(low, None) / 3.0).abs() < 1e-12);
        let high = (1.0f64 / 0.031).ln();
        assert_eq!(moved(high, Some(STEP_THRESHOLD)), moved(high, None));
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_nothing_had_happened() {
        let (whole, resumed) = (model(), model());
        let mut first = AdamW::new(whole.parameters(), OPTIONS);
        for salt in [1.0, 2.0] {
            first.step(&gradients(&whole, salt), &rates(1e-3, 1e-3)).unwrap();
        }
        for (from, to) in whole.parameters().iter().zip(resumed.parameters()) {
            no_grad(|| to.tensor.shallow_clone().copy_(&from.tensor));
        }
        let mut second = AdamW::new(resumed.parameters(), OPTIONS);
        let copied = first.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        second.restore(copied).unwrap();
        for (model, optimizer) in [(&whole, &mut first), (&resumed, &mut second)] {
            optimizer.step(&gradients(model, 3.0), &rates(1e-3, 1e-3)).unwrap();
        }
        for (left, right) in whole.parameters().iter().zip(resumed.parameters()) {
            assert!(left.tensor.equal(&right.tensor), "{}", left.name);
        }
    }

    #[test]
    fn state_of_another_model_is_refused_by_name() {
        let mut optimizer = AdamW::new(model().parameters(), OPTIONS);
        let mut state = optimizer.state();
        let (name, _) = state.remove(4);
        let message = optimizer.restore(state).unwrap_err().to_string();
        assert!(message.contains(&name) && message.contains("missing"), "{message}");
    }
}
