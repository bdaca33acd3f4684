//! The text tower.

use tch::{Kind, Tensor};

use super::config::ModelConfig;
use super::parameters::{Init, ParameterSpec, Parameters};
use super::transformer::{Block, BlockInit, BlockShape, Blocks, LayerNorm, ReadAt};

/// A causal transformer over tokens, read at the end token.
#[derive(Debug)]
pub(super) struct TextTower {
    positional_embedding: Tensor,
    text_projection: Tensor,
    token_embedding: Tensor,
    blocks: Blocks,
    ln_final: LayerNorm,
}

fn block_name(index: i64) -> String {
    format!("transformer.resblocks.{index}")
}

fn block_shape(config: &ModelConfig) -> BlockShape {
    let text = &config.text_cfg;
    BlockShape {
        width: text.width,
        heads: text.heads,
        mlp_width: text.mlp_width(),
        is_causal: true,
        quick_gelu: config.quick_gelu,
        layer_scale: text.ls_init_value,
    }
}

impl TextTower {
    /// The parameters that OpenCLIP keeps at the root, before the image tower's.
    pub(super) fn root_layout(config: &ModelConfig) -> Vec<ParameterSpec> {
        let text = &config.text_cfg;
        let projection = Init::Normal((text.width as f64).powf(-0.5));
        vec![
            ParameterSpec::new(
                "positional_embedding",
                &[text.context_length, text.width],
                Init::Normal(0.01),
            ),
            ParameterSpec::new("text_projection", &[text.width, config.embed_dim], projection),
        ]
    }

    /// The parameters that follow the image tower's.
    pub(super) fn layout(config: &ModelConfig) -> Vec<ParameterSpec> {
        let text = &config.text_cfg;
        let width = text.width as f64;
        let into_residual = Init::Normal(width.powf(-0.5) * (2.0 * text.layers as f64).powf(-0.5));
        let init = BlockInit {
            in_proj: Init::Normal(width.powf(-0.5)),
            out_proj: into_residual,
            c_fc: Init::Normal((2.0 * width).powf(-0.5)),
            c_proj: into_residual,
        };
        let mut specs = Vec::new();
        for index in 0..text.layers {
            specs.extend(Block::layout(&block_name(index), block_shape(config), init));
        }
        specs.push(ParameterSpec::new(
            "token_embedding.weight",
            &[text.vocab_size, text.width],
            Init::Normal(0.02),
        ));
        specs.extend(LayerNorm::layout("ln_final", text.width));
        specs
    }

    pub(super) fn new(config: &ModelConfig, parameters: &Parameters) -> Self {
        Self {
            positional_embedding: parameters.handle("positional_embedding"),
            text_projection: parameters.handle("text_projection"),
            token_embedding: parameters.handle("token_embedding.weight"),
            blocks: Blocks::new(parameters, config.text_cfg.layers, block_name, block_shape(config)),
            ln_final: LayerNorm::new(parameters, "ln_final"),
        }
    }

    pub(super) fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    /// Maps tokens (n, length) to features (n, embed_dim), not yet of unit length.
    ///
    /// The end token has the largest id, so it is where the ids are largest; columns after the last end token change
    /// nothing, because attention looks back only.
    pub(super) fn forward(&self, tokens: &Tensor) -> Tensor {
        let tokens = tokens.to_kind(Kind::Int64);
        let length = tokens.size()[1];
        let embedded = Tensor::embedding(&self.token_embedding, &tokens, -1, false, false);
        let x = embedded + self.positional_embedding.narrow(0, 0, length); // [n, length, width]
        let width = x.size()[2];
        let end = tokens.argmax(1, true).unsqueeze(2).expand([-1, 1, width], false);
        let pooled = self.blocks.forward(x, &ReadAt::Gathered(end)); // [n, width]
        self.ln_final.forward(&pooled).matmul(&self.text_projection)
    }
}
