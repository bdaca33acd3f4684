//! Settings of optimizer and learning rates, checked against each other.

use super::{ConfigError, OptimizerChoice, RatesConfig, Settings, name_of, refuse};
use crate::model::Layers;
use crate::optimizer::{AdamOptions, OptimizerOptions, Rule};
use crate::schedule::{Decay, LearningRate, ModelSchedule, Schedule, TauThreshold, TemperatureSchedule};

/// Fills in the defaults that depend on the optimizer and on the image tower: OpenCLIP's for ViTs and for ResNets.
pub(super) fn optimizer(settings: &mut Settings, tower: Layers) -> Result<OptimizerOptions, ConfigError> {
    let (default_beta2, default_eps) = match tower {
        Layers::Blocks(_) => (0.98, 1e-6),
        Layers::Stages(_) => (0.999, 1e-8),
    };
    let default_beta2 = match settings.optimizer {
        // That of Lion's paper: where the others keep a mean of squares, it keeps the mean of gradients itself.
        OptimizerChoice::Lion => 0.99,
        _ => default_beta2,
    };
    let beta2 = *settings.beta2.get_or_insert(default_beta2);
    let eps = *settings.eps.get_or_insert(default_eps);
    let Settings { beta1, momentum, nesterov, .. } = *settings;
    if nesterov && settings.optimizer != OptimizerChoice::Sgd {
        let rule = format!("`optimizer` is {}, only sgd has it", name_of(settings.optimizer));
        return Err(refuse("nesterov", nesterov, rule));
    }
    if nesterov && momentum == 0.0 {
        return Err(refuse(
            "nesterov",
            nesterov,
            "`momentum` is 0, and there is nothing to look ahead along",
        ));
    }
    let adam = AdamOptions { beta1, beta2, eps };
    Ok(OptimizerOptions {
        rule: match settings.optimizer {
            OptimizerChoice::AdamW => Rule::AdamW(adam),
            OptimizerChoice::Lamb => Rule::Lamb(adam),
            OptimizerChoice::Lion => Rule::Lion { beta1, beta2 },
            OptimizerChoice::Sgd => Rule::Sgd { momentum, is_nesterov: nesterov },
        },
        weight_decay: settings.wd,
        max_grad_norm: settings.grad_clip_norm,
    })
}

/// Checks the learning rates; those of the temperature as they follow from the other settings.
pub(super) fn rates(
    settings: &Settings,
    lr_tau: f64,
    lr_tau_scheduler: TemperatureSchedule,
) -> Result<RatesConfig, ConfigError> {
    let Settings { epochs, lr, lr_min, lr_scheduler, epochs_cooldown, lr_cooldown_end, .. } = *settings;
    let is_cooled = lr_scheduler == ModelSchedule::ConstCooldown;
    let is_tau_cooled = lr_tau_scheduler == TemperatureSchedule::ConstCooldown;
    match (epochs_cooldown, is_cooled || is_tau_cooled) {
        (0, true) => {
            let key = if is_cooled { "lr_scheduler" } else { "lr_tau_scheduler" };
            return Err(refuse(
                "epochs_cooldown",
                0,
                format!("`{key}` is const-cooldown, which needs at least one"),
            ));
        }
        (1.., false) => {
            let rule = "neither `lr_scheduler` nor `lr_tau_scheduler` is const-cooldown";
            return Err(refuse("epochs_cooldown", epochs_cooldown, rule));
        }
        _ if epochs_cooldown > epochs => {
            let rule = format!("`epochs` is {epochs}: the cooldown is a part of them");
            return Err(refuse("epochs_cooldown", epochs_cooldown, rule));
        }
        _ => {}
    }
    for (key, value, of_model, of_temperature) in [
        (
            "lr_min",
            lr_min,
            lr_scheduler == ModelSchedule::Cosine,
            lr_tau_scheduler == TemperatureSchedule::Cosine,
        ),
        ("lr_cooldown_end", lr_cooldown_end, is_cooled, is_tau_cooled),
    ] {
        for (rate_key, rate, holds) in [("lr", lr, of_model), ("lr_tau", lr_tau, of_temperature)] {
            if holds && value > rate {
                return Err(refuse(key, value, format!("`{rate_key}` is {rate}, which it must not exceed")));
            }
        }
    }
    Ok(RatesConfig {
        epochs,
        lr,
        lr_min,
        warmup: settings.warmup,
        lr_tau,
        lr_tau_scheduler,
        lr_scheduler,
        epochs_cooldown,
        lr_cooldown_end,
        lr_cooldown_power: settings.lr_cooldown_power,
        tau_threshold: TauThreshold { tau: settings.lr_tau_threshold, factor: settings.lr_tau_factor },
    })
}

impl RatesConfig {
    /// Makes the schedule of a run whose epochs have so many steps.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        let cosine = Decay::Cosine { floor: self.lr_min };
        let cooldown = Decay::Cooldown {
            num_steps: self.epochs_cooldown * steps_per_epoch,
            end: self.lr_cooldown_end,
            power: self.lr_cooldown_power,
        };
        let warmed_up = |peak, decay| LearningRate {
            peak,
            warmup_steps: self.warmup,
            total_steps: self.epochs * steps_per_epoch,
            decay,
        };
        Schedule {
            model: warmed_up(
                self.lr,
                match self.lr_scheduler {
                    ModelSchedule::Cosine => cosine,
                    ModelSchedule::Const => Decay::None,
                    ModelSchedule::ConstCooldown => cooldown,
                },
            ),
            temperature: match self.lr_tau_scheduler {
                TemperatureSchedule::Cosine => warmed_up(self.lr_tau, cosine),
                TemperatureSchedule::ConstCooldown => warmed_up(self.lr_tau, cooldown),
                TemperatureSchedule::Const | TemperatureSchedule::StepThresh => {
                    LearningRate::constant(self.lr_tau)
                }
            },
            threshold: (self.lr_tau_scheduler == TemperatureSchedule::StepThresh)
                .then_some(self.tau_threshold),
        }
    }
}
