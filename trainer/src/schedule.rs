//! Learning rates, step by step.

use std::f64::consts::PI;

/// A linear rise over the first steps, then what [`Decay`] says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// The rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps of the run, warm-up included.
    pub total_steps: u64,
    /// What comes after the warm-up.
    pub decay: Decay,
}

/// How a rate comes down from its peak.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// Along half a cosine, from the end of the warm-up to the end of the run.
    Cosine {
        /// The rate at the end of the run.
        floor: f64,
    },
    /// Not at all.
    None,
    /// Not at all until the last steps, then along a power.
    Cooldown {
        /// How many those are.
        num_steps: u64,
        /// The rate at the end of the run.
        end: f64,
        /// 1 for a straight line; above it, steep first and then flat.
        power: f64,
    },
}

impl LearningRate {
    /// The same in every step.
    pub fn constant(rate: f64) -> Self {
        Self { peak: rate, warmup_steps: 0, total_steps: 0, decay: Decay::None }
    }

    /// Returns the rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.decay {
            Decay::Cosine { floor } => {
                floor
                    + 0.5
                        * (1.0 + (PI * self.done_since(self.warmup_steps, step)).cos())
                        * (self.peak - floor)
            }
            Decay::None => self.peak,
            Decay::Cooldown { num_steps, end, power } => {
                let start = self.total_steps.saturating_sub(num_steps);
                if step < start {
                    return self.peak;
                }
                end + (1.0 - self.done_since(start, step)).powf(power) * (self.peak - end)
            }
        }
    }

    /// Returns which part of the steps from `start` to the end of the run lies before `step`.
    fn done_since(&self, start: u64, step: u64) -> f64 {
        (step - start) as f64 / self.total_steps.saturating_sub(start).max(1) as f64
    }
}

/// How the learning rate of the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModelSchedule {
    /// After the warm-up along half a cosine to --lr-min
    Cosine,
    /// After the warm-up the same in every step
    Const,
    /// After the warm-up the same in every step, until it comes down in the last --epochs-cooldown
    ConstCooldown,
}

/// How the learning rate of the temperature runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum TemperatureSchedule {
    /// With the warm-up, length and floor of the model's cosine
    Cosine,
    /// The same in every step, without a warm-up
    Const,
    /// The same in every step, without a warm-up, but --lr-tau-factor times it while tau is low
    StepThresh,
    /// With the warm-up and cooldown of the model's const-cooldown
    #[serde(rename = "const-cooldown")]
    #[value(name = "const-cooldown")]
    ConstCooldown,
}

/// A rate that is smaller while τ is low.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TauThreshold {
    /// The factor holds while τ is at most this.
    pub tau: f64,
    /// What the rate is multiplied by.
    pub factor: f64,
}

/// The learning rates of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// That of all parameters but the temperature.
    pub model: LearningRate,
    /// That of the temperature.
    pub temperature: LearningRate,
    /// What lowers it further.
    pub threshold: Option<TauThreshold>,
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
        let Self { model, temperature, threshold } = self;
        Rates { model: model.at(step), temperature: temperature.at(step), threshold: *threshold }
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

    fn medium() -> LearningRate {
        let decay = Decay::Cosine { floor: 0.0 };
        LearningRate { peak: 1e-3, warmup_steps: 10_000, total_steps: 98_568, decay }
    }

    fn cooldown(power: f64) -> LearningRate {
        let decay = Decay::Cooldown { num_steps: 40, end: 1e-4, power };
        LearningRate { peak: 5e-4, warmup_steps: 10, total_steps: 100, decay }
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
        let decay = Decay::Cosine { floor: 4e-5 };
        let xlarge = LearningRate { peak: 2e-4, warmup_steps: 13_200, total_steps: 1_849_680, decay };
        assert_near(xlarge.at(1_000_000), 1.106_388_7e-4);
    }

    #[test]
    fn without_decay_the_rate_stays_after_the_warm_up() {
        let rate = LearningRate { decay: Decay::None, ..medium() };
        for (step, expected) in [(0, 1e-7), (4_999, 5e-4), (10_000, 1e-3), (98_567, 1e-3)] {
            assert_near(rate.at(step), expected);
        }
        assert_eq!(LearningRate::constant(2e-4).at(0), 2e-4);
        assert_eq!(LearningRate::constant(2e-4).at(1_000_000), 2e-4);
    }

    #[test]
    fn a_cooldown_begins_at_the_peak_and_comes_to_its_end_one_step_after_the_run() {
        // By hand: 40 steps from 5e-4 to 1e-4 are 1e-5 each.
        for (step, rate) in
            [(0, 5e-5), (9, 5e-4), (10, 5e-4), (60, 5e-4), (61, 4.9e-4), (80, 3e-4), (99, 1.1e-4)]
        {
            assert_near(cooldown(1.0).at(step), rate);
        }
        // Three quarters in, a power of 2 leaves a sixteenth of 4e-4, a root leaves half of it.
        assert_near(cooldown(2.0).at(90), 1.25e-4);
        assert_near(cooldown(0.5).at(90), 3e-4);
    }

    #[test]
    fn the_temperature_has_its_own_rate_and_may_mind_a_threshold() {
        let threshold = Some(TauThreshold { tau: 0.03, factor: 1.0 / 3.0 });
        let temperature = LearningRate { peak: 2e-4, ..medium() };
        let schedule =
            |temperature, threshold| Schedule { model: medium(), temperature, threshold }.at(50_000);
        let rates = schedule(temperature, None);
        assert_near(rates.model, 5.756867e-4);
        assert_near(rates.temperature_at(0.01), 5.756867e-4 / 5.0);
        let rates = schedule(LearningRate::constant(2e-4), threshold);
        assert_near(rates.temperature_at(0.0301), 2e-4);
        assert_near(rates.temperature_at(0.03), 2e-4 / 3.0);
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_has_rates_all_the_same() {
        let schedule = LearningRate { total_steps: 10, ..medium() };
        assert_near(schedule.at(9), 1e-6);
        let cooled = LearningRate { total_steps: 20, ..cooldown(1.0) };
        assert_near(cooled.at(10), 5e-4 - 4e-4 * 0.5);
    }
}
