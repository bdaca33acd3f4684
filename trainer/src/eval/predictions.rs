//! What the model says about a few images, for people to look at.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use fastclip_loader::Captions;
use fastclip_schemas::SampleId;
use fastclip_shards::Dataset;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::classes::ClassPrompts;
use super::features::Features;
use super::order::{Place, SampleOrder};
use super::{EvalError, Standing};
use crate::files;

/// File with the [`Predictions`] of a run's last evaluation, inside its folder.
pub const PREDICTIONS_FILE: &str = "predictions.json";

/// Captions and classes listed per image.
const NUM_LISTED: i64 = 5;

/// What the model says about some images of the retrieval pool.
///
/// Which images these are depends on the pool alone, so that two runs on the same data can be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Captions that were chosen among.
    pub pool: u64,
    /// The images, in the order of the dataset.
    pub images: Vec<ImagePrediction>,
}

/// What the model says about one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePrediction {
    /// The sample.
    pub sample_id: SampleId,
    /// Its key in the shard.
    pub key: String,
    /// Number of its shard in the manifest.
    pub shard: usize,
    /// Its position in the shard.
    pub position: u32,
    /// Its own caption.
    pub caption: String,
    /// Place of its own caption among all, from 1; a mean where it ties with others.
    pub caption_rank: f64,
    /// The best captions of the pool, the best first.
    pub captions: Vec<RankedCaption>,
    /// Its class, where it has one.
    pub class: Option<String>,
    /// The best classes, the best first; empty where the dataset has none.
    pub classes: Vec<RankedClass>,
}

/// A caption and how well it fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankedCaption {
    /// The sample that it belongs to.
    pub sample_id: SampleId,
    /// Its text.
    pub caption: String,
    /// Cosine similarity to the image.
    pub score: f64,
}

/// A class and how well it fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankedClass {
    /// Its name.
    pub name: String,
    /// Cosine similarity of its prompts' mean to the image.
    pub score: f64,
}

impl Predictions {
    /// Writes the predictions into a run's folder, whole or not at all, and returns where.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, run_dir: &Path) -> Result<PathBuf, EvalError> {
        let path = run_dir.join(PREDICTIONS_FILE);
        let mut text = serde_json::to_vec_pretty(self).expect("predictions are plain values");
        text.push(b'\n');
        match files::replace(&path, &text) {
            Ok(()) => Ok(path),
            Err(source) => Err(EvalError::File { action: "write", path, source }),
        }
    }

    /// Reads the predictions of a run's folder, if it has any.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, EvalError> {
        let path = run_dir.join(PREDICTIONS_FILE);
        let read = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(std::io::Error::from),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        read.map(Some).map_err(|source| EvalError::File { action: "read", path, source })
    }
}

/// What predictions are made from.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) order: &'a SampleOrder,
    /// Which captions were encoded.
    pub(super) captions: &'a Captions,
    /// Exact features of the pool, in the dataset's order.
    pub(super) pool: &'a Features,
    /// Places of the pool's own captions.
    pub(super) standings: &'a [Standing],
    /// Names and exact rows of the classes.
    pub(super) classes: Option<(&'a ClassPrompts, &'a Tensor)>,
}

impl Asked<'_> {
    /// Picks images, finds their best captions and classes, and reads the words.
    pub(super) async fn predict(&self, dataset: &Dataset, num: usize) -> Result<Predictions, EvalError> {
        let rows = Vec::<i64>::try_from(&self.pool.rows)?;
        let classes = Vec::<i64>::try_from(&self.pool.classes)?;
        let ids: Vec<SampleId> = rows.iter().map(|&row| self.order.id(row as usize)).collect();
        let picked = pick(&ids, num);

        let indices: Vec<i64> = picked.iter().map(|&index| index as i64).collect();
        let images = self.pool.images.index_select(0, &super::column(&indices, &self.pool.images));
        let captions = best(&images, &self.pool.texts)?;
        let best_classes = match self.classes {
            Some((_, rows)) => best(&images, rows)?,
            None => vec![Vec::new(); picked.len()],
        };

        let listed = captions.iter().flatten().map(|&(index, _)| index).chain(picked.iter().copied());
        let listed = listed.map(|index| rows[index] as usize);
        let described = self.order.describe(dataset, self.captions, listed).await?;
        let of = |index: usize| &described[&(rows[index] as usize)];
        let name = |class: usize| self.classes.map(|(prompts, _)| prompts.names[class].clone());
        let images =
            picked.iter().zip(captions).zip(best_classes).map(|((&index, captions), best_classes)| {
                let Place { shard, position } = self.order.place(rows[index] as usize);
                ImagePrediction {
                    sample_id: ids[index],
                    key: of(index).key.clone(),
                    shard,
                    position,
                    caption: of(index).caption.clone(),
                    caption_rank: self.standings[index].rank(),
                    captions: captions
                        .into_iter()
                        .map(|(index, score)| RankedCaption {
                            sample_id: ids[index],
                            caption: of(index).caption.clone(),
                            score,
                        })
                        .collect(),
                    class: usize::try_from(classes[index]).ok().and_then(name),
                    classes: best_classes
                        .into_iter()
                        .filter_map(|(class, score)| Some(RankedClass { name: name(class)?, score }))
                        .collect(),
                }
            });
        Ok(Predictions { pool: ids.len() as u64, images: images.collect() })
    }
}

