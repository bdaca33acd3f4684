use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use fastclip_loader::{Loader, LoaderBuilder, Order, Tail, Transform};
use fastclip_schemas::SampleId;
use fastclip_shards::Dataset;
use tokio::runtime::Runtime;

/// A sample as it lies in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSample {
    /// File name of the shard.
    pub shard: String,
    /// Its id.
    pub id: SampleId,
    /// Its key.
    pub key: String,
    /// Members by extension.
    pub members: BTreeMap<String, Vec<u8>>,
}

impl StoredSample {
    /// A member as text.
    ///
    /// # Panics
    /// If there is none, or it is no text.
    pub fn text(&self, extension: &str) -> &str {
        let member = self.members.get(extension);
        let bytes =
            member.unwrap_or_else(|| panic!("`{}` of `{}` has no `{extension}`", self.key, self.shard));
        std::str::from_utf8(bytes).expect("the member is text")
    }
}

/// A runtime for the asynchronous half of the libraries.
pub fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("the system has a thread to spare")
}

/// Every sample of a dataset, in order.
///
/// # Panics
/// If one cannot be read.
pub fn read_all(location: &str) -> Vec<StoredSample> {
    runtime().block_on(async {
        let dataset = Dataset::open(location).await.expect("the dataset can be opened");
        let mut samples = Vec::new();
        for shard in 0..dataset.manifest().shards.len() {
            let index = dataset.index(shard).await.expect("the index can be read");
            let run = dataset.fetch(shard, &index, 0..index.len()).await.expect("the shard can be read");
            for position in run.samples() {
                let sample = run.sample(position).expect("the sample can be read");
                let members = sample.members().map(|(extension, data)| (extension.to_owned(), data.to_vec()));
                samples.push(StoredSample {
                    shard: run.shard_name().to_owned(),
                    id: sample.id(),
                    key: sample.key().to_owned(),
                    members: members.collect(),
                });
            }
        }
        samples
    })
}

/// A loader that gives every sample of a dataset once and in order, in small batches.
///
/// # Panics
/// If the dataset cannot be opened.
pub fn loader(location: &str) -> LoaderBuilder {
    let dataset = runtime().block_on(Dataset::open(location)).expect("the dataset can be opened");
    Loader::builder(dataset)
        .global_batch(NonZeroUsize::new(4).expect("4 is not 0"))
        .order(Order::Sequential)
        .tail(Tail::Keep)
        .transform(Transform::eval(32))
        .threads(NonZeroUsize::new(2).expect("2 is not 0"))
}
