//! OpenCLIP's models by name.

use super::config::{Layers, ModelConfig, TextConfig, VisionConfig};

/// Put after the name of a model, it asks for x·σ(1.702x) in place of GELU, as OpenAI's weights need.
const QUICK_GELU: &str = "-quickgelu";

/// Ours, for the demo and for tests.
const TOY: &str = "toy";

/// The size of a model: what the configs of OpenCLIP's plain models differ in.
#[derive(Debug, Clone, Copy)]
struct Size {
    name: &'static str,
    embed_dim: i64,
    image_size: i64,
    layers: Layers,
    width: i64,
    patch_size: Option<i64>,
    head_width: i64,
    mlp_ratio: f64,
    layer_scale: Option<f64>,
    /// Width, heads and layers of the text tower.
    text: (i64, i64, i64),
}

/// A model with heads of 64 channels, MLPs of four times the width, and no layer scale.
const fn plain(
    (name, embed_dim, image_size): (&'static str, i64, i64),
    layers: Layers,
    (width, patch_size): (i64, Option<i64>),
    text: (i64, i64, i64),
) -> Size {
    let (head_width, mlp_ratio, layer_scale) = (64, 4.0, None);
    Size { name, embed_dim, image_size, layers, width, patch_size, head_width, mlp_ratio, layer_scale, text }
}

/// A ViT of `layers` blocks of `width` channels over patches of `patch` pixels.
const fn vit(
    name: &'static str,
    embed_dim: i64,
    image_size: i64,
    (layers, width, patch): (i64, i64, i64),
    text: (i64, i64, i64),
) -> Size {
    plain((name, embed_dim, image_size), Layers::Blocks(layers), (width, Some(patch)), text)
}

/// A ViT with other heads and MLPs.
const fn wide(size: Size, head_width: i64, mlp_ratio: f64) -> Size {
    Size { head_width, mlp_ratio, ..size }
}

const fn resnet(
    name: &'static str,
    embed_dim: i64,
    image_size: i64,
    (stages, width): ([i64; 4], i64),
    text: (i64, i64, i64),
) -> Size {
    plain((name, embed_dim, image_size), Layers::Stages(stages), (width, None), text)
}

/// Every model of OpenCLIP 3.3 that is a plain ViT or ResNet with the plain text transformer, and the toy.
const SIZES: [Size; 31] = [
    resnet("RN50", 1024, 224, ([3, 4, 6, 3], 64), (512, 8, 12)),
    resnet("RN101", 512, 224, ([3, 4, 23, 3], 64), (512, 8, 12)),
    resnet("RN50x4", 640, 288, ([4, 6, 10, 6], 80), (640, 10, 12)),
    resnet("RN50x16", 768, 384, ([6, 8, 18, 8], 96), (768, 12, 12)),
    resnet("RN50x64", 1024, 448, ([3, 15, 36, 10], 128), (1024, 16, 12)),
    vit("ViT-S-32", 384, 224, (12, 384, 32), (384, 6, 12)),
    vit("ViT-S-32-alt", 256, 224, (12, 384, 32), (256, 4, 10)),
    vit("ViT-S-16", 384, 224, (12, 384, 16), (384, 6, 12)),
    vit("ViT-S-16-alt", 256, 224, (12, 384, 16), (256, 4, 10)),
    vit("ViT-M-32", 512, 224, (12, 512, 32), (512, 8, 12)),
    vit("ViT-M-32-alt", 384, 224, (12, 512, 32), (384, 6, 12)),
    vit("ViT-M-16", 512, 224, (12, 512, 16), (512, 8, 12)),
    Size { layer_scale: Some(1e-4), ..vit("ViT-M-16-alt", 384, 224, (12, 512, 16), (384, 6, 12)) },
    vit("ViT-B-32", 512, 224, (12, 768, 32), (512, 8, 12)),
    vit("ViT-B-32-256", 512, 256, (12, 768, 32), (512, 8, 12)),
    vit("ViT-B-32-plus-256", 640, 256, (12, 896, 32), (640, 10, 12)),
    vit("ViT-B-16", 512, 224, (12, 768, 16), (512, 8, 12)),
    vit("ViT-B-16-plus", 640, 224, (12, 896, 16), (640, 10, 12)),
    vit("ViT-B-16-plus-240", 640, 240, (12, 896, 16), (640, 10, 12)),
    vit("ViT-L-16", 768, 224, (24, 1024, 16), (768, 12, 12)),
    vit("ViT-L-16-320", 768, 320, (24, 1024, 16), (768, 12, 12)),
    vit("ViT-L-14", 768, 224, (24, 1024, 14), (768, 12, 12)),
    vit("ViT-L-14-280", 768, 280, (24, 1024, 14), (768, 12, 12)),
    vit("ViT-L-14-336", 768, 336, (24, 1024, 14), (768, 12, 12)),
    wide(vit("ViT-H-16", 1024, 224, (32, 1280, 16), (1024, 16, 24)), 80, 4.0),
    wide(vit("ViT-H-14", 1024, 224, (32, 1280, 14), (1024, 16, 24)), 80, 4.0),
    wide(vit("ViT-H-14-378", 1024, 378, (32, 1280, 14), (1024, 16, 24)), 80, 4.0),
    wide(vit("ViT-g-14", 1024, 224, (40, 1408, 14), (1024, 16, 24)), 88, 4.3637),
    wide(vit("ViT-bigG-14", 1280, 224, (48, 1664, 14), (1280, 20, 32)), 104, 4.9231),
    wide(vit("ViT-e-14", 1280, 224, (56, 1792, 14), (1280, 20, 36)), 112, 8.5715),
    wide(vit(TOY, 96, 48, (3, 128, 8), (96, 3, 2)), 32, 4.0),
];

/// Returns the model of this name.
pub(super) fn built_in(name: &str) -> Option<ModelConfig> {
    let (base, quick_gelu) = match name.strip_suffix(QUICK_GELU) {
        Some(base) => (base, true),
        None => (name, false),
    };
    let size = SIZES.iter().find(|size| size.name == base)?;
    let (width, heads, layers) = size.text;
    Some(ModelConfig {
        embed_dim: size.embed_dim,
        vision_cfg: VisionConfig {
            image_size: size.image_size,
            layers: size.layers,
            width: size.width,
            patch_size: size.patch_size,
            head_width: size.head_width,
            mlp_ratio: size.mlp_ratio,
            ls_init_value: size.layer_scale,
            patch_dropout: 0.0,
        },
        text_cfg: TextConfig { width, heads, layers, ..TextConfig::default() },
        quick_gelu,
        init_logit_bias: None,
        custom_text: false,
    })
}

/// Returns the names, without those for another activation.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SIZES.iter().map(|size| size.name)
}

/// Lists the names, for messages.
pub(super) fn listed() -> String {
    let names: Vec<_> = names().map(|name| format!("`{name}`")).collect();
    format!("{} (each also with `{QUICK_GELU}`)", names.join(", "))
}