/// Returns the best candidates of each query with their scores, the best first, earlier rows first among equals.
fn best(queries: &Tensor, candidates: &Tensor) -> Result<Vec<Vec<(usize, f64)>>, tch::TchError> {
    let scores = queries.matmul(&candidates.tr()); // [queries, candidates]
    let listed = NUM_LISTED.min(candidates.size()[0]);
    let (scores, indices) = scores.sort_stable(true, 1, true);
    let scores = Vec::<Vec<f64>>::try_from(scores.narrow(1, 0, listed))?;
    let indices = Vec::<Vec<i64>>::try_from(indices.narrow(1, 0, listed))?;
    let pair = |(indices, scores): (Vec<i64>, Vec<f64>)| {
        indices.into_iter().map(|index| index as usize).zip(scores).collect()
    };
    Ok(indices.into_iter().zip(scores).map(pair).collect())
}

/// Picks `num` samples and returns their indices in ascending order.
///
/// By a hash of the id: datasets often repeat their classes with a period, which evenly spaced picks could hit.
fn pick(ids: &[SampleId], num: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..ids.len()).collect();
    indices.sort_by_key(|&index| (Reverse(scrambled(ids[index].0)), index));
    indices.truncate(num);
    indices.sort_unstable();
    indices
}

/// The finalizer of SplitMix64.
fn scrambled(id: u64) -> u64 {
    let z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn picked_samples_depend_on_ids_alone_and_do_not_follow_a_period() {
        let ids: Vec<SampleId> = (0..500).map(SampleId).collect();
        let picked = pick(&ids, 48);
        assert_eq!(picked.len(), 48);
        assert!(picked.is_sorted_by(|a, b| a < b));
        let residues: std::collections::BTreeSet<_> = picked.iter().map(|index| index % 10).collect();
        assert_eq!(residues.len(), 10, "a period of ten is not skipped");

        let reversed: Vec<SampleId> = ids.iter().rev().copied().collect();
        let mut same: Vec<_> = pick(&reversed, 48).into_iter().map(|index| 499 - index).collect();
        same.sort_unstable();
        assert_eq!(picked, same);
        assert_eq!(pick(&ids[..3], 48), [0, 1, 2]);
    }

    #[test]
    fn the_best_come_first_and_equals_in_the_order_of_the_dataset() {
        let queries = Tensor::from_slice(&[1.0f64, 0.0]).reshape([1, 2]);
        let candidates = Tensor::from_slice(&[0.5f64, 0.0, 1.0, 0.0, 0.5, 0.0, 0.0, 1.0]).reshape([4, 2]);
        assert_eq!(best(&queries, &candidates).unwrap(), [[(1, 1.0), (0, 0.5), (2, 0.5), (3, 0.0)]]);
        let many = Tensor::zeros([9, 2], (Kind::Double, Device::Cpu));
        let first: Vec<usize> = best(&queries, &many).unwrap()[0].iter().map(|&(index, _)| index).collect();
        assert_eq!(first, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn predictions_are_read_as_they_were_saved_and_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Predictions::read(folder.path()).unwrap(), None);
        let predictions = Predictions { pool: 500, images: Vec::new() };
        predictions.save(folder.path()).unwrap();
        assert_eq!(Predictions::read(folder.path()).unwrap(), Some(predictions));
        std::fs::write(folder.path().join(PREDICTIONS_FILE), "{").unwrap();
        assert!(Predictions::read(folder.path()).is_err());
    }
}
