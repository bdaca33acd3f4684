//! Small real datasets, written by the real writer.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test binaries, each of which uses its part"
)]

use std::collections::BTreeMap;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;

use fastclip_loader::{Batch, LoadError, Loader, LoaderBuilder, Order, Tail, Transform};
use fastclip_schemas::{Position, SampleId};
use fastclip_shards::{Dataset, DatasetWriter, Store, StoreOptions, WriterOptions};
use fastclip_testkit::{FaultyStore, S3Server};
use tempfile::TempDir;
use turbojpeg::{Compressor, Image, PixelFormat};

/// One sample before it is written: extensions and contents.
pub type Members = Vec<(&'static str, Vec<u8>)>;

/// A photo-like JPEG whose content depends on `number`.
pub fn jpeg(number: u32, (width, height): (usize, usize)) -> Vec<u8> {
    let pixel = |x: usize, y: usize| {
        let wave = ((x * (3 + number as usize % 5) + y * 7) as f64 / 9.0).sin() * 60.0 + 128.0;
        [wave as u8, (x * 255 / width) as u8, number as u8]
    };
    let pixels: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let mut compressor = Compressor::new().unwrap();
    compressor.set_quality(90).unwrap();
    let image = Image { pixels: &pixels[..], width, pitch: width * 3, height, format: PixelFormat::RGB };
    compressor.compress_to_vec(image).unwrap()
}

pub fn good(number: u32) -> Members {
    let size = (40 + number as usize % 17, 36 + number as usize % 11);
    vec![("jpg", jpeg(number, size)), ("txt", format!("a photo number {number}").into_bytes())]
}

/// A dataset in a folder that is removed with it.
#[derive(Debug)]
pub struct Toy {
    pub folder: TempDir,
}

impl Toy {
    pub fn new(num_samples: u32, samples_per_shard: u32) -> Self {
        Self::with(num_samples, samples_per_shard, good)
    }

    pub fn with(num_samples: u32, samples_per_shard: u32, sample: impl Fn(u32) -> Members) -> Self {
        let folder = TempDir::new().unwrap();
        let location = folder.path().to_str().unwrap();
        block_on(async {
            let store = Store::create(location, &StoreOptions::from_process()).unwrap();
            let options = WriterOptions {
                samples_per_shard: NonZeroU32::new(samples_per_shard).unwrap(),
                ..WriterOptions::default()
            };
            let mut writer = DatasetWriter::new(store, options);
            for number in 0..num_samples {
                let members = sample(number);
                let members: Vec<(&str, &[u8])> =
                    members.iter().map(|(extension, data)| (*extension, &data[..])).collect();
                writer.append(&members).await.unwrap();
            }
            writer.finish(BTreeMap::new()).await.unwrap();
        });
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn open(&self) -> Dataset {
        block_on(Dataset::open(self.path().to_str().unwrap())).unwrap()
    }

    /// The same behind a store that can be told to fail.
    pub fn in_faulty_store(&self) -> (FaultyStore, Dataset) {
        let faulty = FaultyStore::over_folder(self.path());
        let store = Store::from_object_store(Arc::new(faulty.clone()), "").unwrap();
        (faulty, block_on(Dataset::from_store(store, "manifest.json")).unwrap())
    }

    /// A loader of small squares, to be refined.
    pub fn loader(&self, global_batch: usize) -> LoaderBuilder {
        small_loader(self.open(), global_batch)
    }
}

/// A loader of small squares, to be refined.
pub fn small_loader(dataset: Dataset, global_batch: usize) -> LoaderBuilder {
    Loader::builder(dataset)
        .global_batch(count(global_batch))
        .order(Order::Shuffled { seed: 7 })
        .tail(Tail::Drop)
        .transform(Transform::train_with(16, (0.3, 1.0), (0.75, 1.3)))
        .context_length(12)
        .threads(count(2))
}

/// A server with a copy of the dataset in its folder `toy`.
pub fn s3_copy(toy: &Toy) -> S3Server {
    let server = S3Server::start();
    fs::create_dir(server.file("toy")).unwrap();
    for file in fs::read_dir(toy.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), server.file("toy").join(file.file_name())).unwrap();
    }
    server
}

pub fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// All that a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub position: Position,
    pub ids: Vec<u64>,
    pub images: Vec<u8>,
    pub tokens: Vec<i32>,
    pub lengths: Vec<i32>,
    pub classes: Vec<i32>,
}

impl Contents {
    pub fn of(batch: &Batch) -> Self {
        let len = batch.len();
        assert_eq!(batch.sample_ids().len(), len);
        assert_eq!(batch.lengths().len(), len);
        assert_eq!(batch.classes().len(), len);
        assert_eq!(batch.tokens().len(), len * batch.context_length());
        Self {
            position: batch.position(),
            ids: batch.sample_ids().iter().map(|&SampleId(id)| id).collect(),
            images: batch.images().to_vec(),
            tokens: batch.tokens().to_vec(),
            lengths: batch.lengths().to_vec(),
            classes: batch.classes().to_vec(),
        }
    }

    /// Puts the parts of all ranks together.
    pub fn unite(parts: impl IntoIterator<Item = Contents>) -> Self {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().unwrap();
        for part in parts {
            assert_eq!(part.position, whole.position);
            whole.ids.extend(part.ids);
            whole.images.extend(part.images);
            whole.tokens.extend(part.tokens);
            whole.lengths.extend(part.lengths);
            whole.classes.extend(part.classes);
        }
        whole
    }
}

pub fn at(epoch: u64, step: u64) -> Position {
    Position { epoch, step }
}

pub fn try_read(loader: &Loader, from: Position, until: Position) -> Result<Vec<Contents>, LoadError> {
    loader.stream(from, until)?.map(|batch| batch.map(|batch| Contents::of(&batch))).collect()
}

pub fn read(loader: &Loader, from: Position, until: Position) -> Vec<Contents> {
    try_read(loader, from, until).unwrap()
}
