//! What a model consists of, in OpenCLIP's JSON.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::built_in;

/// Pixels a side that become one place of a ResNet's last stage, and the factor by which its channels grow.
const RESNET_STRIDE: i64 = 32;

/// A CLIP model with a vision transformer or a ResNet, and a text transformer, as OpenCLIP describes it.
///
/// A key that is not known here is an error, because a model that silently lacks what its config asks for trains for
/// weeks before anybody notices. `custom_text` is accepted as long as it is false.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Dimension of the space that images and texts share.
    pub embed_dim: i64,
    /// The image tower.
    pub vision_cfg: VisionConfig,
    /// The text tower.
    pub text_cfg: TextConfig,
    /// Uses x·σ(1.702x) for GELU in both towers, as OpenAI's original weights do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quick_gelu: bool,
    /// First value of the scalar that the sigmoid loss adds to its logits; models for other losses have none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init_logit_bias: Option<f64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) custom_text: bool,
}

/// Depth of the image tower, which also says of what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    /// Blocks of a vision transformer.
    Blocks(i64),
    /// Bottlenecks in the four stages of a ResNet.
    Stages([i64; 4]),
}

/// The image tower: a vision transformer or a ResNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Height and width of its input.
    pub image_size: i64,
    /// Depth, and thereby kind.
    pub layers: Layers,
    /// Channels of a transformer's residual stream, or of a ResNet's stem.
    pub width: i64,
    /// Height and width of a transformer's patch; a ResNet has none.
    pub patch_size: Option<i64>,
    /// Channels of an attention head.
    #[serde(default = "default_head_width")]
    pub head_width: i64,
    /// Width of the MLP's hidden layer over `width`.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// First value of the factors on what a block adds to the residual stream; none unless set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ls_init_value: Option<f64>,
    /// Fraction of patches that a training step leaves out of each image; 0 for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub patch_dropout: f64,
}

/// The text tower: a causal transformer that is read at the end token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Tokens of a padded caption, start and end included.
    #[serde(default = "default_context_length")]
    pub context_length: i64,
    /// Number of token ids.
    #[serde(default = "default_vocab_size")]
    pub vocab_size: i64,
    /// Channels of its residual stream.
    #[serde(default = "default_text_width")]
    pub width: i64,
    /// Number of attention heads.
    #[serde(default = "default_heads")]
    pub heads: i64,
    /// Number of blocks.
    #[serde(default = "default_layers")]
    pub layers: i64,
    /// Width of the MLP's hidden layer over `width`.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// First value of the factors on what a block adds to the residual stream; none unless set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ls_init_value: Option<f64>,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            context_length: default_context_length(),
            vocab_size: default_vocab_size(),
            width: default_text_width(),
            heads: default_heads(),
            layers: default_layers(),
            mlp_ratio: default_mlp_ratio(),
            ls_init_value: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// OpenCLIP's own defaults.
const fn default_head_width() -> i64 {
    64
}
const fn default_mlp_ratio() -> f64 {
    4.0
}
const fn default_context_length() -> i64 {
    77
}
const fn default_vocab_size() -> i64 {
    49_408
}
const fn default_text_width() -> i64 {
    512
}
const fn default_heads() -> i64 {
    8
}
const fn default_layers() -> i64 {
    12
}

