use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use fastclip_schemas::{Manifest, zero_shot};
use fastclip_shards::{Dataset, DatasetWriter, Store, StoreOptions, WriterOptions};
use tempfile::TempDir;

use crate::Pair;

/// Width and height of the images.
const IMAGE_SIZE: usize = 32;

/// A small dataset in a folder of its own, gone when this is dropped.
///
/// It has all that a real one has: shards, indexes, manifest, class names and templates. Sample `i` is
/// [`Pair`] `i`.
#[derive(Debug)]
pub struct TinyDataset {
    folder: TempDir,
    manifest: Manifest,
}

impl TinyDataset {
    /// Writes a dataset. The last shard may be short.
    ///
    /// # Panics
    /// If there are no samples, or the disk is full.
    pub fn new(num_samples: u32, samples_per_shard: u32) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let location = folder.path().to_str().expect("temporary folders have readable names").to_owned();
        let store = Store::create(&location, &StoreOptions::default()).expect("the folder was just made");
        let pairs = (0..num_samples).map(|number| Pair::new(number, IMAGE_SIZE));
        let manifest = block_on(Self::write(store, pairs, samples_per_shard));
        Self { folder, manifest }
    }

    /// Writes such a dataset into any store, without the folder.
    ///
    /// # Panics
    /// If the store refuses.
    pub async fn write(store: Store, pairs: impl Iterator<Item = Pair>, samples_per_shard: u32) -> Manifest {
        let samples_per_shard = NonZeroU32::new(samples_per_shard).expect("a shard has samples");
        let options = WriterOptions { samples_per_shard, ..WriterOptions::default() };
        let mut writer = DatasetWriter::new(store.clone(), options);
        for pair in pairs {
            let (class, json) = (pair.class_text(), pair.json());
            let members = [
                ("jpg", &pair.jpeg[..]),
                ("txt", pair.caption.as_bytes()),
                ("cls", class.as_bytes()),
                ("json", json.as_bytes()),
            ];
            writer.append(&members).await.expect("the store takes a sample");
        }
        let names = Pair::CLASSES.join("\n") + "\n";
        store.put(zero_shot::CLASS_NAMES_FILE, names).await.expect("the store takes the class names");
        let templates = "a picture of a {c}\na {c}\n";
        store.put(zero_shot::TEMPLATES_FILE, templates).await.expect("the store takes the templates");
        writer.finish(BTreeMap::new()).await.expect("the store takes the manifest")
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder, as text for a command line.
    pub fn location(&self) -> &str {
        self.path().to_str().expect("temporary folders have readable names")
    }

    /// What was written.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Path of a file of the dataset, for a test that damages it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Opens it as any user would.
    ///
    /// # Panics
    /// If it cannot be read; tests of damaged datasets call [`Dataset::open`] themselves.
    pub fn open(&self) -> Dataset {
        block_on(Dataset::open(self.location())).expect("what was just written can be read")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("the system has a thread to spare").block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_dataset_is_read_as_it_was_written() {
        let tiny = TinyDataset::new(7, 3);
        assert_eq!(tiny.manifest().shards.len(), 3);
        let dataset = tiny.open();
        let sample_of_last_shard = block_on(async {
            let index = dataset.index(2).await.unwrap();
            let run = dataset.fetch(2, &index, 0..1).await.unwrap();
            run.sample(0).unwrap().member("jpg").unwrap().to_vec()
        });
        assert_eq!(sample_of_last_shard, Pair::new(6, IMAGE_SIZE).jpeg);
    }
}
