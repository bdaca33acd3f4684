//! Weights that a model begins with or is evaluated with, wherever they lie.

use std::path::{Path, PathBuf};

use fastclip_shards::{Store, StoreOptions};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::weights::{read_config, read_tensors};
use super::{CONFIG_FILE, Clip, ModelConfig, WEIGHTS_FILE, WeightsError, fit};

/// Names of weights in a folder, in the order in which they are looked for.
const WEIGHT_FILES: [&str; 3] = [WEIGHTS_FILE, "open_clip_pytorch_model.safetensors", "model.safetensors"];

/// Weights of a model, and what it consists of if that is known.
#[derive(Debug)]
pub struct Pretrained {
    source: PathBuf,
    tensors: Vec<(String, Tensor)>,
    config: Option<ModelConfig>,
}

impl Pretrained {
    /// Reads weights from a folder or a safetensors file, on a local disk or behind a URL (`s3://`, `gs://`, `az://`,
    /// `http(s)://`), and the `open_clip_config.json` beside them if there is one. A URL names a file if it ends in
    /// `.safetensors`, otherwise a folder.
    ///
    /// Must not be called from inside an asynchronous runtime.
    ///
    /// # Errors
    /// When there are none, they cannot be read, or are not safetensors.
    pub fn read(source: &str) -> Result<Self, WeightsError> {
        if source.contains("://") { Self::download(source) } else { Self::open(Path::new(source)) }
    }

    fn open(path: &Path) -> Result<Self, WeightsError> {
        let (folder, file) = if path.is_dir() {
            let file = WEIGHT_FILES.iter().map(|name| path.join(name)).find(|file| file.exists());
            (path.to_owned(), file.ok_or_else(|| WeightsError::Nothing { place: path.to_owned() })?)
        } else {
            (path.parent().unwrap_or(Path::new("")).to_owned(), path.to_owned())
        };
        refuse_pickles(&file)?;
        let config = folder.join(CONFIG_FILE);
        let config = match std::fs::read(&config) {
            Ok(text) => Some(read_config(&config, &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(WeightsError::Io { action: "read", path: config, source }),
        };
        Ok(Self { tensors: read_tensors(&file)?, source: file, config })
    }

    fn download(url: &str) -> Result<Self, WeightsError> {
        let url = url.trim_end_matches('/');
        refuse_pickles(Path::new(url))?;
        let (folder, names) = match url.rsplit_once('/') {
            Some((folder, file)) if file.ends_with(".safetensors") => (folder, vec![file]),
            _ => (url, WEIGHT_FILES.to_vec()),
        };
        let failed = |source| WeightsError::Download { url: shown(url), source };
        let store = Store::open(folder, &StoreOptions::from_process()).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| WeightsError::Io {
            action: "start reading",
            path: store.location().into(),
            source,
        })?;
        let get = |name: &str| runtime.block_on(store.get_if_there(name)).map_err(failed);
        for name in names {
            let Some(bytes) = get(name)? else { continue };
            let source = PathBuf::from(format!("{}/{name}", store.location().trim_end_matches('/')));
            let config = get(CONFIG_FILE)?;
            let config =
                config.map(|text| read_config(&source.with_file_name(CONFIG_FILE), &text)).transpose()?;
            return Ok(Self { tensors: tensors(&source, &bytes)?, source, config });
        }
        Err(WeightsError::Nothing { place: shown(url).into() })
    }

    /// Returns what the model consists of, if a file beside the weights says so.
    pub fn config(&self) -> Option<&ModelConfig> {
        self.config.as_ref()
    }

    /// Copies the weights into a model. Names may have wrappers before them; position embeddings of another resolution or
    /// context length are interpolated as OpenCLIP does.
    ///
    /// # Errors
    /// When they do not fit; the model is as it was then.
    pub fn load_into(self, model: &Clip) -> Result<(), WeightsError> {
        let mut saved = fit::renamed(self.tensors);
        fit::adapt(&mut saved, model.parameters());
        fit::take_over(saved, model.parameters())
            .map_err(|mismatch| WeightsError::Mismatch { path: self.source, mismatch })
    }
}

impl Clip {
    /// Makes a model of weights, wherever they lie (see [`Pretrained::read`]). `config` says what it consists of; the file
    /// beside the weights does so otherwise.
    ///
    /// # Errors
    /// When the weights cannot be read or do not fit, or nothing says what the model consists of.
    pub fn from_pretrained(
        source: &str,
        config: Option<&ModelConfig>,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let pretrained = Pretrained::read(source)?;
        let config = config.or(pretrained.config());
        let Some(config) = config else {
            return Err(WeightsError::NoConfig { path: pretrained.source });
        };
        let model = Self::new(config, device, 0);
        pretrained.load_into(&model)?;
        Ok(model)
    }
}

fn tensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let malformed = |source| WeightsError::Malformed { path: path.to_owned(), source };
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let named = file.tensors().into_iter().map(|(name, view)| {
        let kind = kind(view.dtype()).ok_or(SafeTensorError::InvalidTensorView(
            view.dtype(),
            view.shape().to_vec(),
            view.data().len(),
        ))?;
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        Ok((name, Tensor::from_data_size(view.data(), &shape, kind)))
    });
    named.collect::<Result<_, _>>().map_err(malformed)
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        _ => return None,
    })
}

/// Pickles run code when they are read.
fn refuse_pickles(path: &Path) -> Result<(), WeightsError> {
    let is_pickle = |extension: &std::ffi::OsStr| {
        ["pt", "pth", "bin", "ckpt"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    };
    match path.extension() {
        Some(extension) if is_pickle(extension) => {
            Err(WeightsError::Pickle { path: shown(&path.to_string_lossy()).into() })
        }
        _ => Ok(()),
    }
}

/// A URL without what may be secret in it.
fn shown(url: &str) -> String {
    let without_query = url.split(['?', '#']).next().unwrap_or_default();
    match without_query.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            format!("{scheme}://{}/{path}", host.rsplit('@').next().unwrap_or_default())
        }
        None => without_query.to_owned(),
    }
}
