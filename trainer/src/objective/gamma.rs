//! The inner learning rate γ, by epoch.

/// How γ comes down from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum GammaDecay {
    /// At its final value from epoch 1 on.
    Constant,
    /// Along half a cosine.
    Cosine,
}

/// γ as a function of the epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GammaSchedule {
    /// How γ comes down.
    pub decay: GammaDecay,
    /// Where it ends.
    pub min: f64,
    /// The epoch at which the cosine arrives there.
    pub decay_epochs: u64,
}

impl GammaSchedule {
    /// Returns γ of an epoch, counted from 0. Epoch 0 only fills the tables: its γ is 1.
    pub fn at(&self, epoch: u64) -> f64 {
        match self.decay {
            _ if epoch == 0 => 1.0,
            GammaDecay::Cosine if epoch < self.decay_epochs => {
                let done = epoch as f64 / self.decay_epochs as f64;
                self.min + 0.5 * (1.0 + (std::f64::consts::PI * done).cos()) * (1.0 - self.min)
            }
            GammaDecay::Constant | GammaDecay::Cosine => self.min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_has_the_published_values() {
        let check = |min, decay_epochs, values: &[(u64, f64)]| {
            let schedule = GammaSchedule { decay: GammaDecay::Cosine, min, decay_epochs };
            for &(epoch, gamma) in values {
                assert!((schedule.at(epoch) - gamma).abs() < 5e-7, "epoch {epoch}: {}", schedule.at(epoch));
            }
        };
        check(0.2, 18, &[(0, 1.0), (1, 0.993923), (2, 0.975877), (9, 0.6), (17, 0.206077), (18, 0.2)]);
        check(0.8, 10, &[(1, 0.995106), (5, 0.9), (9, 0.804894), (10, 0.8)]);
    }

    #[test]
    fn constant_begins_at_one_too() {
        let schedule = GammaSchedule { decay: GammaDecay::Constant, min: 0.6, decay_epochs: 5 };
        assert_eq!([0, 1, 7].map(|epoch| schedule.at(epoch)), [1.0, 0.6, 0.6]);
    }
}
