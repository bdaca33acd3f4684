//! Settings of the training set.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use fastclip_loader::{CaptionSource, Captions};

use super::{CaptionChoice, ConfigError, Settings, refuse};

/// What is read.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// Dataset to train on, or several.
    pub location: String,
    /// How often an epoch holds each of several; once unless set.
    pub upsampling_factors: Option<Vec<f64>>,
    /// Where captions are found and which is taken.
    pub captions: Captions,
    /// Where what was read is kept, and the most bytes of it.
    pub cache: Option<(PathBuf, u64)>,
    /// Samples of a rank that are encoded at once.
    pub batch_size: NonZeroUsize,
    /// How many times that many a rank has in a step.
    pub accum_freq: NonZeroUsize,
    /// Decides the order and the crops.
    pub seed: u64,
    /// Decoding threads of a rank.
    pub threads: NonZeroUsize,
    /// Least fraction of an image's area that a crop keeps.
    pub crop_scale: f32,
    /// Side of the images.
    pub image_size: u32,
    /// Token ids of a caption.
    pub context_length: usize,
}

/// Parses OpenCLIP's form of factors: `1::2.5`.
pub(super) fn upsampling_factors(settings: &Settings) -> Result<Option<Vec<f64>>, ConfigError> {
    let Some(text) = &settings.train_data_upsampling_factors else { return Ok(None) };
    let factors: Result<_, _> = text.split("::").map(|factor| factor.trim().parse()).collect();
    let rule = "it must be numbers joined by `::`, one for each dataset";
    factors.map(Some).map_err(|_| refuse("train_data_upsampling_factors", format!("`{text}`"), rule))
}

/// Parses sources of captions: `txt,json:alt` or, with weights, `txt=2,json:alt=1`.
///
/// # Errors
/// When it is no such list.
pub fn captions(text: &str, choice: CaptionChoice) -> Result<Captions, ConfigError> {
    let refused = |rule: &str| refuse("captions", format!("`{text}`"), rule);
    let source =
        |text: &str| -> CaptionSource { text.parse().unwrap_or_else(|never: Infallible| match never {}) };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty() || part.starts_with(['=', ':'])) {
        return Err(refused("it must be extensions or JSON fields, separated by commas"));
    }
    let weights: Vec<_> = parts.iter().filter_map(|part| part.split_once('=')).collect();
    if weights.is_empty() {
        let sources = parts.into_iter().map(source).collect();
        return Ok(match choice {
            CaptionChoice::First => Captions::First(sources),
            CaptionChoice::Random => Captions::Random(sources),
        });
    }
    if weights.len() != parts.len() {
        return Err(refused("either all sources have weights or none"));
    }
    let weighted: Result<Vec<_>, ConfigError> = weights
        .into_iter()
        .map(|(name, weight)| match weight.trim().parse::<f64>() {
            Ok(weight) if weight.is_finite() && weight > 0.0 => Ok((source(name.trim()), weight)),
            _ => Err(refused("weights must be numbers above 0")),
        })
        .collect();
    weighted.map(Captions::Weighted)
}
