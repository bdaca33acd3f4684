//! Weights of elsewhere, made to fit a model: their names, and their position embeddings.

use std::collections::HashMap;
use std::fmt;

use tch::{Kind, Tensor, no_grad};

use super::parameters::{Parameter, Parameters};
use super::{LOG_SCALE, LOGIT_BIAS};

/// What wrappers for data parallelism, compilation and checkpoints put before every name.
const WRAPPERS: [&str; 4] = ["state_dict.", "module.", "_orig_mod.", "model."];

/// What OpenCLIP puts before the names of the text tower where it is a module of its own.
const TEXT_TOWER: &str = "text.";

/// Not weights: sizes that OpenAI's archives hold, and constants that older files do.
const NO_WEIGHTS: [&str; 4] = ["input_resolution", "context_length", "vocab_size", "attn_mask"];

/// Embeddings of the patches or places of an image, after that of the class or the mean.
const IMAGE_POSITIONS: [&str; 2] = ["visual.positional_embedding", "visual.attnpool.positional_embedding"];
const TEXT_POSITIONS: &str = "positional_embedding";

/// Names listed in a message before it says how many more there are.
const NUM_LISTED: usize = 6;

/// How weights and model differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Parameters of the model that are not there.
    pub missing: Vec<String>,
    /// Tensors that are no parameters of the model.
    pub unexpected: Vec<String>,
    /// Name, shape and the shape that the model needs, where those differ.
    pub shapes: Vec<(String, Vec<i64>, Vec<i64>)>,
}

impl Mismatch {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.shapes.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect();
        let shapes =
            self.shapes.iter().map(|(name, found, needed)| format!("`{name}` {found:?}, not {needed:?}"));
        let parts: Vec<String> = [
            ("missing", quoted(&self.missing)),
            ("unknown", quoted(&self.unexpected)),
            ("of another shape", shapes.collect::<Vec<String>>()),
        ]
        .into_iter()
        .filter(|(_, listed)| !listed.is_empty())
        .map(|(what, listed)| format!("{} {what} ({})", listed.len(), shortened(&listed)))
        .collect();
        f.write_str(&parts.join("; "))
    }
}

