//! Optimizers over OpenCLIP's groups of parameters.
//!
//! | group | holds | weight decay | learning rate |
//! |---|---|---|---|
//! | plain | fewer than two dimensions, or `bn`, `ln` or `bias` in the name | none | of the model |
//! | decayed | all others, positional embeddings among them | `wd` | of the model |
//! | temperature | `logit_scale` | none | its own |
//!
//! This is the rule of OpenCLIP's stable releases and of FastCLIP, whose recipes we want to reproduce.
//!
//! | rule | step, for a parameter w with gradient g and decay λ | remembers |
//! |---|---|---|
//! | AdamW | w ← w − η λ w − η r | m ← β1 m + (1−β1) g, v ← β2 v + (1−β2) g², the number t of steps |
//! | LAMB | w ← w − η φ (r + λ w), φ = ‖w‖ / ‖r + λ w‖ if λ ≠ 0, else 1 | the same |
//! | Lion | w ← w − η λ w − η sign(β1 m + (1−β1) g) | m ← β2 m + (1−β2) g, after the step |
//! | SGD | w ← w − η b; with Nesterov w − η (g + λ w + μ b) | b ← μ b + g + λ w |
//!
//! η is the learning rate, μ the momentum, and r = m/(1−β1^t) / (√(v/(1−β2^t)) + ε). φ is 1 where one of its norms is 0.

mod group;
mod rule;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use fastclip_torch_ext::{OnDevice, TorchError, foreach_mul, foreach_norm};
use tch::{Device, Kind, Tensor, no_grad};

use crate::model::Parameters;
use crate::schedule::Rates;
use group::{Group, GroupKind};

pub use rule::{AdamOptions, Rule};

/// Settings of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerOptions {
    /// How a gradient becomes a step.
    pub rule: Rule,
    /// Weight decay of the parameters that have it.
    pub weight_decay: f64,
    /// Euclidean norm of all gradients together, the temperature's among them, above which they are scaled down to it.
    pub max_grad_norm: Option<f64>,
}

/// A rule at work on a model, and what it remembers from step to step.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    /// Those of model and temperature, where steps read them on the device.
    rates: Option<[Tensor; 2]>,
    max_grad_norm: Option<f64>,
    plain: Group,
    decayed: Group,
    temperature: Group,
    /// Names in the order of the model, to save and restore by.
    slots: Vec<Slot>,
}

/// Where a parameter's state is kept.
#[derive(Debug)]
struct Slot {
    name: String,
    kind: GroupKind,
    index: usize,
}