/// A model config that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelConfigError {
    /// Neither a name we know nor a file.
    #[error("there is no model config `{name}`: it is neither a file nor one of {}", built_in::listed())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file could not be read.
    #[error("could not read model config `{name}`")]
    Read {
        /// Path of the file.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not JSON, or with keys that are not known, or without keys that are needed.
    #[error("could not understand model config `{name}`")]
    Json {
        /// Name or path of the config.
        name: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Asks for something that is not built.
    #[error("model config `{name}` sets `{key}` to {value}: {reason}")]
    Value {
        /// Name or path of the config.
        name: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ModelConfig {
    /// Finds a config by one of the built-in names, or reads it from a JSON file.
    ///
    /// # Errors
    /// When there is no such config, or it asks for a model that is not built here.
    pub fn load(name_or_path: &str) -> Result<Self, ModelConfigError> {
        if let Some(config) = built_in::built_in(name_or_path) {
            return Ok(config);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            return Err(ModelConfigError::Unknown { name: name_or_path.to_owned() });
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| ModelConfigError::Read { name: name_or_path.to_owned(), source })?;
        Self::from_json(name_or_path, &text)
    }

    /// Returns the built-in names; each may be followed by `-quickgelu`.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        built_in::names()
    }

    /// Parses and checks OpenCLIP's JSON; `name` is for messages only.
    ///
    /// # Errors
    /// When it is not such JSON, or asks for a model that is not built here.
    pub fn from_json(name: &str, text: &str) -> Result<Self, ModelConfigError> {
        let config: Self = serde_json::from_str(text)
            .map_err(|source| ModelConfigError::Json { name: name.to_owned(), source })?;
        config.check(name)?;
        Ok(config)
    }

    fn check(&self, name: &str) -> Result<(), ModelConfigError> {
        let Self { embed_dim, vision_cfg: vision, text_cfg: text, .. } = self;
        let refuse = |key: &'static str, value: String, reason: &'static str| {
            Err(ModelConfigError::Value { name: name.to_owned(), key, value, reason })
        };
        for (key, value) in [
            ("embed_dim", *embed_dim),
            ("vision_cfg.image_size", vision.image_size),
            ("vision_cfg.width", vision.width),
            ("vision_cfg.head_width", vision.head_width),
            ("text_cfg.context_length", text.context_length),
            ("text_cfg.vocab_size", text.vocab_size),
            ("text_cfg.width", text.width),
            ("text_cfg.heads", text.heads),
            ("text_cfg.layers", text.layers),
        ] {
            if value < 1 {
                return refuse(key, value.to_string(), "it must be at least 1");
            }
        }
        let image_size = vision.image_size.to_string();
        match vision.layers {
            Layers::Blocks(layers) if layers < 1 => {
                return refuse("vision_cfg.layers", layers.to_string(), "it must be at least 1");
            }
            Layers::Blocks(_) => {
                let Some(patch_size) = vision.patch_size.filter(|&size| size >= 1) else {
                    let value = vision.patch_size.map_or("null".to_owned(), |size| size.to_string());
                    return refuse("vision_cfg.patch_size", value, "a vision transformer needs one");
                };
                if vision.image_size % patch_size != 0 {
                    let rule = "it must be a multiple of `vision_cfg.patch_size`";
                    return refuse("vision_cfg.image_size", image_size, rule);
                }
            }
            Layers::Stages(stages) => {
                if stages.iter().any(|&bottlenecks| bottlenecks < 1) {
                    let value = format!("{stages:?}");
                    return refuse("vision_cfg.layers", value, "every stage needs a bottleneck");
                }
                if vision.image_size % RESNET_STRIDE != 0 {
                    return refuse("vision_cfg.image_size", image_size, "a ResNet needs a multiple of 32");
                }
                if vision.ls_init_value.is_some() {
                    let value = format!("{:?}", vision.ls_init_value);
                    return refuse("vision_cfg.ls_init_value", value, "a ResNet has no layer scale");
                }
            }
        }
        if vision.attention_width() % vision.head_width != 0 {
            let value = vision.width.to_string();
            return refuse("vision_cfg.width", value, "it must be a multiple of `vision_cfg.head_width`");
        }
        if text.width % text.heads != 0 {
            let value = text.width.to_string();
            return refuse("text_cfg.width", value, "it must be a multiple of `text_cfg.heads`");
        }
        for (key, ratio) in
            [("vision_cfg.mlp_ratio", vision.mlp_ratio), ("text_cfg.mlp_ratio", text.mlp_ratio)]
        {
            if !(ratio.is_finite() && ratio > 0.0) {
                return refuse(key, ratio.to_string(), "it must be positive");
            }
        }
        if self.custom_text {
            return refuse("custom_text", "true".to_owned(), "only the plain text tower is built");
        }
        if !(0.0..1.0).contains(&vision.patch_dropout) {
            let value = vision.patch_dropout.to_string();
            return refuse("vision_cfg.patch_dropout", value, "it must lie in [0, 1)");
        }
        if vision.patch_dropout != 0.0 && matches!(vision.layers, Layers::Stages(_)) {
            let value = vision.patch_dropout.to_string();
            return refuse("vision_cfg.patch_dropout", value, "a ResNet has no patches");
        }
        Ok(())
    }
}

impl VisionConfig {
    /// Returns the channels that attention sees: those of the blocks, or of a ResNet's last stage.
    pub(super) fn attention_width(&self) -> i64 {
        match self.layers {
            Layers::Blocks(_) => self.width,
            Layers::Stages(_) => self.width * RESNET_STRIDE,
        }
    }

    /// Returns the number of attention heads.
    pub fn heads(&self) -> i64 {
        self.attention_width() / self.head_width
    }

    /// Returns what the image size must be a multiple of.
    pub fn stride(&self) -> i64 {
        self.patch_size.unwrap_or(RESNET_STRIDE)
    }

    /// Returns the number of tokens that attention sees: one a patch or place, and the class token or the mean.
    pub fn num_tokens(&self) -> i64 {
        let side = self.image_size / self.stride();
        side * side + 1
    }

    /// Returns the number of patches of an image that take part in a training step; OpenCLIP's rule.
    pub fn num_kept_patches(&self) -> i64 {
        let num_patches = self.num_tokens() - 1;
        ((num_patches as f64 * (1.0 - self.patch_dropout)) as i64).max(1)
    }

    /// Returns the width of the MLP's hidden layer.
    pub fn mlp_width(&self) -> i64 {
        (self.width as f64 * self.mlp_ratio) as i64
    }
}

impl TextConfig {
    /// Returns the width of the MLP's hidden layer.
    pub fn mlp_width(&self) -> i64 {
        (self.width as f64 * self.mlp_ratio) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIT_B_32: &str = r#"{
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    }"#;

    fn message(text: &str) -> String {
        let error = ModelConfig::from_json("test.json", text).unwrap_err();
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn a_built_in_model_is_what_its_file_would_say() {
        let file = ModelConfig::from_json("", VIT_B_32).unwrap();
        assert_eq!(ModelConfig::load("ViT-B-32").unwrap(), file);
        let quick = ModelConfig { quick_gelu: true, ..file };
        assert_eq!(ModelConfig::load("ViT-B-32-quickgelu").unwrap(), quick);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let text = VIT_B_32.replacen("\"layers\"", "\"timm_pool\": \"avg\", \"layers\"", 1);
        let message = message(&text);
        assert!(message.contains("timm_pool") && message.contains("test.json"), "{message}");
    }

    #[test]
    fn known_keys_may_ask_only_for_what_is_built() {
        let harmless = VIT_B_32.replacen("\"layers\"", "\"ls_init_value\": null, \"layers\"", 1);
        assert_eq!(
            ModelConfig::from_json("", &harmless).unwrap(),
            ModelConfig::from_json("", VIT_B_32).unwrap()
        );
        let message = message(&VIT_B_32.replacen("\"layers\"", "\"patch_dropout\": 1.0, \"layers\"", 1));
        assert!(message.contains("vision_cfg.patch_dropout") && message.contains("[0, 1)"), "{message}");
    }

    #[test]
    fn a_patch_that_does_not_divide_the_image_is_refused() {
        let message = message(&VIT_B_32.replacen("\"patch_size\": 32", "\"patch_size\": 33", 1));
        assert!(message.contains("vision_cfg.image_size"), "{message}");
    }

    #[test]
    fn a_name_that_is_no_config_lists_those_that_are() {
        let message = ModelConfig::load("ViT-B-31").unwrap_err().to_string();
        assert!(message.contains("ViT-B-31") && message.contains("`ViT-B-32`"), "{message}");
    }
}
