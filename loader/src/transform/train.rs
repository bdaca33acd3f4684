use super::check::{check_fraction, refuse};
use super::{ColourJitter, RandomErasing};
use crate::LoadError;

/// What training does with an image. The defaults are OpenCLIP's, where all but the crop is off.
///
/// The parts are done in the order of the fields, and each draws its random numbers in that order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainTransform {
    /// Side of the square.
    pub size: u32,
    /// Least and largest fraction of the image's area.
    pub scale: (f32, f32),
    /// Least and largest ratio of width to height, of the part.
    pub ratio: (f32, f32),
    /// How often images are mirrored, left to right. Captions that say "left" would lie: off by default.
    pub flip_probability: f32,
    /// Changes of brightness, contrast, saturation and hue.
    pub colour_jitter: Option<ColourJitter>,
    /// How often images lose their colours.
    pub grey_probability: f32,
    /// Rectangles of noise.
    pub erasing: Option<RandomErasing>,
}

impl TrainTransform {
    /// OpenCLIP's augmentation: 90 to 100 % of the area, ratios from 3/4 to 4/3.
    pub const fn new(size: u32) -> Self {
        Self {
            size,
            scale: (0.9, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            flip_probability: 0.0,
            colour_jitter: None,
            grey_probability: 0.0,
            erasing: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), LoadError> {
        let Self { scale, ratio, .. } = *self;
        if !(0.0 < scale.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
            let value = format!("{} to {}", scale.0, scale.1);
            return refuse("transform.scale", value, "it must rise within (0, 1]");
        }
        if !(0.0 < ratio.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
            let value = format!("{} to {}", ratio.0, ratio.1);
            return refuse("transform.ratio", value, "it must rise above 0");
        }
        check_fraction("transform.flip_probability", self.flip_probability)?;
        check_fraction("transform.grey_probability", self.grey_probability)?;
        if let Some(jitter) = self.colour_jitter {
            jitter.check()?;
        }
        if let Some(erasing) = self.erasing {
            erasing.check()?;
        }
        Ok(())
    }
}
