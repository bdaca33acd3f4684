use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::error::SynthError;
use super::settings::Settings;

/// Sizes that can be drawn. Below, objects are a few pixels wide; above, a picture fills a gigabyte on its
/// way.
const IMAGE_SIZES: std::ops::RangeInclusive<u32> = 16..=4096;

/// What to make, and where.
#[derive(Debug, Clone)]
pub struct SynthOptions {
    /// Folder to fill; made if it does not exist.
    pub output: PathBuf,
    /// Number of training pictures.
    pub train: u64,
    /// Number of held-out pictures.
    pub held_out: u64,
    /// Width and height of the pictures.
    pub image_size: u32,
    /// Another seed gives other pictures; the classes, and which of them are held out, stay the same.
    pub seed: u64,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
    /// Threads that draw. Their number has no influence on the result.
    pub threads: NonZeroUsize,
    /// Whether a world made with other settings is replaced. Anything but a toy world never is.
    pub overwrite: bool,
}

impl SynthOptions {
    /// The settings of the world, if there can be such a world.
    pub(super) fn settings(&self) -> Result<Settings, SynthError> {
        let refuse = |option, value, expected| Err(SynthError::Option { option, value, expected });
        // The random stream of a picture has room for its number in 58 bits; a disk is full long before.
        let counts = 1..=1 << 40;
        if !counts.contains(&self.train) {
            return refuse("--train", self.train, "at least 1 and at most 2^40");
        }
        if !counts.contains(&self.held_out) {
            return refuse("--held-out", self.held_out, "at least 1 and at most 2^40");
        }
        if !IMAGE_SIZES.contains(&self.image_size) {
            return refuse("--image-size", self.image_size.into(), "from 16 to 4096");
        }
        if !(1..=100).contains(&self.quality) {
            return refuse("--quality", self.quality.into(), "from 1 to 100");
        }
        Ok(Settings::new(self.train, self.held_out, self.image_size, self.seed, self.quality))
    }
}
