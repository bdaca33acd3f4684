//! A vision transformer.

use tch::{Kind, Tensor};

use crate::model::config::ModelConfig;
use crate::model::parameters::{Init, ParameterSpec, Parameters};
use crate::model::transformer::{Block, BlockInit, BlockShape, Blocks, LayerNorm, linear_default};

/// A vision transformer: patches, class token, blocks; read at the class token.
#[derive(Debug)]
pub(crate) struct VisionTransformer {
    patch_size: i64,
    class_embedding: Tensor,
    positional_embedding: Tensor,
    proj: Tensor,
    conv1: Tensor,
    ln_pre: LayerNorm,
    blocks: Blocks,
    ln_post: LayerNorm,
}

fn block_name(index: i64) -> String {
    format!("visual.transformer.resblocks.{index}")
}

fn block_shape(config: &ModelConfig) -> BlockShape {
    let vision = &config.vision_cfg;
    BlockShape {
        width: vision.width,
        heads: vision.heads(),
        mlp_width: vision.mlp_width(),
        is_causal: false,
        quick_gelu: config.quick_gelu,
        layer_scale: vision.ls_init_value,
    }
}

impl VisionTransformer {
    pub(super) fn layout(config: &ModelConfig, layers: i64) -> Vec<ParameterSpec> {
        let vision = &config.vision_cfg;
        let (width, patch) = (vision.width, vision.stride());
        let embedding = Init::Normal((width as f64).powf(-0.5));
        let mut specs = vec![
            ParameterSpec::new("visual.class_embedding", &[width], embedding),
            ParameterSpec::new("visual.positional_embedding", &[vision.num_tokens(), width], embedding),
            ParameterSpec::new("visual.proj", &[width, config.embed_dim], embedding),
            ParameterSpec::new(
                "visual.conv1.weight",
                &[width, 3, patch, patch],
                linear_default(3 * patch * patch),
            ),
        ];
        specs.extend(LayerNorm::layout("visual.ln_pre", width));
        let init = BlockInit {
            // Xavier's uniform distribution over (3·width, width).
            in_proj: Init::Uniform((6.0 / (4.0 * width as f64)).sqrt()),
            out_proj: linear_default(width),
            c_fc: linear_default(width),
            c_proj: linear_default(vision.mlp_width()),
        };
        for index in 0..layers {
            specs.extend(Block::layout(&block_name(index), block_shape(config), init));
        }
        specs.extend(LayerNorm::layout("visual.ln_post", width));
        specs
    }

    pub(super) fn new(config: &ModelConfig, layers: i64, parameters: &Parameters) -> Self {
        Self {
            patch_size: config.vision_cfg.stride(),
            class_embedding: parameters.handle("visual.class_embedding"),
            positional_embedding: parameters.handle("visual.positional_embedding"),
            proj: parameters.handle("visual.proj"),
            conv1: parameters.handle("visual.conv1.weight"),
            ln_pre: LayerNorm::new(parameters, "visual.ln_pre"),
            blocks: Blocks::new(parameters, layers, block_name, block_shape(config)),
            ln_post: LayerNorm::new(parameters, "visual.ln_post"),
        }
    }

    /// Says whether backward computes again what happens inside of a block.
    pub(super) fn set_recomputes(&mut self, recomputes: bool) {
        self.blocks.set_recomputes(recomputes);
    }

    /// Maps normalised pixels (n, 3, h, w) to features (n, embed_dim), not yet of unit length.
    ///
    /// `kept` are the numbers of the patches that take part, `i64`, (n, some); all do if it is absent.
    pub(super) fn forward(&self, pixels: &Tensor, kept: Option<&Tensor>) -> Tensor {
        let stride = [self.patch_size, self.patch_size];
        let patches = pixels
            .conv2d(&self.conv1, None::<Tensor>, stride, [0, 0], [1, 1], 1) // [n, width, rows, columns]
            .flatten(2, 3)
            .transpose(1, 2); // [n, patches, width]
        let (samples, _, width) = patches.size3().expect("patches were flattened to three dimensions");
        let class = self.class_embedding.expand([samples, 1, width], false);
        let x = Tensor::cat(&[class, patches], 1) + &self.positional_embedding;
        let x = match kept {
            Some(kept) => only(&x, kept),
            None => x,
        };
        let x = self.blocks.forward(self.ln_pre.forward(&x));
        // OpenCLIP normalises all tokens and keeps the class token; normalising the one that is kept is the same.
        self.ln_post.forward(&x.select(1, 0)).matmul(&self.proj)
    }
}

/// Takes the class token and the patches that are kept out of (n, 1 + patches, width).
fn only(x: &Tensor, kept: &Tensor) -> Tensor {
    let (samples, _, width) = x.size3().expect("tokens are [n, 1 + patches, width]");
    let class = Tensor::zeros([samples, 1], (Kind::Int64, kept.device()));
    let tokens = Tensor::cat(&[class, kept + 1], 1); // [n, 1 + kept]
    x.gather(1, &tokens.unsqueeze(2).expand([-1, -1, width], false), false)
}
