//! Weights in files that OpenCLIP reads, and OpenCLIP's files read here.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor, no_grad};

use super::{Clip, IMAGE_MEAN, IMAGE_STD, ModelConfig, ModelConfigError};
use crate::files;

/// The weights, in a folder that OpenCLIP can load as `local-dir:`.
pub const WEIGHTS_FILE: &str = "open_clip_model.safetensors";

/// What the model consists of and what images it wants, beside the weights.
pub const CONFIG_FILE: &str = "open_clip_config.json";

/// What state dicts of models wrapped for data parallelism put before every name.
const WRAPPER_PREFIX: &str = "module.";

#[derive(Serialize, Deserialize)]
struct Pretrained {
    model_cfg: serde_json::Value,
    preprocess_cfg: Preprocess,
}

#[derive(Serialize, Deserialize)]
struct Preprocess {
    mean: [f64; 3],
    std: [f64; 3],
    #[serde(default)]
    interpolation: String,
    #[serde(default)]
    resize_mode: String,
}

/// Weights that could not be written, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tensors could not be written or read.
    #[error("could not {action} the tensors of `{}`", path.display())]
    Tensors {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TchError,
    },
    /// The file beside the weights is not what OpenCLIP writes.
    #[error("could not understand `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A model that is not built here.
    #[error("`{}` describes a model that cannot be used", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ModelConfigError,
    },
    /// Images would have to be normalised in another way.
    #[error("`{}` wants pixels with {what} {found:?}, this program normalises with {ours:?}", path.display())]
    Pixels {
        /// The file.
        path: PathBuf,
        /// Which statistic.
        what: &'static str,
        /// Its values in the file.
        found: [f64; 3],
        /// Those of this program.
        ours: [f64; 3],
    },
    /// A parameter is not there, or has another shape, or belongs to no parameter.
    #[error("`{}` does not fit the model: `{name}` {reason}", path.display())]
    Parameter {
        /// The file.
        path: PathBuf,
        /// Name of the parameter.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Clip {
    /// Reads a model from a folder with [`WEIGHTS_FILE`] and [`CONFIG_FILE`]: a checkpoint of ours, or OpenCLIP's.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn from_folder(folder: &Path, device: Device) -> Result<Self, WeightsError> {
        let path = folder.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| WeightsError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let json = |source| WeightsError::Json { path: path.clone(), source };
        let Pretrained { model_cfg, preprocess_cfg } = serde_json::from_str(&text).map_err(json)?;
        for (what, found, ours) in
            [("mean", preprocess_cfg.mean, IMAGE_MEAN), ("std", preprocess_cfg.std, IMAGE_STD)]
        {
            // Other writers round these to fewer digits.
            if found.iter().zip(ours).any(|(found, ours)| (found - ours).abs() > 1e-4) {
                return Err(WeightsError::Pixels { path, what, found, ours });
            }
        }
        let config = ModelConfig::from_json(&path.to_string_lossy(), &model_cfg.to_string())
            .map_err(|source| WeightsError::Config { path: path.clone(), source })?;
        let model = Self::new(&config, device, 0);
        model.read_weights(&folder.join(WEIGHTS_FILE))?;
        Ok(model)
    }

    /// Writes both files into a folder and waits until the disk has them.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write_folder(&self, folder: &Path) -> Result<(), WeightsError> {
        let pretrained = Pretrained {
            model_cfg: serde_json::to_value(&self.config)
                .expect("a model config is a struct of plain values"),
            preprocess_cfg: Preprocess {
                mean: IMAGE_MEAN,
                std: IMAGE_STD,
                interpolation: "bicubic".to_owned(),
                resize_mode: "shortest".to_owned(),
            },
        };
        let mut text = serde_json::to_vec_pretty(&pretrained).expect("the config is made of plain values");
        text.push(b'\n');
        let path = folder.join(CONFIG_FILE);
        files::replace(&path, &text).map_err(|source| WeightsError::Io { action: "write", path, source })?;
        let named: Vec<(&str, Tensor)> = self
            .parameters
            .state()
            .map(|parameter| (parameter.name.as_str(), parameter.tensor.detach().to_device(Device::Cpu)))
            .collect();
        write_tensors(&folder.join(WEIGHTS_FILE), &named)
    }

    /// Takes over the weights of a safetensors file, with or without `module.` before the names.
    ///
    /// # Errors
    /// When it cannot be read, lacks a parameter, has one too many, or one of another shape.
    pub fn read_weights(&self, path: &Path) -> Result<(), WeightsError> {
        let refuse = |name: &str, reason: String| WeightsError::Parameter {
            path: path.to_owned(),
            name: name.to_owned(),
            reason,
        };
        let mut saved: HashMap<String, Tensor> = read_tensors(path)?
            .into_iter()
            .map(|(name, tensor)| {
                (name.strip_prefix(WRAPPER_PREFIX).map(str::to_owned).unwrap_or(name), tensor)
            })
            .collect();
        for parameter in self.parameters.state() {
            let name = &parameter.name;
            let found = saved.remove(name).ok_or_else(|| refuse(name, "is missing".to_owned()))?;
            if found.size() != parameter.tensor.size() {
                let reason =
                    format!("has shape {:?}, the model needs {:?}", found.size(), parameter.tensor.size());
                return Err(refuse(name, reason));
            }
            no_grad(|| parameter.tensor.shallow_clone().copy_(&found));
        }
        self.round();
        match saved.keys().min() {
            Some(name) => Err(refuse(name, "is no parameter of it".to_owned())),
            None => Ok(()),
        }
    }
}

