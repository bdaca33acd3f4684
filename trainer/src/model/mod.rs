//! CLIP: an image tower and a text tower that meet on the unit sphere.
//!
//! Architecture, initial distributions and parameter names are OpenCLIP's, so that its weights load here and ours load
//! there. Parameters are plain tensors in one list in the order of OpenCLIP's state dict; towers hold handles into that
//! list. tch's own `VarStore` lost because it builds its names from paths and refuses the dots that OpenCLIP's have.
//!
//! Tensor operations here panic when libtorch refuses them: shapes follow from a config that was checked, so a refusal
//! is a bug of ours (or memory that ran out, which nobody here could act on).

mod batch_norm;
mod built_in;
mod config;
mod cost;
mod parameters;
mod pass;
mod text;
mod transformer;
mod vision;
mod weights;

#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor, no_grad};

pub use config::{Layers, ModelConfig, ModelConfigError, TextConfig, VisionConfig};
pub use cost::{ModelCost, TowerCost};
pub use parameters::{Format, Init, Parameter, ParameterSpec, Parameters, Role};
pub use pass::Pass;
pub use weights::{CONFIG_FILE, WEIGHTS_FILE, WeightsError};
pub(crate) use weights::{read_tensors, write_tensors};

use text::TextTower;
use vision::VisionTower;

/// Mean of each colour channel, over pixel values from 0 to 1; OpenAI's and OpenCLIP's.
pub const IMAGE_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Standard deviation of each colour channel.
pub const IMAGE_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Name of the parameter that holds ln(1/τ).
pub const LOG_SCALE: &str = "logit_scale";

/// Name of the parameter that the sigmoid loss adds to its logits.
pub const LOGIT_BIAS: &str = "logit_bias";

/// The temperature of OpenCLIP's initial logit scale.
pub const INITIAL_TEMPERATURE: f64 = 0.07;

/// The largest logit scale 1/τ.
pub const MAX_LOGIT_SCALE: f64 = 100.0;

/// A CLIP model.
#[derive(Debug)]
pub struct Clip {
    config: ModelConfig,
    parameters: Parameters,
    vision: VisionTower,
    text: TextTower,
    log_scale: Tensor,
    logit_bias: Option<Tensor>,
    /// A pixel value from 0 to 255 becomes value · scale + shift, [1, 3, 1, 1] each.
    pixel_scale: Tensor,
    pixel_shift: Tensor,
    /// What towers compute in.
    kind: Kind,
    format: Format,
}

/// The format that a model's images should be in on a device: convolutions on GPUs want channels last.
fn best_format(config: &ModelConfig, device: Device) -> Format {
    match config.vision_cfg.layers {
        Layers::Stages(_) if device.is_cuda() => Format::ChannelsLast,
        _ => Format::Planes,
    }
}

impl Clip {
    /// Makes a model with fresh parameters, in fp32. They depend on config and seed alone, so all ranks get the same.
    pub fn new(config: &ModelConfig, device: Device, seed: u64) -> Self {
        Self::with_kind(config, device, Kind::Float, seed)
    }

    /// Like [`Clip::new`], with parameters and computation in another floating point kind.
    pub fn with_kind(config: &ModelConfig, device: Device, kind: Kind, seed: u64) -> Self {
        let parameters = Parameters::draw(&Self::layout(config), seed, kind, device);
        Self::of(config, parameters, kind, best_format(config, device))
    }

    /// Like [`Clip::new`], but towers compute in bf16, with copies of the parameters that are rounded once after each step.
    /// Parameters, statistics of norms and features stay in fp32.
    pub fn mixed(config: &ModelConfig, device: Device, seed: u64) -> Self {
        Self::mixed_in(config, device, seed, best_format(config, device))
    }

    /// Like [`Clip::mixed`], with a choice of how images lie in memory.
    pub fn mixed_in(config: &ModelConfig, device: Device, seed: u64, format: Format) -> Self {
        let layout = Self::layout(config);
        let parameters = Parameters::draw(&layout, seed, Kind::Float, device);
        Self::of(config, parameters.rounded_to(&layout, Kind::BFloat16, format), Kind::BFloat16, format)
    }

    fn of(config: &ModelConfig, parameters: Parameters, kind: Kind, format: Format) -> Self {
        let exact = parameters.handle(LOG_SCALE);
        let per_channel = |value: fn(f64, f64) -> f64| {
            let values: Vec<f64> =
                IMAGE_MEAN.iter().zip(IMAGE_STD).map(|(&mean, std)| value(mean, std)).collect();
            Tensor::from_slice(&values).to_kind(exact.kind()).to_device(exact.device()).view([1, 3, 1, 1])
        };
        Self {
            config: config.clone(),
            kind,
            format,
            vision: VisionTower::new(config, &parameters),
            text: TextTower::new(config, &parameters),
            log_scale: parameters.handle(LOG_SCALE),
            logit_bias: config.init_logit_bias.map(|_| parameters.handle(LOGIT_BIAS)),
            pixel_scale: per_channel(|_, std| 1.0 / (255.0 * std)),
            pixel_shift: per_channel(|mean, std| -mean / std),
            parameters,
        }
    }

