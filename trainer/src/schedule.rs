//! Learning rates, step by step.

use std::f64::consts::PI;

/// A linear rise over the first steps, then half a cosine down to a floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// The rate at the end of the warm-up.
    pub peak: f64,
    /// The rate at the end of the run.
    pub floor: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps of the run, warm-up included.
    pub total_steps: u64,
}

impl WarmupCosine {
    /// Returns the rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let num_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = (step - self.warmup_steps) as f64 / num_steps as f64;
        self.floor + 0.5 * (1.0 + (PI * done).cos()) * (self.peak - self.floor)
    }
}

/// How the learning rate of the temperature runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum TemperatureSchedule {
    /// As that of the model: the same warm-up, length and floor.
    Cosine,
    /// The same in every step.
    Const,
    /// Constant, and a third of it while τ is at most 0.03.
    StepThresh,
}

/// A rate that is smaller while τ is low.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TauThreshold {
    /// The factor holds while τ is at most this.
    pub tau: f64,
    /// What the rate is multiplied by.
    pub factor: f64,
}

/// The values of FastCLIP's reference.
pub const STEP_THRESHOLD: TauThreshold = TauThreshold { tau: 0.03, factor: 1.0 / 3.0 };

/// The learning rates of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// That of all parameters but the temperature.
    pub model: WarmupCosine,
    /// The highest rate of the temperature.
    pub temperature_peak: f64,
    /// How the rate of the temperature runs.
    pub temperature: TemperatureSchedule,
}

/// The learning rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of all parameters but the temperature.
    pub model: f64,
    /// Of the temperature s = ln(1/τ), before the threshold.
    pub temperature: f64,
    /// Lowers the temperature's rate while τ is low; judged on the device, where τ is.
    pub threshold: Option<TauThreshold>,
}

impl Schedule {
    /// Returns the rates of a step, counted from 0.
    pub fn at(&self, step: u64) -> Rates {
        let temperature = match self.temperature {
            TemperatureSchedule::Cosine => {
                WarmupCosine { peak: self.temperature_peak, ..self.model }.at(step)
            }
            TemperatureSchedule::Const | TemperatureSchedule::StepThresh => self.temperature_peak,
        };
        let threshold = (self.temperature == TemperatureSchedule::StepThresh).then_some(STEP_THRESHOLD);
        Rates { model: self.model.at(step), temperature, threshold }
    }
}

impl Rates {
    /// Returns the rate of the temperature at a value of it.
    pub fn temperature_at(&self, tau: f64) -> f64 {
        match self.threshold {
            Some(threshold) if tau <= threshold.tau => self.temperature * threshold.factor,
            _ => self.temperature,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium() -> WarmupCosine {
        WarmupCosine { peak: 1e-3, floor: 0.0, warmup_steps: 10_000, total_steps: 98_568 }
    }

    #[track_caller]
    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-7 * expected, "{found:e} is not {expected:e}");
    }

    #[test]
    fn warm_up_and_cosine_have_the_published_values() {
        for (step, rate) in [(0, 1e-7), (9_999, 1e-3), (10_000, 1e-3), (50_000, 5.756867e-4)] {
            assert_near(medium().at(step), rate);
        }
        let xlarge = WarmupCosine { peak: 2e-4, floor: 4e-5, warmup_steps: 13_200, total_steps: 1_849_680 };
        assert_near(xlarge.at(1_000_000), 1.106_388_7e-4);
    }

    #[test]
    fn the_temperature_may_follow_the_model_or_stay_or_mind_a_threshold() {
        let schedule =
            |temperature| Schedule { model: medium(), temperature_peak: 2e-4, temperature }.at(50_000);
        let cosine = schedule(TemperatureSchedule::Cosine);
        assert_near(cosine.temperature_at(0.01), 5.756867e-4 / 5.0);
        assert_near(schedule(TemperatureSchedule::Const).temperature_at(0.01), 2e-4);
        let thresh = schedule(TemperatureSchedule::StepThresh);
        assert_near(thresh.temperature_at(0.0301), 2e-4);
        assert_near(thresh.temperature_at(0.03), 2e-4 / 3.0);
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_has_rates_all_the_same() {
        let schedule = WarmupCosine { total_steps: 10, ..medium() };
        assert_near(schedule.at(9), 1e-6);
    }
}
