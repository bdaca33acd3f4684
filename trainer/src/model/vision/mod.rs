//! The image towers.

mod attention_pool;
mod resnet;
mod vit;

use tch::Tensor;

use super::Pass;
use super::config::{Layers, ModelConfig};
use super::parameters::{ParameterSpec, Parameters};
use super::transformer::Blocks;
use resnet::ResNet;
use vit::VisionTransformer;

/// The image tower that a config asks for.
#[derive(Debug)]
pub(super) enum VisionTower {
    Transformer(VisionTransformer),
    ResNet(ResNet),
}

impl VisionTower {
    pub(super) fn layout(config: &ModelConfig) -> Vec<ParameterSpec> {
        match config.vision_cfg.layers {
            Layers::Blocks(layers) => VisionTransformer::layout(config, layers),
            Layers::Stages(stages) => ResNet::layout(config, stages),
        }
    }

    pub(super) fn new(config: &ModelConfig, parameters: &Parameters) -> Self {
        match config.vision_cfg.layers {
            Layers::Blocks(layers) => Self::Transformer(VisionTransformer::new(config, layers, parameters)),
            Layers::Stages(stages) => Self::ResNet(ResNet::new(config, stages, parameters)),
        }
    }

    /// Returns the blocks of a transformer.
    pub(super) fn blocks_mut(&mut self) -> Option<&mut Blocks> {
        match self {
            Self::Transformer(tower) => Some(tower.blocks_mut()),
            Self::ResNet(_) => None,
        }
    }

    /// Maps normalised pixels (n, 3, size, size) to features (n, embed_dim), not yet of unit length; a transformer only
    /// from the patches `kept`, if any are named.
    pub(super) fn forward(&self, pixels: &Tensor, kept: Option<&Tensor>, pass: Pass) -> Tensor {
        match self {
            Self::Transformer(tower) => tower.forward(pixels, kept),
            Self::ResNet(tower) => tower.forward(pixels, pass),
        }
    }
}