/// Writes a safetensors file and waits until the disk has it.
pub(crate) fn write_tensors(path: &Path, named: &[(impl AsRef<str>, Tensor)]) -> Result<(), WeightsError> {
    Tensor::write_safetensors(named, path).map_err(|source| WeightsError::Tensors {
        action: "write",
        path: path.to_owned(),
        source,
    })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| WeightsError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Reads all tensors of a safetensors file.
pub(crate) fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    Tensor::read_safetensors(path).map_err(|source| WeightsError::Tensors {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy(seed: u64) -> Clip {
        Clip::new(&ModelConfig::load("toy").unwrap(), Device::Cpu, seed)
    }

    #[test]
    fn a_model_survives_writing_and_reading() {
        let folder = tempfile::tempdir().unwrap();
        let model = toy(1);
        model.write_folder(folder.path()).unwrap();
        let read = Clip::from_folder(folder.path(), Device::Cpu).unwrap();
        assert_eq!(read.config(), model.config());
        for (left, right) in model.parameters().iter().zip(read.parameters()) {
            assert!(left.tensor.equal(&right.tensor), "{}", left.name);
        }
    }

    #[test]
    fn weights_of_a_wrapped_model_are_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrapped.safetensors");
        let (model, other) = (toy(1), toy(2));
        let wrapped: Vec<(String, Tensor)> = model
            .parameters()
            .iter()
            .map(|parameter| (format!("module.{}", parameter.name), parameter.tensor.detach()))
            .collect();
        write_tensors(&path, &wrapped).unwrap();
        other.read_weights(&path).unwrap();
        assert!(
            other
                .parameters()
                .get("visual.proj")
                .unwrap()
                .equal(model.parameters().get("visual.proj").unwrap())
        );
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_by_name() {
        type Named = Vec<(String, Tensor)>;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let message = |change: &dyn Fn(&mut Named)| {
            let model = toy(1);
            let parameters = model.parameters().iter();
            let mut named = parameters.map(|p| (p.name.clone(), p.tensor.detach())).collect();
            change(&mut named);
            write_tensors(&path, &named).unwrap();
            model.read_weights(&path).unwrap_err().to_string()
        };
        let missing = message(&|named| named.retain(|(name, _)| name != "visual.proj"));
        assert!(missing.ends_with("`visual.proj` is missing"), "{missing}");
        let extra = message(&|named| named.push(("novel".to_owned(), Tensor::from(1.0f32))));
        assert!(extra.ends_with("`novel` is no parameter of it"), "{extra}");
        let shape = message(&|named| named[1].1 = Tensor::from_slice(&[1.0f32]));
        assert!(shape.contains("`text_projection` has shape [1], the model needs [96, 96]"), "{shape}");
    }
}
