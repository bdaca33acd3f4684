//! What is trained, resolved.

use super::{ConfigError, Settings, refuse};
use crate::model::{ImageLock, Layers, Locks, ModelConfig, TextLock};

/// Finds the model config and lays the settings over it.
pub(super) fn resolve(settings: &mut Settings) -> Result<ModelConfig, ConfigError> {
    let mut model = ModelConfig::load(&settings.model).map_err(ConfigError::Model)?;
    model.quick_gelu |= settings.force_quick_gelu;
    let image_size = *settings.image_size.get_or_insert(model.vision_cfg.image_size);
    let stride = model.vision_cfg.stride();
    if image_size < 1 || image_size % stride != 0 || image_size > 4096 {
        let rule = format!("it must be a multiple of {stride} for this model, up to 4096");
        return Err(refuse("image_size", image_size, rule));
    }
    model.vision_cfg.image_size = image_size;
    if let Some(length) = settings.context_length {
        if !(3..=4096).contains(&length) {
            return Err(refuse(
                "context_length",
                length,
                "a caption has a start, an end and something between, up to 4096 tokens",
            ));
        }
        model.text_cfg.context_length = length;
    }
    if let Some(fraction) = settings.patch_dropout {
        if !(0.0..1.0).contains(&fraction) {
            return Err(refuse("patch_dropout", fraction, "it must lie in [0, 1)"));
        }
        if fraction > 0.0 && matches!(model.vision_cfg.layers, Layers::Stages(_)) {
            return Err(refuse("patch_dropout", fraction, "a ResNet has no patches"));
        }
        model.vision_cfg.patch_dropout = fraction;
    }
    Ok(model)
}

/// Puts together what is not trained.
pub(super) fn locks(settings: &Settings, model: &ModelConfig) -> Result<Locks, ConfigError> {
    let unlocked_groups = settings.lock_image_unlocked_groups;
    let is_resnet = matches!(model.vision_cfg.layers, Layers::Stages(_));
    if settings.lock_image && unlocked_groups > 0 && is_resnet {
        let rule = "a ResNet can be locked as a whole only";
        return Err(refuse("lock_image_unlocked_groups", unlocked_groups, rule));
    }
    for (key, is_set, lock) in [
        ("lock_image_unlocked_groups", unlocked_groups > 0, ("lock_image", settings.lock_image)),
        (
            "lock_image_freeze_bn_stats",
            settings.lock_image_freeze_bn_stats,
            ("lock_image", settings.lock_image),
        ),
        (
            "lock_text_unlocked_layers",
            settings.lock_text_unlocked_layers > 0,
            ("lock_text", settings.lock_text),
        ),
    ] {
        let (name, is_locked) = lock;
        if is_set && !is_locked {
            return Err(refuse(
                key,
                "set",
                format!("`{name}` is not, so there is nothing to except from it"),
            ));
        }
    }
    let image = ImageLock { unlocked_groups, freezes_statistics: settings.lock_image_freeze_bn_stats };
    Ok(Locks {
        image: settings.lock_image.then_some(image),
        text: settings.lock_text.then_some(TextLock { unlocked_groups: settings.lock_text_unlocked_layers }),
    })
}
