//! The inner learning rate γ, by epoch, and the running estimates that it weighs.

use tch::Tensor;

use crate::estimator::UNSEEN;

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

impl GammaSchedule {
    /// Returns the schedule that the follow-up of FastCLIP (DRRho-CLIP's code) advises for a run of so many epochs: a cosine
    /// over the whole run, down to min(1, 4.177·epochs^−0.7265). Up to 7 epochs that is 1: no memory at all.
    pub fn advised(epochs: u64) -> Self {
        let min = (4.177 * (epochs.max(1) as f64).powf(-0.7265)).min(1.0);
        Self { decay: GammaDecay::Cosine, min, decay_epochs: epochs }
    }
}

/// Mixes new inner losses into running estimates, in log space: λ ← ln((1−γ)eᵏ + γg) with λ = k before; a row met for the
/// first time takes g. Shapes are those of `old`.
///
/// In linear space exp(dᵢⱼ/τ) overflows fp32 from a difference of 0.89 at τ = 0.01; the logarithm is the same number without
/// a range.
pub(super) fn updated(old: &Tensor, log_inner: &Tensor, gamma: f64) -> Tensor {
    if gamma >= 1.0 {
        return log_inner.shallow_clone();
    }
    let mixed = (old + (1.0 - gamma).ln()).logaddexp(&(log_inner + gamma.ln()));
    log_inner.where_self(&old.eq(UNSEEN), &mixed)
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
    fn the_advice_has_the_published_values() {
        for (epochs, min) in [(1, 1.0), (7, 1.0), (10, 0.784), (20, 0.474), (30, 0.353), (37, 0.303)] {
            let schedule = GammaSchedule::advised(epochs);
            assert!((schedule.min - min).abs() < 5e-4, "{epochs} epochs: {}", schedule.min);
            assert_eq!(schedule.at(epochs), schedule.min);
        }
    }

    #[test]
    fn constant_begins_at_one_too() {
        let schedule = GammaSchedule { decay: GammaDecay::Constant, min: 0.6, decay_epochs: 5 };
        assert_eq!([0, 1, 7].map(|epoch| schedule.at(epoch)), [1.0, 0.6, 0.6]);
    }
}