/// A step or a restore that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// libtorch refused.
    #[error("could not take a step of the optimizer")]
    Torch(#[from] TorchError),
    /// Saved state that does not belong to this model or rule.
    #[error("saved optimizer state `{name}` {reason}")]
    State {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Optimizer {
    /// Starts with a state of zeros.
    pub fn new(parameters: &Parameters, options: OptimizerOptions) -> Self {
        let OptimizerOptions { rule, weight_decay, max_grad_norm } = options;
        let mut optimizer = Self {
            rule,
            rates: None,
            max_grad_norm,
            plain: Group::new(rule, 0.0),
            decayed: Group::new(rule, weight_decay),
            temperature: Group::new(rule.for_temperature(), 0.0),
            slots: Vec::with_capacity(parameters.len()),
        };
        for parameter in parameters {
            let kind = GroupKind::of(parameter);
            let group = match kind {
                GroupKind::Plain => &mut optimizer.plain,
                GroupKind::Decayed => &mut optimizer.decayed,
                GroupKind::Temperature => &mut optimizer.temperature,
            };
            let index = group.push(&parameter.tensor);
            optimizer.slots.push(Slot { name: parameter.name.clone(), kind, index });
        }
        optimizer
    }

    /// Lets steps read their rates on the device, in fp32, so that one that was recorded can be taken again with others.
    /// Only rules that [are fused](Rule::is_fused) can; returns whether this one does.
    pub fn keep_rates_on(&mut self, device: Device) -> bool {
        if self.rule.is_fused() {
            let rate = || Tensor::zeros([] as [i64; 0], (Kind::Float, device));
            self.rates = Some([rate(), rate()]);
        }
        self.rates.is_some()
    }

    /// Writes the rates of the step that follows to where it reads them, if that is on the device.
    pub fn set_rates(&mut self, rates: &Rates) {
        if let Some([model, temperature]) = &mut self.rates {
            let _ = model.fill_(rates.model);
            let _ = temperature.fill_(rates.temperature);
        }
    }

    /// Takes a step; `gradients` are in the order of the model's parameters, and are scaled in place if they are clipped.
    /// Where `skip`, `[]` in fp32, is 1 when the device comes to it, nothing changes but the gradients.
    ///
    /// # Errors
    /// When libtorch refuses the tensors.
    pub fn step(
        &mut self,
        gradients: &[Tensor],
        rates: &Rates,
        skip: Option<&Tensor>,
    ) -> Result<(), OptimizerError> {
        if let (Some(skip), false) = (skip, self.rule.is_fused()) {
            // Host–device sync: these rules consist of many operations, none of which can be left out on the device.
            if skip.double_value(&[]) != 0.0 {
                return Ok(());
            }
        }
        if let Some(max_norm) = self.max_grad_norm {
            clip(gradients, max_norm)?;
        }
        let of = |kind: GroupKind| -> Vec<Tensor> {
            let slots = self.slots.iter().zip(gradients);
            slots
                .filter(|(slot, _)| slot.kind == kind)
                .map(|(_, gradient)| gradient.shallow_clone())
                .collect()
        };
        let [model, temperature] = match &self.rates {
            Some([model, temperature]) => [Some(model), Some(temperature)],
            None => [None, None],
        };
        let on_device = |lr| OnDevice { lr, skip };
        self.plain.step(&of(GroupKind::Plain), rates.model, on_device(model))?;
        self.decayed.step(&of(GroupKind::Decayed), rates.model, on_device(model))?;
        self.step_temperature(&of(GroupKind::Temperature), rates, on_device(temperature))
    }

    /// Without weight decay a step of any rule is proportional to its rate. So the threshold on τ, which is on the
    /// device, can be applied there to the finished step; choosing the rate beforehand would make every step wait for τ.
    fn step_temperature(
        &self,
        gradients: &[Tensor],
        rates: &Rates,
        on_device: OnDevice<'_>,
    ) -> Result<(), OptimizerError> {
        let before: Vec<Tensor> = self.temperature.params.iter().map(|s| s.detach().copy()).collect();
        self.temperature.step(gradients, rates.temperature, on_device)?;
        let Some(threshold) = rates.threshold else { return Ok(()) };
        no_grad(|| {
            for (s, before) in self.temperature.params.iter().zip(&before) {
                let shortened = before + (s - before) * threshold.factor;
                let is_low = before.ge(-threshold.tau.ln());
                s.shallow_clone().copy_(&shortened.where_self(&is_low, s));
            }
        });
        Ok(())
    }

    fn state_of(&self, slot: &Slot) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let group = match slot.kind {
            GroupKind::Plain => &self.plain,
            GroupKind::Decayed => &self.decayed,
            GroupKind::Temperature => &self.temperature,
        };
        group.state_of(slot.index)
    }

    /// Returns the state by name, `<parameter>.exp_avg` and so on, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot| {
            self.state_of(slot)
                .map(move |(part, tensor)| (format!("{}.{part}", slot.name), tensor.shallow_clone()))
        };
        self.slots.iter().flat_map(named).collect()
    }

    /// Takes over saved state.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not one that this optimizer keeps.
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
                reason: "is nothing that this optimizer keeps of a parameter of this model".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// Scales gradients in place so that their norm over all is at most `max_norm`. The factor is computed where they are: no
/// host waits for it.
fn clip(gradients: &[Tensor], max_norm: f64) -> Result<(), TorchError> {
    // As PyTorch's `clip_grad_norm_` has it: a gradient of zero divides by something, and one of exactly `max_norm` is
    // scaled ever so slightly.
    let factor = max_norm / (foreach_norm(gradients)? + 1e-6);
    foreach_mul(gradients, &factor.clamp_max(1.0))
}
