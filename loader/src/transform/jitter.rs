use super::check::{check_fraction, refuse};
use super::colour::{self, Planes};
use crate::LoadError;
use crate::plan::Draws;

/// torchvision's `ColorJitter`, with a probability as OpenCLIP uses it.
///
/// The four changes are made in a random order, each by an amount of its own. They compute what Pillow does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColourJitter {
    /// How often images are changed at all.
    pub probability: f32,
    /// Brightness is multiplied by 1 − this to 1 + this, and by 0 at least.
    pub brightness: f32,
    /// Contrast, likewise.
    pub contrast: f32,
    /// Saturation, likewise.
    pub saturation: f32,
    /// Hue is turned by up to this fraction of a circle either way; 0.5 at most.
    pub hue: f32,
}

impl ColourJitter {
    pub(super) fn check(&self) -> Result<(), LoadError> {
        check_fraction("transform.colour_jitter.probability", self.probability)?;
        for (setting, value) in [
            ("transform.colour_jitter.brightness", self.brightness),
            ("transform.colour_jitter.contrast", self.contrast),
            ("transform.colour_jitter.saturation", self.saturation),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(setting, value, "it must be 0 or more");
            }
        }
        if !(0.0..=0.5).contains(&self.hue) {
            return refuse("transform.colour_jitter.hue", self.hue, "it must lie between 0 and 0.5");
        }
        Ok(())
    }

    pub(super) fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws) {
        if draws.unit() >= f64::from(self.probability) {
            return;
        }
        let mut order = [0, 1, 2, 3];
        draws.shuffle(&mut order);
        // All are drawn, whatever is used: what one setting does must not depend on another.
        let mut factor = |strength: f32| {
            let strength = f64::from(strength);
            let low = (1.0 - strength).max(0.0);
            (low + (1.0 + strength - low) * draws.unit()) as f32
        };
        let factors = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let turn = f64::from(self.hue) * (2.0 * draws.unit() - 1.0);
        for change in order {
            match change {
                0 if self.brightness > 0.0 => colour::change_brightness(planes, factors[0]),
                1 if self.contrast > 0.0 => colour::change_contrast(planes, factors[1]),
                2 if self.saturation > 0.0 => colour::change_saturation(planes, factors[2]),
                3 if self.hue > 0.0 => colour::turn_hue(planes, turn),
                _ => {}
            }
        }
    }
}
