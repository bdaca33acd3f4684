/// What values of 0 to 1 are shifted and scaled by, for each channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub deviation: [f32; 3],
}

impl Normalisation {
    /// Those of OpenAI's dataset, which CLIP models are trained with.
    pub const OPENAI: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        deviation: [0.268_629_55, 0.261_302_6, 0.275_777_1],
    };
}

impl Default for Normalisation {
    fn default() -> Self {
        Self::OPENAI
    }
}

/// What each of the 256 bytes becomes in each channel: the same as torchvision's `ToTensor` and `Normalize`.
#[derive(Debug, Clone)]
pub(crate) struct Table([[f32; 256]; 3]);

impl Table {
    pub(crate) fn new(normalisation: Normalisation) -> Self {
        let Normalisation { mean, deviation } = normalisation;
        Self(std::array::from_fn(|channel| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[channel]) / deviation[channel])
        }))
    }

    pub(crate) fn value(&self, channel: usize, byte: u8) -> f32 {
        self.0[channel][usize::from(byte)]
    }
}
