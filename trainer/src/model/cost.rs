//! What a model costs: parameters, floating point operations, and what backward keeps, from the config alone.

use super::Clip;
use super::config::{Layers, ModelConfig, VisionConfig};
use super::parameters::Role;

/// What one sample costs a tower in a forward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TowerCost {
    /// Floating point operations of matrix products and convolutions; a multiplication and an addition are two. Those of the
    /// model as OpenCLIP computes it, which is what utilisation is measured by: tokens that nobody reads are counted.
    pub flops: u64,
    /// Numbers that are kept for backward: the inputs of all that is not a sum.
    pub kept: u64,
    /// Those that are left when transformers compute their blocks again: the inputs of blocks, and the inside of one.
    pub kept_recomputing: u64,
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelCost {
    /// Trained numbers.
    pub parameters: u64,
    /// Those of the image tower.
    pub image_parameters: u64,
    /// The image tower.
    pub image: TowerCost,
    /// The text tower, over captions of full length.
    pub text: TowerCost,
}

impl ModelCost {
    /// Adds up what a model of this config costs, without making it.
    pub fn of(config: &ModelConfig) -> Self {
        let (mut parameters, mut image_parameters) = (0, 0);
        for spec in Clip::layout(config).iter().filter(|spec| spec.role == Role::Parameter) {
            parameters += spec.numel() as u64;
            if spec.name.starts_with("visual.") {
                image_parameters += spec.numel() as u64;
            }
        }
        let text = &config.text_cfg;
        let mut text_cost = blocks(text.layers, text.context_length, text.width, text.mlp_width());
        text_cost.product(1, text.width, config.embed_dim);
        let image = match config.vision_cfg.layers {
            Layers::Blocks(layers) => transformer(&config.vision_cfg, layers, config.embed_dim),
            Layers::Stages(stages) => resnet(&config.vision_cfg, stages, config.embed_dim),
        };
        Self { parameters, image_parameters, image, text: text_cost }
    }

    /// Operations of a training step on one sample: backward makes two products for each of forward.
    pub fn training_flops(&self) -> u64 {
        3 * (self.image.flops + self.text.flops)
    }
}

impl TowerCost {
    /// `rows` of `from` numbers become rows of `to`.
    fn product(&mut self, rows: i64, from: i64, to: i64) {
        self.flops += 2 * (rows * from * to) as u64;
    }

    fn keep(&mut self, numbers: i64) {
        self.kept += numbers as u64;
        self.kept_recomputing += numbers as u64;
    }
}

/// So many blocks over `tokens` of `width`.
fn blocks(layers: i64, tokens: i64, width: i64, mlp_width: i64) -> TowerCost {
    let mut block = TowerCost::default();
    block.product(tokens, width, 3 * width);
    block.product(tokens, tokens, 2 * width); // scores, and values weighed by them
    block.product(tokens, width, width);
    block.product(tokens, width, mlp_width);
    block.product(tokens, mlp_width, width);
    // Inputs of the first norm and of what follows it; queries, keys, values; attention's result, once as it comes and once
    // with its heads side by side.
    let attention = tokens * (2 * width + 3 * width + 2 * width);
    // Inputs of the second norm and of what follows it; the MLP before and after GELU.
    block.keep(attention + tokens * (2 * width + 2 * mlp_width));
    let inputs = (layers * tokens * width) as u64;
    TowerCost {
        flops: layers as u64 * block.flops,
        // Of the last block one token is read.
        kept: (layers - 1) as u64 * block.kept + attention as u64,
        kept_recomputing: inputs + block.kept,
    }
}

fn transformer(vision: &VisionConfig, layers: i64, embed_dim: i64) -> TowerCost {
    let (tokens, width) = (vision.num_tokens(), vision.width);
    let mut cost = blocks(layers, 1 + vision.num_kept_patches(), width, vision.mlp_width());
    let patch = 3 * vision.stride() * vision.stride();
    cost.product(tokens - 1, patch, width);
    cost.keep((tokens - 1) * patch + tokens * width);
    cost.product(1, width, embed_dim);
    cost
}

fn resnet(vision: &VisionConfig, stages: [i64; 4], embed_dim: i64) -> TowerCost {
    let mut cost = TowerCost::default();
    // A convolution keeps its input, the norm after it the convolution's output.
    let mut convolution = |side: i64, from: i64, to: i64, size: i64| {
        cost.product(side * side, from * size * size, to);
        cost.keep(side * side * (from + to));
    };
    let mut side = vision.image_size / 2;
    convolution(side, 3, vision.width / 2, 3);
    convolution(side, vision.width / 2, vision.width / 2, 3);
    convolution(side, vision.width / 2, vision.width, 3);
    side /= 2;
    let mut from = vision.width;
    for (stage, number) in stages.into_iter().enumerate() {
        let inner = vision.width << stage;
        for index in 0..number {
            convolution(side, from, inner, 1);
            convolution(side, inner, inner, 3);
            if stage > 0 && index == 0 {
                side /= 2;
            }
            convolution(side, inner, 4 * inner, 1);
            if index == 0 {
                convolution(side, from, 4 * inner, 1);
            }
            from = 4 * inner;
        }
    }
    let (tokens, width) = (vision.num_tokens(), vision.attention_width());
    cost.product(2 * tokens + 1, width, width); // keys, values and one query
    cost.product(1, tokens, 2 * width);
    cost.product(1, width, embed_dim);
    cost.keep(3 * tokens * width);
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str) -> ModelCost {
        ModelCost::of(&ModelConfig::load(name).unwrap())
    }

    #[test]
    fn parameters_are_counted_without_statistics() {
        assert_eq!(cost("RN50").parameters, 102_007_137);
        assert_eq!(cost("ViT-B-16").parameters, 149_620_737);
        assert_eq!(cost("ViT-B-32").image_parameters, 87_849_216);
    }
}
