//! Parts of a model that are not trained, as OpenCLIP cuts it into groups.
//!
//! | group of a tower | holds |
//! |---|---|
//! | first | embeddings of patches or tokens, of places, of the class; the norm before the blocks |
//! | one for each block but the last | the block |
//! | last but one | the last block and the norm after it |
//! | last | the projection |
//!
//! A ResNet is one group. The temperature belongs to no tower and is never locked.

use super::config::{Layers, ModelConfig};

/// Parts of a model that are not trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Locks {
    /// The image tower.
    pub image: Option<ImageLock>,
    /// The text tower.
    pub text: Option<TextLock>,
}

/// How the image tower is locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageLock {
    /// Groups at the end that are trained all the same.
    pub unlocked_groups: u64,
    /// Batch norms normalise by what they have gathered, and gather nothing more.
    pub freezes_statistics: bool,
}

/// How the text tower is locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextLock {
    /// Groups at the end that are trained all the same.
    pub unlocked_groups: u64,
}

impl Locks {
    /// Returns whether the parameter of this name is not trained.
    pub fn covers(&self, name: &str, config: &ModelConfig) -> bool {
        let image = name.strip_prefix("visual.");
        let layers = match (image, config.vision_cfg.layers) {
            (Some(_), Layers::Stages(_)) => return self.image.is_some(),
            (Some(_), Layers::Blocks(layers)) => layers,
            (None, _) => config.text_cfg.layers,
        };
        let unlocked = match image {
            Some(_) => self.image.map(|lock| lock.unlocked_groups),
            None => self.text.map(|lock| lock.unlocked_groups),
        };
        let (Some(group), Some(unlocked)) = (group(image.unwrap_or(name), layers as u64), unlocked) else {
            return false;
        };
        group + unlocked < layers as u64 + 2
    }
}

/// Returns the number of the group that a tower's parameter belongs to; the tower has two more than blocks.
fn group(name: &str, layers: u64) -> Option<u64> {
    if let Some(rest) = name.strip_prefix("transformer.resblocks.") {
        let (index, _) = rest.split_once('.')?;
        return Some(1 + index.parse::<u64>().ok()?);
    }
    match name.split('.').next()? {
        "conv1" | "class_embedding" | "positional_embedding" | "ln_pre" | "token_embedding" => Some(0),
        "ln_post" | "ln_final" => Some(layers),
        "proj" | "text_projection" => Some(layers + 1),
        _ => None,
    }
}
