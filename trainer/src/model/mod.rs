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
mod fit;
mod locks;
mod parameters;
mod pass;
mod patches;
mod pretrained;
mod text;
mod transformer;
mod vision;
mod weights;

#[cfg(test)]
mod tests;

use fastclip_schemas::SampleId;
use fastclip_torch_ext::TorchError;
use tch::{Device, Kind, Tensor, no_grad};

pub use config::{Layers, ModelConfig, ModelConfigError, TextConfig, VisionConfig};
pub use cost::{ModelCost, TowerCost};
pub use fit::Mismatch;
pub use locks::{ImageLock, Locks, TextLock};
pub use parameters::{Format, Init, Parameter, ParameterSpec, Parameters, Role};
pub use pass::Pass;
pub use pretrained::Pretrained;
pub use weights::{CONFIG_FILE, WEIGHTS_FILE, WeightsError};

use text::TextTower;
use transformer::Blocks;
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
    seed: u64,
    locks: Locks,
    parameters: Parameters,
    vision: VisionTower,
    text: TextTower,
    log_scale: Tensor,
    logit_bias: Option<Tensor>,
    pixels: Pixels,
    /// What towers compute in.
    kind: Kind,
}

/// How pixel values from 0 to 255 become what the image tower reads; all tensors are [1, 3, 1, 1].
#[derive(Debug)]
enum Pixels {
    /// (value − mean) / std, in this order: other ways differ in the last bit.
    Exact { mean: Tensor, std: Tensor },
    /// value · scale + shift, rounded at its end and laid out anew, all in one pass.
    Rounded { scale: Tensor, shift: Tensor, format: Format },
}

impl Pixels {
    fn exact(kind: Kind, device: Device) -> Self {
        let [mean, std] = [IMAGE_MEAN, IMAGE_STD].map(|values| {
            Tensor::from_slice(&values.map(|value| value * 255.0))
                .to_kind(kind)
                .to_device(device)
                .view([1, 3, 1, 1])
        });
        Self::Exact { mean, std }
    }

    fn rounded(format: Format, device: Device) -> Self {
        let per_channel = |value: fn(f64, f64) -> f64| {
            let values: Vec<f64> =
                IMAGE_MEAN.iter().zip(IMAGE_STD).map(|(&mean, std)| value(mean, std)).collect();
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
        };
        Self::Rounded {
            scale: per_channel(|_, std| 1.0 / (255.0 * std)),
            shift: per_channel(|mean, std| -mean / std),
            format,
        }
    }

    fn normalise(&self, images: &Tensor, kind: Kind) -> Tensor {
        match self {
            Self::Exact { mean, std } => (images.to_kind(kind) - mean) / std,
            Self::Rounded { scale, shift, format } => {
                let pixels = format.empty(&images.size(), kind, images.device());
                shift.addcmul_out(&pixels, images, scale)
            }
        }
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
        Self::of(config, parameters, seed, kind, Pixels::exact(kind, device))
    }

    /// Like [`Clip::new`], but towers compute in bf16, with copies of the parameters that are rounded once after each step.
    /// Parameters, statistics of norms and features stay in fp32.
    pub fn mixed(config: &ModelConfig, device: Device, seed: u64) -> Self {
        // Convolutions on GPUs want channels last.
        let format = match config.vision_cfg.layers {
            Layers::Stages(_) if device.is_cuda() => Format::ChannelsLast,
            _ => Format::Planes,
        };
        Self::mixed_in(config, device, seed, format)
    }

    /// Like [`Clip::mixed`], with a choice of how images lie in memory.
    pub fn mixed_in(config: &ModelConfig, device: Device, seed: u64, format: Format) -> Self {
        let layout = Self::layout(config);
        let parameters = Parameters::draw(&layout, seed, Kind::Float, device);
        let parameters = parameters.rounded_to(&layout, Kind::BFloat16, format);
        Self::of(config, parameters, seed, Kind::BFloat16, Pixels::rounded(format, device))
    }

    fn of(config: &ModelConfig, parameters: Parameters, seed: u64, kind: Kind, pixels: Pixels) -> Self {
        Self {
            config: config.clone(),
            seed,
            locks: Locks::default(),
            kind,
            pixels,
            vision: VisionTower::new(config, &parameters),
            text: TextTower::new(config, &parameters),
            log_scale: parameters.handle(LOG_SCALE),
            logit_bias: config.init_logit_bias.map(|_| parameters.handle(LOGIT_BIAS)),
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

    /// Takes parts of the model out of training: their parameters get no gradient, and are not among those that
    /// [`Parameters::iter`] returns.
    pub fn lock(&mut self, locks: Locks) {
        self.parameters.lock(|name| locks.covers(name, &self.config));
        self.locks = locks;
    }

    /// Says whether transformers keep of a block only its input, and compute the rest again in backward: about a third more
    /// operations, and the memory of a block in place of that of all. Changes no result but the rounding of fused layers. As in OpenCLIP, a ResNet does not.
    pub fn set_grad_checkpointing(&mut self, recomputes: bool) {
        self.transformers().for_each(|blocks| blocks.set_recomputes(recomputes));
    }

    /// Lets transformers compute layers at once, see [`FusedLayers`](fastclip_torch_ext::FusedLayers), where there are such
    /// for their widths, kind and device. Results differ in their rounding.
    ///
    /// # Errors
    /// When there should be, and cannot; the model is as it was.
    pub fn fuse(&mut self) -> Result<(), TorchError> {
        let fused = self.transformers().map(|blocks| blocks.load_fused()).collect::<Result<Vec<_>, _>>()?;
        self.transformers().zip(fused).for_each(|(blocks, fused)| blocks.set_fused(fused));
        Ok(())
    }

    fn transformers(&mut self) -> impl Iterator<Item = &mut Blocks> {
        self.vision.blocks_mut().into_iter().chain([self.text.blocks_mut()])
    }

    /// Draws the patches of each image that take part in a training step, for [`Clip::encode_image_patches`], in the memory
    /// of the host; none if the config leaves no patch out. They depend on seed, step and sample alone.
    pub fn draw_patches(&self, step: u64, ids: &[SampleId]) -> Option<Tensor> {
        let vision = &self.config.vision_cfg;
        (vision.patch_dropout > 0.0).then(|| {
            let num_patches = vision.num_tokens() - 1;
            patches::draw(self.seed, step, ids, num_patches, vision.num_kept_patches())
        })
    }

    /// Maps images to unit features (n, embed_dim) in fp32, or in fp64 if the model is.
    ///
    /// Images are (n, 3, size, size): either bytes, which are normalised here, or floating point values that have been
    /// normalised already.
    pub fn encode_image(&self, images: &Tensor, pass: Pass) -> Tensor {
        self.encode_image_patches(images, None, pass)
    }

    /// Like [`Clip::encode_image`], from some patches of each image: `kept` holds their numbers, `i64`, (n, some).
    pub fn encode_image_patches(&self, images: &Tensor, kept: Option<&Tensor>, pass: Pass) -> Tensor {
        let pixels = if images.kind() == Kind::Uint8 {
            self.pixels.normalise(images, self.kind)
        } else {
            images.to_kind(self.kind)
        };
        let pass = match self.locks.image {
            Some(ImageLock { freezes_statistics: true, .. }) => Pass::Evaluation,
            _ => pass,
        };
        unit(&self.vision.forward(&pixels, kept, pass))
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
