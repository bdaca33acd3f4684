//! What is minimised, resolved.

use super::choices::{GammaChoice, ObjectiveChoice};
use super::{ConfigError, EstimatorMemory, Settings, refuse};
use crate::estimator::EstimatorTable;
use crate::model::INITIAL_TEMPERATURE;
use crate::objective::{
    ContrastOptions, GammaDecay, GammaSchedule, Global, GlobalOptions, GlobalVariant, Individual,
    IndividualOptions, IndividualVariant, Objective, OpenClip, SIGLIP_TEMPERATURE, SigLip,
};
use crate::schedule::TemperatureSchedule;

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObjectiveConfig {
    loss: Loss,
    /// Where estimators are kept.
    pub memory: EstimatorMemory,
    /// Temperature to start with.
    pub initial_temperature: f64,
    /// Whether weights that the run begins with say otherwise.
    pub keeps_pretrained_temperature: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    OpenClip(ContrastOptions),
    SigLip(ContrastOptions),
    Global(GlobalOptions),
    Individual(IndividualOptions),
}

impl ObjectiveConfig {
    /// Takes what concerns the objective, checks it against the rest, and fills in what follows from it.
    pub(super) fn resolve(settings: &mut Settings) -> Result<Self, ConfigError> {
        use ObjectiveChoice as Choice;
        let choice = settings.objective;
        let has_own_temperatures = matches!(choice, Choice::ISogClr | Choice::FastClipV2);
        let has_constant_gamma = matches!(choice, Choice::SogClr | Choice::ISogClr);

        let trains_one_temperature =
            matches!(choice, Choice::OpenClip | Choice::SigLip | Choice::FastClipV0 | Choice::FastClipV3);
        let keeps_pretrained_temperature =
            settings.pretrained.is_some() && settings.temperature.is_none() && trains_one_temperature;
        let temperature = settings.temperature.unwrap_or(match choice {
            Choice::SigLip => SIGLIP_TEMPERATURE,
            _ => INITIAL_TEMPERATURE,
        });
        if !keeps_pretrained_temperature {
            settings.temperature = Some(temperature);
        }
        let scheduler = *settings.lr_tau_scheduler.get_or_insert(match choice {
            Choice::FastClipV3 => TemperatureSchedule::StepThresh,
            _ if has_own_temperatures => TemperatureSchedule::Const,
            _ => TemperatureSchedule::Cosine,
        });
        if has_own_temperatures && scheduler != TemperatureSchedule::Const {
            let rule = format!("the temperatures of {} have a constant rate, `const`", choice.name());
            return Err(refuse("lr_tau_scheduler", super::name_of(scheduler), rule));
        }
        let decay = *settings.gamma_schedule.get_or_insert(match has_constant_gamma {
            true => GammaDecay::Constant,
            false => GammaDecay::Cosine,
        });
        if has_constant_gamma && decay != GammaDecay::Constant {
            let with_cosine = if choice == Choice::SogClr { "fastclip-v1" } else { "fastclip-v2" };
            let rule =
                format!("{} has a constant gamma; {with_cosine} is the same with a cosine", choice.name());
            return Err(refuse("gamma_schedule", super::name_of(decay), rule));
        }
        let advised = GammaSchedule::advised(settings.epochs);
        let (min, default_epochs) = match settings.gamma {
            GammaChoice::Number(min) => (min, settings.epochs.div_ceil(2)),
            GammaChoice::Auto(_) => (advised.min, advised.decay_epochs),
        };
        let decay_epochs = *settings.gamma_decay_epochs.get_or_insert(default_epochs);

        let contrast = ContrastOptions {
            block_bytes: settings.loss_block_mib.get() << 20,
            precision: settings.feature_precision,
        };
        let gamma = GammaSchedule { decay, min, decay_epochs };
        let (rho, epsilon, gradients) = (settings.rho, settings.fastclip_eps, settings.gradients);
        let global =
            |variant| Loss::Global(GlobalOptions { variant, gamma, rho, epsilon, gradients, contrast });
        let individual = |variant| {
            Loss::Individual(IndividualOptions {
                variant,
                gamma,
                rho,
                epsilon,
                lr_tau: settings.lr_tau.expect("it is filled in before the objective"),
                beta1: settings.beta1,
                beta2: settings.beta2.expect("resolving the optimizer fills it in"),
                adam_epsilon: settings.eps.expect("resolving the optimizer fills it in"),
                gradients,
                contrast,
            })
        };
        let loss = match choice {
            Choice::OpenClip => Loss::OpenClip(contrast),
            Choice::SigLip => Loss::SigLip(contrast),
            Choice::SogClr => global(GlobalVariant::SogClr),
            Choice::FastClipV0 => global(GlobalVariant::V0),
            Choice::FastClipV1 => global(GlobalVariant::V1),
            Choice::FastClipV3 => global(GlobalVariant::V3),
            Choice::ISogClr => individual(IndividualVariant::ISogClr),
            Choice::FastClipV2 => individual(IndividualVariant::V2),
        };
        Ok(Self {
            loss,
            memory: settings.estimator_memory,
            initial_temperature: temperature,
            keeps_pretrained_temperature,
        })
    }

    /// Returns how many numbers are remembered of each sample.
    pub fn numbers_per_sample(&self) -> usize {
        match self.loss {
            Loss::OpenClip(_) | Loss::SigLip(_) => 0,
            Loss::Global(_) => Global::INITIAL_ROW.len(),
            Loss::Individual(_) => Individual::initial_row(self.initial_temperature).len(),
        }
    }

    /// Makes the objective; `table` makes what it remembers of samples, given the row that each begins with.
    pub fn build(&self, table: impl FnOnce(&[f64]) -> EstimatorTable) -> Box<dyn Objective> {
        match self.loss {
            Loss::OpenClip(options) => Box::new(OpenClip::new(options)),
            Loss::SigLip(options) => Box::new(SigLip::new(options)),
            Loss::Global(options) => Box::new(Global::new(options, table(&Global::INITIAL_ROW))),
            Loss::Individual(options) => {
                let row = Individual::initial_row(self.initial_temperature);
                Box::new(Individual::new(options, table(&row)))
            }
        }
    }
}
