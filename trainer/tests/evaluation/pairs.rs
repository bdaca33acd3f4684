//! A held-out dataset with the difficulties of a real one.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};

use fastclip_loader::Captions;
use fastclip_shards::{Dataset, DatasetWriter, Store, StoreOptions, WriterOptions};
use fastclip_testkit::{Pair, TinyDataset};
use fastclip_trainer::eval::{EncodeOptions, EvalOptions};
use fastclip_trainer::model::{Clip, ModelConfig};
use fastclip_trainer::progress::Progress;
use tch::Device;
use tempfile::TempDir;

/// A caption that would run if a page did not escape it.
pub(crate) const HOSTILE_CAPTION: &str = "a <script>alert('x')</script> & \"slope\"";

/// Pairs in the dataset: a prime, so that no number of ranks divides it.
pub(crate) const NUM_PAIRS: u32 = 53;

const SAMPLES_PER_SHARD: u32 = 20;

/// Writes a dataset of three shards in which captions repeat, and one is hostile.
pub(crate) fn dataset(folder: &TempDir) -> Dataset {
    let location = folder.path().to_str().unwrap();
    runtime().block_on(async {
        let store = Store::create(location, &StoreOptions::default()).unwrap();
        TinyDataset::write(store, pairs(), SAMPLES_PER_SHARD).await;
        Dataset::open(location).await.unwrap()
    })
}

/// Writes the same dataset with the captions in a member of another name, and one word for all in `txt`.
pub(crate) fn dataset_with_captions_in(member: &str, folder: &TempDir) -> Dataset {
    let _ = dataset(folder);
    let location = folder.path().to_str().unwrap();
    runtime().block_on(async {
        let store = Store::create(location, &StoreOptions::default()).unwrap();
        let samples_per_shard = NonZeroU32::new(SAMPLES_PER_SHARD).unwrap();
        let mut writer =
            DatasetWriter::new(store, WriterOptions { samples_per_shard, ..WriterOptions::default() });
        for pair in pairs() {
            let class = pair.class_text();
            let members = [
                ("jpg", &pair.jpeg[..]),
                ("txt", b"image"),
                ("cls", class.as_bytes()),
                (member, pair.caption.as_bytes()),
            ];
            writer.append(&members).await.unwrap();
        }
        writer.finish(BTreeMap::new()).await.unwrap();
        Dataset::open(location).await.unwrap()
    })
}

fn pairs() -> impl Iterator<Item = Pair> {
    (0..NUM_PAIRS).map(|number| {
        let caption = match number {
            7 | 8 => HOSTILE_CAPTION.to_owned(),
            _ => Pair::new(number % 40, 32).caption,
        };
        Pair { caption, ..Pair::new(number, 32) }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The smallest CLIP that is one.
pub(crate) fn model() -> Clip {
    let config = r#"{
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    }"#;
    Clip::new(&ModelConfig::from_json("test", config).unwrap(), Device::Cpu, 5)
}

/// Options for that model.
pub(crate) fn options() -> EvalOptions {
    EvalOptions {
        encode: EncodeOptions::of(
            model().config(),
            Captions::default(),
            NonZeroUsize::new(8).unwrap(),
            NonZeroUsize::MIN,
            Progress::hidden(),
        ),
        retrieval_pool: None,
        num_predictions: 12,
    }
}
