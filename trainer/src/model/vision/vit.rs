//! A vision transformer.

use tch::{Kind, Tensor};

use crate::model::config::ModelConfig;
use crate::model::parameters::{Init, ParameterSpec, Parameters};
use crate::model::transformer::{Block, BlockInit, BlockShape, Blocks, LayerNorm, ReadAt, linear_default};

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

    pub(super) fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    /// Cuts pixels (n, 3, h, w) into patches (n, patches, 3·size²). The convolution whose windows do not overlap is a matrix
    /// product over them, for which libraries have faster kernels.
    fn cut(&self, pixels: &Tensor) -> Tensor {
        let size = self.patch_size;
        let (samples, channels, height, width) = pixels.size4().expect("pixels are [n, 3, h, w]");
        let (rows, columns) = (height / size, width / size);
        // A convolution leaves out what does not fill a window.
        let whole = pixels.narrow(2, 0, rows * size).narrow(3, 0, columns * size);
        whole.reshape([samples, channels, rows, size, columns, size]).permute([0, 2, 4, 1, 3, 5]).reshape([
            samples,
            rows * columns,
            channels * size * size,
        ])
    }

    /// Maps normalised pixels (n, 3, h, w) to features (n, embed_dim), not yet of unit length.
    ///
    /// `kept` are the numbers of the patches that take part, `i64`, (n, some); all do if it is absent.
    pub(super) fn forward(&self, pixels: &Tensor, kept: Option<&Tensor>) -> Tensor {
        let patches = self.cut(pixels).linear(&self.conv1.flatten(1, 3), None::<Tensor>); // [n, patches, width]
        let (samples, _, width) = patches.size3().expect("patches are [n, patches, width]");
        let class = self.class_embedding.expand([samples, 1, width], false);
        let x = Tensor::cat(&[class, patches], 1) + &self.positional_embedding;
        let x = match kept {
            Some(kept) => only(&x, kept),
            None => x,
        };
        // OpenCLIP computes and normalises all tokens and keeps the class token; nothing else comes of the others.
        let class = self.blocks.forward(self.ln_pre.forward(&x), &ReadAt::First); // [n, width]
        self.ln_post.forward(&class).matmul(&self.proj)
    }
}

/// Takes the class token and the patches that are kept out of (n, 1 + patches, width).
fn only(x: &Tensor, kept: &Tensor) -> Tensor {
    let (samples, _, width) = x.size3().expect("tokens are [n, 1 + patches, width]");
    let class = Tensor::zeros([samples, 1], (Kind::Int64, kept.device()));
    let tokens = Tensor::cat(&[class, kept + 1], 1); // [n, 1 + kept]
    x.gather(1, &tokens.unsqueeze(2).expand([-1, -1, width], false), false)
}
