//! A dataset as embeddings: unit rows of its images and captions, beside their keys.
//!
//! All ranks encode; rank 0 gathers one batch after another and writes, in the order of the dataset. So the files are the
//! same for every number of ranks, and nobody holds more than a batch.

mod npy;
mod table;

use std::path::{Path, PathBuf};

use fastclip_shards::Dataset;
use parquet::errors::ParquetError;
use tch::{Device, Kind, Tensor};

use self::npy::NpyWriter;
use self::table::TableWriter;
use crate::distributed::Communicator;
use crate::eval::{EncodeOptions, Encoder, EvalError, SampleOrder, encode_batches, gather_rows};

/// Unit rows of images, [samples, dim].
pub const IMAGE_FILE: &str = "image_embeddings.npy";

/// Unit rows of captions, [samples, dim].
pub const TEXT_FILE: &str = "text_embeddings.npy";

/// Key and id of each row of the matrices.
pub const SAMPLES_FILE: &str = "samples.parquet";

/// Key, id and both rows of each sample.
pub const TABLE_FILE: &str = "embeddings.parquet";

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EmbedFormat {
    /// image_embeddings.npy and text_embeddings.npy, and samples.parquet with the keys of their rows
    Npy,
    /// embeddings.parquet: keys and embeddings in one table
    Parquet,
}

/// Embeddings that could not be made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The dataset could not be encoded.
    #[error("could not encode the dataset")]
    Encode(#[from] EvalError),
    /// The file system refused.
    #[error("could not write `{}`", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A table could not be written.
    #[error("could not write the table `{}`", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParquetError,
    },
}

/// Samples of one batch of all ranks, in the order of the dataset.
#[derive(Debug)]
struct Rows {
    keys: Vec<String>,
    ids: Vec<u64>,
    images: Vec<f32>,
    texts: Vec<f32>,
}

/// Writes the embeddings of a dataset into a folder and returns how many samples it has. Collective; the folder must be
/// that of rank 0 only.
///
/// Samples that cannot be read are left out: keys say which row is whose.
///
/// # Errors
/// When the dataset cannot be read, or a file not written, or when the ranks lose each other.
pub fn embed(
    model: &dyn Encoder,
    dataset: &Dataset,
    comm: &dyn Communicator,
    options: &EncodeOptions,
    folder: &Path,
    formats: &[EmbedFormat],
) -> Result<u64, EmbedError> {
    let _guard = tch::no_grad_guard();
    let order = SampleOrder::open(dataset)?;
    let mut files = match comm.rank() {
        0 => Some(Files::create(folder, model.dim(), formats)?),
        _ => None,
    };
    let mut num_samples = 0;
    encode_batches(model, dataset, comm, options, "embedding", |batch, images, texts| {
        let device = images.device();
        let places = batch.sample_ids().iter().map(|&id| order.row(id).map(|row| row as i64));
        let places: Vec<i64> = places
            .zip(batch.sample_ids())
            .map(|(row, &id)| row.ok_or(EvalError::UnknownSample { id }))
            .collect::<Result<_, _>>()?;
        let ids: Vec<i64> = batch.sample_ids().iter().map(|id| id.0 as i64).collect();
        let places = gather_rows(comm, &Tensor::from_slice(&places).to_device(device))?;
        let ids = gather_rows(comm, &Tensor::from_slice(&ids).to_device(device))?;
        let keys = gather_keys(comm, batch.keys(), device)?;
        let (images, texts) = (gather_rows(comm, &images)?, gather_rows(comm, &texts)?);
        num_samples += ids.size()[0] as u64;
        let Some(files) = &mut files else { return Ok(()) };
        let sorted = places.argsort(0, false);
        let values = |tensor: &Tensor| -> Result<Vec<f32>, EvalError> {
            let rows = tensor.index_select(0, &sorted).to_kind(Kind::Float).flatten(0, -1);
            Ok(Vec::try_from(rows.to_device(Device::Cpu))?)
        };
        let ids = Vec::<i64>::try_from(ids.index_select(0, &sorted)).map_err(EvalError::from)?;
        let sorted_places = Vec::<i64>::try_from(&sorted).map_err(EvalError::from)?;
        files.append(&Rows {
            keys: sorted_places.iter().map(|&place| keys[place as usize].clone()).collect(),
            ids: ids.into_iter().map(|id| id as u64).collect(),
            images: values(&images)?,
            texts: values(&texts)?,
        })
    })?;
    if let Some(files) = files {
        files.finish()?;
    }
    comm.barrier().map_err(EvalError::from)?;
    Ok(num_samples)
}