fn shortened(listed: &[String]) -> String {
    let shown = listed[..listed.len().min(NUM_LISTED)].join(", ");
    match listed.len().saturating_sub(NUM_LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Gives tensors the names of a state dict of a plain CLIP, and drops what is no weight.
pub(super) fn renamed(tensors: impl IntoIterator<Item = (String, Tensor)>) -> HashMap<String, Tensor> {
    tensors.into_iter().filter_map(|(name, tensor)| Some((plain_name(&name)?.to_owned(), tensor))).collect()
}

fn plain_name(mut name: &str) -> Option<&str> {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    let name = name.strip_prefix(TEXT_TOWER).unwrap_or(name);
    (!NO_WEIGHTS.contains(&name)).then_some(name)
}

/// Brings the tensors of another resolution, context length or loss into the shapes of a model, as OpenCLIP does.
///
/// A model for the sigmoid loss takes weights of another loss with a bias of zero.
pub(super) fn adapt(saved: &mut HashMap<String, Tensor>, parameters: &Parameters) {
    for Parameter { name, tensor, .. } in parameters.state() {
        let needed = tensor.size();
        let Some(found) = saved.get_mut(name) else {
            if name == LOGIT_BIAS {
                saved.insert(name.clone(), tensor.zeros_like());
            }
            continue;
        };
        if found.size() == needed {
            continue;
        }
        let adapted = if [LOG_SCALE, LOGIT_BIAS].contains(&name.as_str()) && found.numel() == 1 {
            Some(found.reshape(&needed))
        } else if IMAGE_POSITIONS.contains(&name.as_str()) {
            image_positions(found, &needed)
        } else if name == TEXT_POSITIONS {
            text_positions(found, &needed)
        } else {
            None
        };
        if let Some(adapted) = adapted {
            if found.dim() == 2 {
                tracing::info!("`{name}` is interpolated from {} to {} places", found.size()[0], needed[0]);
            }
            *found = adapted;
        }
    }
}

/// Interpolates [1 + rows·columns, width] by a bicubic kernel that is widened where it shrinks, all but the first row.
/// None if either is not made of a square.
fn image_positions(found: &Tensor, needed: &[i64]) -> Option<Tensor> {
    let (&[places, width], &[needed_places, needed_width]) = (&found.size()[..], needed) else { return None };
    let (side, needed_side) = (square_root(places - 1)?, square_root(needed_places - 1)?);
    if width != needed_width {
        return None;
    }
    let found = found.to_kind(Kind::Float);
    let grid = found.narrow(0, 1, places - 1).reshape([1, side, side, width]).permute([0, 3, 1, 2]);
    let grid = grid.internal_upsample_bicubic2d_aa([needed_side, needed_side], false, None, None);
    let grid = grid.permute([0, 2, 3, 1]).reshape([needed_places - 1, width]);
    Some(Tensor::cat(&[found.narrow(0, 0, 1), grid], 0))
}

fn square_root(number: i64) -> Option<i64> {
    let root = (number.max(0) as f64).sqrt().round() as i64;
    (root > 0 && root * root == number).then_some(root)
}

/// Interpolates [length, width] along straight lines.
fn text_positions(found: &Tensor, needed: &[i64]) -> Option<Tensor> {
    let (&[_, width], &[needed_length, needed_width]) = (&found.size()[..], needed) else { return None };
    if width != needed_width {
        return None;
    }
    let rows = found.to_kind(Kind::Float).transpose(0, 1).unsqueeze(0); // [1, width, length]
    Some(rows.upsample_linear1d([needed_length], false, None).squeeze_dim(0).transpose(0, 1))
}

/// Copies tensors into the parameters of their names: all, or none and what keeps them from fitting.
pub(super) fn take_over(mut saved: HashMap<String, Tensor>, parameters: &Parameters) -> Result<(), Mismatch> {
    let mut mismatch = Mismatch::default();
    let mut pairs = Vec::new();
    for Parameter { name, tensor, .. } in parameters.state() {
        match saved.remove(name) {
            None => mismatch.missing.push(name.clone()),
            Some(found) if found.size() != tensor.size() => {
                mismatch.shapes.push((name.clone(), found.size(), tensor.size()));
            }
            Some(found) => pairs.push((tensor, found)),
        }
    }
    mismatch.unexpected = saved.into_keys().collect();
    mismatch.unexpected.sort();
    if !mismatch.is_empty() {
        return Err(mismatch);
    }
    no_grad(|| pairs.into_iter().for_each(|(tensor, found)| tensor.shallow_clone().copy_(&found)));
    parameters.round();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_in_any_order_are_taken_off_names() {
        for name in [
            "visual.proj",
            "module.visual.proj",
            "state_dict.module.visual.proj",
            "module._orig_mod.visual.proj",
        ] {
            assert_eq!(plain_name(name), Some("visual.proj"), "{name}");
        }
        assert_eq!(plain_name("module.text.ln_final.weight"), Some("ln_final.weight"));
        assert_eq!(plain_name("text_projection"), Some("text_projection"));
        assert_eq!(plain_name("module.input_resolution"), None);
    }

    #[test]
    fn a_long_list_of_what_does_not_fit_is_cut() {
        let names: Vec<String> = (0..8).map(|number| format!("layer{number}")).collect();
        let mismatch = Mismatch {
            missing: names,
            unexpected: vec!["novel".to_owned()],
            shapes: vec![("visual.proj".to_owned(), vec![2, 3], vec![4, 3])],
        };
        assert_eq!(
            mismatch.to_string(),
            "8 missing (`layer0`, `layer1`, `layer2`, `layer3`, `layer4`, `layer5` and 2 more); 1 unknown (`novel`); \
             1 of another shape (`visual.proj` [2, 3], not [4, 3])"
        );
    }
}