    /// Lists the parameters of a model, in the order of OpenCLIP's state dict, without making them.
    pub fn layout(config: &ModelConfig) -> Vec<ParameterSpec> {
        let mut specs = TextTower::root_layout(config);
        specs.push(
            ParameterSpec::new(LOG_SCALE, &[], Init::Constant((1.0 / INITIAL_TEMPERATURE).ln())).exact(),
        );
        specs.extend(
            config
                .init_logit_bias
                .map(|bias| ParameterSpec::new(LOGIT_BIAS, &[], Init::Constant(bias)).exact()),
        );
        specs.extend(VisionTower::layout(config));
        specs.extend(TextTower::layout(config));
        specs
    }

    /// Maps images to unit features (n, embed_dim) in fp32, or in fp64 if the model is.
    ///
    /// Images are (n, 3, size, size): either bytes, which are normalised here, or floating point values that have been
    /// normalised already.
    pub fn encode_image(&self, images: &Tensor, pass: Pass) -> Tensor {
        let pixels =
            if images.kind() == Kind::Uint8 { self.normalised(images) } else { images.to_kind(self.kind) };
        unit(&self.vision.forward(&pixels, pass))
    }

    /// Turns bytes into what the image tower reads. Normalising, rounding and the order in memory are one pass over them.
    fn normalised(&self, images: &Tensor) -> Tensor {
        let pixels = self.format.empty(&images.size(), self.kind, images.device());
        self.pixel_shift.addcmul_out(&pixels, images, &self.pixel_scale)
    }

    /// Maps tokens (n, at most context_length) to unit features (n, embed_dim) in fp32, or in fp64 if the model is.
    ///
    /// Columns that are padding in all rows are not computed, which changes no result. Finding them reads from the
    /// device; where the lengths are known, narrow the tokens first and call [`Clip::encode_trimmed_text`].
    pub fn encode_text(&self, tokens: &Tensor) -> Tensor {
        if tokens.size()[0] == 0 {
            return self.encode_trimmed_text(tokens);
        }
        let longest = tokens.argmax(1, false).max().int64_value(&[]) + 1;
        self.encode_trimmed_text(&tokens.narrow(1, 0, longest))
    }

    /// Maps tokens to unit features like [`Clip::encode_text`], and computes all columns that are given.
    pub fn encode_trimmed_text(&self, tokens: &Tensor) -> Tensor {
        unit(&self.text.forward(tokens))
    }

    /// Returns the logit scale 1/τ, with its gradient.
    pub fn logit_scale(&self) -> Tensor {
        self.log_scale.exp()
    }

    /// Returns the trained scalar s = ln(1/τ) itself.
    pub fn log_scale(&self) -> &Tensor {
        &self.log_scale
    }

    /// Returns what the sigmoid loss adds to every logit, if the model has it.
    pub fn logit_bias(&self) -> Option<&Tensor> {
        self.logit_bias.as_ref()
    }

    /// Sets the temperature.
    pub fn set_temperature(&self, tau: f64) {
        let _ = no_grad(|| self.log_scale.shallow_clone().fill_((1.0 / tau).ln()));
    }

    /// Puts the temperature back into its range after a step: τ from 0.01 to 1.
    pub fn clamp_temperature(&self) {
        let _ = no_grad(|| self.log_scale.shallow_clone().clamp_(0.0, MAX_LOGIT_SCALE.ln()));
    }

    /// Rounds what towers compute with anew, if it is rounded: due whenever something changed parameters.
    pub fn round(&self) {
        self.parameters.round();
    }

    /// Returns all parameters, in the order of OpenCLIP's state dict.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Returns what the model consists of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns where the parameters lie.
    pub fn device(&self) -> Device {
        self.log_scale.device()
    }
}

/// Scales rows to unit length, in fp32 at least.
fn unit(features: &Tensor) -> Tensor {
    let features = match features.kind() {
        Kind::Double => features.shallow_clone(),
        _ => features.to_kind(Kind::Float),
    };
    // A row of zeros stays one: PyTorch's `normalize` has the same floor.
    let length = features.norm_scalaropt_dim(2, [-1i64], true).clamp_min(1e-12);
    features / length
}