/// Gathers the keys of all ranks' samples, in the order of ranks.
fn gather_keys(comm: &dyn Communicator, keys: &[Box<str>], device: Device) -> Result<Vec<String>, EvalError> {
    /// Fills up short keys; no byte of text has this value.
    const END: u8 = 0xff;
    let longest = keys.iter().map(|key| key.len()).max().unwrap_or(0) as i64;
    let longest = comm.all_gather(&Tensor::from_slice(&[longest]).to_device(device))?;
    let width = longest.max().int64_value(&[]).max(1);
    let mut bytes = vec![END; keys.len() * width as usize];
    for (key, row) in keys.iter().zip(bytes.chunks_exact_mut(width as usize)) {
        row[..key.len()].copy_from_slice(key.as_bytes());
    }
    let rows = Tensor::from_slice(&bytes).view([keys.len() as i64, width]).to_device(device);
    let bytes = Vec::<u8>::try_from(gather_rows(comm, &rows)?.flatten(0, -1))?;
    let rows = bytes.chunks_exact(width as usize);
    Ok(rows
        .map(|row| row.split(|&byte| byte == END).next().unwrap_or_default())
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .collect())
}

/// What rank 0 writes.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    matrices: Option<(NpyWriter, NpyWriter)>,
    tables: Vec<(PathBuf, TableWriter)>,
}

impl Files {
    fn create(folder: &Path, dim: i64, formats: &[EmbedFormat]) -> Result<Self, EmbedError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EmbedError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let matrix = |name: &str| {
            let path = folder.join(name);
            NpyWriter::create(&path, dim as usize).map_err(failed(&path))
        };
        let table = |name: &str, has_embeddings| {
            let path = folder.join(name);
            match TableWriter::create(&path, dim as i32, has_embeddings) {
                Ok(table) => Ok((path, table)),
                Err(source) => Err(EmbedError::Table { path, source }),
            }
        };
        let mut files = Self { folder: folder.to_owned(), matrices: None, tables: Vec::new() };
        if formats.contains(&EmbedFormat::Npy) {
            files.matrices = Some((matrix(IMAGE_FILE)?, matrix(TEXT_FILE)?));
            files.tables.push(table(SAMPLES_FILE, false)?);
        }
        if formats.contains(&EmbedFormat::Parquet) {
            files.tables.push(table(TABLE_FILE, true)?);
        }
        Ok(files)
    }

    fn append(&mut self, rows: &Rows) -> Result<(), EmbedError> {
        if let Some((images, texts)) = &mut self.matrices {
            let written = images.append(&rows.images).and_then(|()| texts.append(&rows.texts));
            written.map_err(|source| EmbedError::File { path: self.folder.clone(), source })?;
        }
        for (path, table) in &mut self.tables {
            table.append(rows).map_err(|source| EmbedError::Table { path: path.clone(), source })?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), EmbedError> {
        if let Some((images, texts)) = self.matrices {
            let written = images.finish().and_then(|()| texts.finish());
            written.map_err(|source| EmbedError::File { path: self.folder, source })?;
        }
        for (path, table) in self.tables {
            table.finish().map_err(|source| EmbedError::Table { path, source })?;
        }
        Ok(())
    }
}
