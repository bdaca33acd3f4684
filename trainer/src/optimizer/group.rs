//! Groups of parameters, and what the optimizer remembers of each.

use fastclip_torch_ext::{
    AdamStep, LionStep, OnDevice, SgdStep, TorchError, foreach_lamb, foreach_lion, fused_adamw, fused_sgd,
};
use tch::{Device, Kind, Tensor};

use super::Rule;
use crate::model::{LOG_SCALE, Parameter};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupKind {
    Plain,
    Decayed,
    Temperature,
}

impl GroupKind {
    pub(super) fn of(Parameter { name, tensor, .. }: &Parameter) -> Self {
        if name == LOG_SCALE {
            Self::Temperature
        } else if tensor.dim() < 2 || ["bn", "ln", "bias"].iter().any(|part| name.contains(part)) {
            Self::Plain
        } else {
            Self::Decayed
        }
    }
}

/// Parameters that share their settings. Entry i of each list belongs to one parameter; lists that the rule has no use
/// for stay empty.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) params: Vec<Tensor>,
    rule: Rule,
    weight_decay: f64,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
    momentum_buffers: Vec<Tensor>,
}

impl Group {
    pub(super) fn new(rule: Rule, weight_decay: f64) -> Self {
        let [params, exp_avgs, exp_avg_sqs, steps, momentum_buffers] = [(); 5].map(|()| Vec::new());
        Self { params, rule, weight_decay, exp_avgs, exp_avg_sqs, steps, momentum_buffers }
    }

    /// Adds a parameter whose state is zero; returns its place.
    pub(super) fn push(&mut self, tensor: &Tensor) -> usize {
        let count = |device| Tensor::zeros([] as [i64; 0], (Kind::Float, device));
        match self.rule {
            Rule::AdamW(_) => {
                self.exp_avgs.push(tensor.zeros_like());
                self.exp_avg_sqs.push(tensor.zeros_like());
                self.steps.push(count(tensor.device()));
            }
            Rule::Lamb(_) => {
                self.exp_avgs.push(tensor.zeros_like());
                self.exp_avg_sqs.push(tensor.zeros_like());
                // Without a fused kernel it is the host that computes with counts.
                self.steps.push(count(Device::Cpu));
            }
            Rule::Lion { .. } => self.exp_avgs.push(tensor.zeros_like()),
            Rule::Sgd { momentum: 0.0, .. } => {}
            Rule::Sgd { .. } => self.momentum_buffers.push(tensor.zeros_like()),
        }
        self.params.push(tensor.shallow_clone());
        self.params.len() - 1
    }

    /// Takes a step; `grads` are in the order in which parameters were added. What `on_device` says goes for rules that
    /// [are fused](Rule::is_fused), the others do not look at it.
    pub(super) fn step(&self, grads: &[Tensor], lr: f64, on_device: OnDevice<'_>) -> Result<(), TorchError> {
        let Self { params, exp_avgs, exp_avg_sqs, steps, momentum_buffers, weight_decay, .. } = self;
        let weight_decay = *weight_decay;
        match self.rule {
            Rule::AdamW(adam) | Rule::Lamb(adam) => {
                let step = AdamStep {
                    params,
                    grads,
                    exp_avgs,
                    exp_avg_sqs,
                    steps,
                    lr,
                    beta1: adam.beta1,
                    beta2: adam.beta2,
                    weight_decay,
                    eps: adam.eps,
                };
                if let Rule::Lamb(_) = self.rule {
                    foreach_lamb(&step)
                } else {
                    fused_adamw(&step, on_device)
                }
            }
            Rule::Lion { beta1, beta2 } => {
                foreach_lion(&LionStep { params, grads, exp_avgs, lr, beta1, beta2, weight_decay })
            }
            Rule::Sgd { momentum, is_nesterov } => {
                let step =
                    SgdStep { params, grads, momentum_buffers, lr, momentum, weight_decay, is_nesterov };
                fused_sgd(&step, on_device)
            }
        }
    }

    /// Returns what is remembered of a parameter, under the names that PyTorch's optimizers use.
    pub(super) fn state_of(&self, index: usize) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let lists = [
            ("exp_avg", &self.exp_avgs),
            ("exp_avg_sq", &self.exp_avg_sqs),
            ("step", &self.steps),
            ("momentum_buffer", &self.momentum_buffers),
        ];
        lists.into_iter().filter_map(move |(part, list)| Some((part, list.get(index)?)))
    }
}
