//! Which samples the dataset holds, in its own order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fastclip_loader::{Captions, Order};
use fastclip_schemas::SampleId;
use fastclip_shards::{Dataset, ReadError, ShardIndex};

use super::EvalError;

/// How datasets are read, which is also what captions that are drawn depend on.
pub(super) const ORDER: Order = Order::Sequential;

/// The pass over the dataset that every evaluation makes, so that all of them draw the same captions.
pub(super) const EPOCH: u64 = 0;

/// Where a sample lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Number of its shard in the manifest.
    pub(super) shard: usize,
    /// Position in the shard.
    pub(super) position: u32,
}

/// A sample as it is written in its shard, without its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) key: String,
    pub(super) caption: String,
}

/// All samples of a dataset, in the order of its shards.
///
/// Ranks deliver samples in an order that depends on their number. Results are put back into this order before anything
/// is computed from them, which is what makes an evaluation independent of the number of ranks.
#[derive(Debug)]
pub(crate) struct SampleOrder {
    indexes: Vec<Arc<ShardIndex>>,
    places: Vec<Place>,
    rows: HashMap<SampleId, usize>,
}

impl SampleOrder {
    /// Reads it from code that is not asynchronous.
    pub(crate) fn open(dataset: &Dataset) -> Result<Self, EvalError> {
        super::runtime()?.block_on(Self::read(dataset))
    }

    /// Reads the indexes of all shards.
    pub(super) async fn read(dataset: &Dataset) -> Result<Self, EvalError> {
        let num_samples = dataset.manifest().num_samples as usize;
        let mut order = Self {
            indexes: Vec::new(),
            places: Vec::with_capacity(num_samples),
            rows: HashMap::with_capacity(num_samples),
        };
        for shard in 0..dataset.manifest().shards.len() {
            let index = dataset.index(shard).await?;
            for position in 0..index.len() {
                order.rows.insert(index.sample_id(position), order.places.len());
                order.places.push(Place { shard, position });
            }
            order.indexes.push(index);
        }
        if order.places.is_empty() {
            return Err(EvalError::Empty { location: dataset.location().to_owned() });
        }
        Ok(order)
    }

    /// Returns the place of a sample in this order.
    pub(crate) fn row(&self, id: SampleId) -> Option<usize> {
        self.rows.get(&id).copied()
    }

    /// Returns where the sample in `row` lies.
    pub(super) fn place(&self, row: usize) -> Place {
        self.places[row]
    }

    /// Returns the id of the sample in `row`.
    pub(super) fn id(&self, row: usize) -> SampleId {
        let Place { shard, position } = self.places[row];
        self.indexes[shard].sample_id(position)
    }

    /// Reads keys of some rows, and the captions that were encoded, each once.
    pub(super) async fn describe(
        &self,
        dataset: &Dataset,
        captions: &Captions,
        rows: impl IntoIterator<Item = usize>,
    ) -> Result<BTreeMap<usize, Described>, ReadError> {
        let mut described = BTreeMap::new();
        for row in rows {
            if described.contains_key(&row) {
                continue;
            }
            let Place { shard, position } = self.places[row];
            let run = dataset.fetch(shard, &self.indexes[shard], position..position + 1).await?;
            let sample = run.sample(position)?;
            let caption = captions.of_sample(&sample, self.id(row), ORDER, EPOCH).unwrap_or_default();
            let caption = caption.trim().to_owned();
            described.insert(row, Described { key: sample.key().to_owned(), caption });
        }
        Ok(described)
    }
}
