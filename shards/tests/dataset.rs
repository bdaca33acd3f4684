//! Datasets written and read back, and what is said about those that were changed in between.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use async_compression::futures::bufread::GzipEncoder;
use fastclip_schemas::{Manifest, SampleId};
use fastclip_shards::{Dataset, DatasetWriter, ReadError, Store, StoreOptions, WriterOptions};
use fastclip_testkit::{Fault, FaultyStore, Gate, RequestKind};
use futures::AsyncReadExt;
use futures::future::join_all;
use object_store::memory::InMemory;

fn caption(position: u64) -> String {
    format!("caption number {position}")
}

async fn write(store: &Store, num_samples: u64) -> Manifest {
    let options =
        WriterOptions { samples_per_shard: NonZeroU32::new(4).unwrap(), ..WriterOptions::default() };
    let mut writer = DatasetWriter::new(store.clone(), options);
    append(&mut writer, 0..num_samples).await;
    writer.finish(Default::default()).await.unwrap()
}

async fn append(writer: &mut DatasetWriter, samples: std::ops::Range<u64>) {
    for sample in samples {
        let image = vec![sample as u8; 100 * sample as usize];
        let caption = caption(sample);
        let appended = writer.append(&[("jpg", &image), ("txt", caption.as_bytes())]).await.unwrap();
        assert_eq!(appended.sample_id, SampleId(sample));
        assert_eq!(appended.completed.is_some(), sample % 4 == 3);
    }
}

fn local(folder: &Path) -> Store {
    Store::create(folder.to_str().unwrap(), &StoreOptions::default()).unwrap()
}

#[tokio::test]
async fn every_sample_comes_back_in_any_run() {
    let store = Store::from_object_store(Arc::new(InMemory::new()), "toy").unwrap();
    let written = write(&store, 10).await;
    let dataset = Dataset::from_store(store, "manifest.json").await.unwrap();
    assert_eq!(dataset.manifest(), &written);
    let counts: Vec<_> = written.shards.iter().map(|shard| shard.num_samples).collect();
    assert_eq!(counts, [4, 4, 2]);
    for (shard, entry) in written.shards.iter().enumerate() {
        let index = dataset.index(shard).await.unwrap();
        for start in 0..index.len() {
            for end in start..=index.len() {
                let run = dataset.fetch(shard, &index, start..end).await.unwrap();
                for position in run.samples() {
                    let sample = run.sample(position).unwrap();
                    let number = 4 * shard as u64 + u64::from(position);
                    assert_eq!(sample.id(), SampleId(number));
                    assert_eq!(sample.key(), format!("{shard:05}{position:04}"));
                    assert_eq!(sample.member("txt").unwrap(), caption(number).as_bytes());
                    assert_eq!(sample.member("jpg").unwrap().len() as u64, 100 * number);
                    assert_eq!(sample.members().count(), 2);
                }
            }
        }
        assert_eq!(entry.first_sample_id, SampleId(4 * shard as u64));
    }
}

#[tokio::test]
async fn a_dataset_written_in_two_sessions_is_the_same() {
    let [whole, resumed] =
        [(), ()].map(|()| Store::from_object_store(Arc::new(InMemory::new()), "").unwrap());
    let expected = write(&whole, 10).await;
    let options =
        || WriterOptions { samples_per_shard: NonZeroU32::new(4).unwrap(), ..WriterOptions::default() };
    let mut writer = DatasetWriter::new(resumed.clone(), options());
    append(&mut writer, 0..6).await;
    drop(writer);
    let names: Vec<_> = resumed.list().await.unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["00000.idx", "00000.tar"], "an unfinished shard must not be seen, nor a manifest");
    let mut writer = DatasetWriter::resume(resumed.clone(), options(), expected.shards[..1].to_vec());
    append(&mut writer, 4..10).await;
    assert_eq!(writer.finish(Default::default()).await.unwrap(), expected);
    assert_eq!(whole.list().await.unwrap(), resumed.list().await.unwrap());
}

#[tokio::test]
async fn a_local_folder_is_a_dataset_by_its_path_its_url_and_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    write(&local(folder.path()), 5).await;
    let path = folder.path().to_str().unwrap();
    for location in [path.to_owned(), format!("{path}/manifest.json"), format!("file://{path}")] {
        let dataset = Dataset::open(&location).await.unwrap();
        assert_eq!(dataset.manifest().num_samples, 5, "{location}");
    }
}

/// The error and its causes, as a binary prints them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(" <- {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_folder_without_a_manifest_is_no_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().to_str().unwrap();
    let error = Dataset::open(location).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{location}` is no dataset: it holds no `manifest.json`"));
    assert!(error.hint().unwrap().contains("ingest index"));
    let error = Dataset::open("/no/such/folder").await.unwrap_err();
    assert_eq!(
        chain(&error),
        "could not open the dataset `/no/such/folder` <- there is no folder `/no/such/folder`"
    );
}

#[tokio::test]
async fn shards_that_are_not_those_of_the_manifest_are_named_with_both_values() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = write(&local(folder.path()), 10).await;
    let dataset = Dataset::open(folder.path().to_str().unwrap()).await.unwrap();
    let file = |name: &str| folder.path().join(name);

    let tar = std::fs::read(file("00000.tar")).unwrap();
    std::fs::write(file("00000.tar"), &tar[..tar.len() - 512]).unwrap();
    let error = dataset.index(0).await.unwrap_err();
    let (found, expected) = (tar.len() - 512, tar.len());
    assert_eq!(
        error.to_string(),
        format!("shard `00000.tar` has {found} bytes, the manifest says {expected}")
    );
    assert!(error.hint().unwrap().contains("ingest verify"));
    assert!(!error.costs_one_sample());

    std::fs::remove_file(file("00001.tar")).unwrap();
    let error = dataset.index(1).await.unwrap_err();
    assert!(error.to_string().ends_with("names `00001.tar`, which is not there"), "{error}");

    let other = std::fs::read(file("00001.idx")).unwrap();
    std::fs::write(file("00002.idx"), &other).unwrap();
    let error = dataset.index(2).await.unwrap_err();
    assert!(
        error.to_string().starts_with("index `00002.idx` of shard `00002.tar` has digest blake3:"),
        "{error}"
    );
    let both = [manifest.shards[1].index_digest, manifest.shards[2].index_digest];
    assert!(both.iter().all(|digest| error.to_string().contains(&digest.to_string())), "{error}");
}

#[tokio::test]
async fn a_shard_that_shrinks_while_it_is_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(&local(folder.path()), 4).await;
    let dataset = Dataset::open(folder.path().to_str().unwrap()).await.unwrap();
    let index = dataset.index(0).await.unwrap();
    let tar = folder.path().join("00000.tar");
    let bytes = std::fs::read(&tar).unwrap();
    std::fs::write(&tar, &bytes[..2000]).unwrap();
    let error = dataset.fetch(0, &index, 0..4).await.unwrap_err();
    assert!(error.to_string().contains("`00000.tar`"), "{error}");
    std::fs::remove_file(&tar).unwrap();
    let error = dataset.fetch(0, &index, 0..4).await.unwrap_err();
    assert!(matches!(error, ReadError::Missing { .. }), "{error:?}");
}

#[tokio::test]
async fn damage_inside_a_sample_costs_that_sample_only() {
    let folder = tempfile::tempdir().unwrap();
    write(&local(folder.path()), 4).await;
    let dataset = Dataset::open(folder.path().to_str().unwrap()).await.unwrap();
    let index = dataset.index(0).await.unwrap();
    let path = folder.path().join("00000.tar");
    let mut tar = std::fs::read(&path).unwrap();
    // Sample 1 loses its first header; sample 2 gets those of another sample.
    let starts: Vec<_> = (0..4).map(|i| index.byte_range(i..i + 1).start as usize).collect();
    tar[starts[1]..starts[1] + 512].fill(b'?');
    let mut other = Vec::new();
    fastclip_shards::tar::append_member(&mut other, "stranger.jpg", &[2; 200]).unwrap();
    fastclip_shards::tar::append_member(&mut other, "stranger.txt", caption(2).as_bytes()).unwrap();
    tar[starts[2]..starts[3]].copy_from_slice(&other);
    std::fs::write(&path, tar).unwrap();

    let run = dataset.fetch(0, &index, 0..4).await.unwrap();
    assert!(run.sample(0).is_ok() && run.sample(3).is_ok());
    let error = run.sample(1).unwrap_err();
    assert!(error.costs_one_sample());
    let at = starts[1];
    let expected = format!(
        "sample 1 of shard `00000.tar`, at byte {at}, is unreadable <- byte {at} holds no tar header"
    );
    assert_eq!(chain(&error), expected);
    let error = run.sample(2).unwrap_err();
    let expected = format!(
        "sample 2 of shard `00000.tar`, at byte {}, is `stranger`, its index says otherwise",
        starts[2]
    );
    assert_eq!(chain(&error), expected);
    assert!(error.costs_one_sample());
}

#[tokio::test]
async fn a_dataset_without_samples_is_refused() {
    let store = Store::from_object_store(Arc::new(InMemory::new()), "toy").unwrap();
    let error =
        DatasetWriter::new(store, WriterOptions::default()).finish(Default::default()).await.unwrap_err();
    assert!(error.to_string().ends_with("would have no samples"), "{error}");
}

/// A dataset of so many samples in a folder of its own.
async fn folder(num_samples: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    let options =
        WriterOptions { samples_per_shard: NonZeroU32::new(4).unwrap(), ..WriterOptions::default() };
    let mut writer = DatasetWriter::new(store, options);
    for number in 0..num_samples {
        writer.append(&[("txt", format!("{num_samples} {number}").as_bytes())]).await.unwrap();
    }
    writer.finish(Default::default()).await.unwrap();
    folder
}

/// Id and caption of every sample.
async fn captions(dataset: &Dataset) -> Vec<(u64, String)> {
    let mut captions = Vec::new();
    for shard in 0..dataset.manifest().shards.len() {
        let index = dataset.index(shard).await.unwrap();
        let run = dataset.fetch(shard, &index, 0..index.len()).await.unwrap();
        for position in run.samples() {
            let sample = run.sample(position).unwrap();
            captions
                .push((sample.id().0, String::from_utf8(sample.member("txt").unwrap().to_vec()).unwrap()));
        }
    }
    captions
}

#[tokio::test]
async fn joined_datasets_are_read_one_after_the_other_with_ids_of_their_own() {
    let (first, second) = (folder(6).await, folder(9).await);
    let [a, b] = [first.path().to_str().unwrap(), second.path().to_str().unwrap()];
    let joined = Dataset::open(&format!("{a}::{b}")).await.unwrap();
    let parts = joined.parts();
    assert_eq!([&parts[0].location, &parts[1].location], [a, b]);
    assert_eq!([&parts[0].shards, &parts[1].shards], [&(0..2), &(2..5)]);
    assert_eq!([&parts[0].sample_ids, &parts[1].sample_ids], [&(0..6), &(6..15)]);
    assert_eq!((joined.manifest().num_samples, joined.manifest().num_sample_ids), (15, 15));
    let expected = (0..6).map(|i| (i, format!("6 {i}"))).chain((0..9).map(|i| (6 + i, format!("9 {i}"))));
    assert_eq!(captions(&joined).await, expected.collect::<Vec<_>>());
    assert_eq!(joined.manifest().shards[2].name, format!("{b}/00000.tar"));
    let index = joined.index(2).await.unwrap();
    let run = joined.fetch(2, &index, 0..1).await.unwrap();
    assert_eq!(run.shard_name(), format!("{b}/00000.tar"), "messages tell shards of the same name apart");
    let twice = captions(&Dataset::open(&format!("{a}::{a}")).await.unwrap()).await;
    assert_eq!(twice.iter().map(|(id, _)| *id).collect::<Vec<_>>(), Vec::from_iter(0..12));
    assert!(twice[..6].iter().map(|(_, caption)| caption).eq(twice[6..].iter().map(|(_, caption)| caption)));
    let other_order = Dataset::open(&format!("{b}::{a}")).await.unwrap();
    assert_ne!(joined.manifest_digest(), other_order.manifest_digest());
    assert_eq!(Dataset::open(a).await.unwrap().manifest_digest(), {
        let text = std::fs::read(first.path().join("manifest.json")).unwrap();
        fastclip_schemas::Digest(*blake3::hash(&text).as_bytes())
    });
}

#[tokio::test]
async fn shards_that_are_named_take_part_alone_and_keep_their_ids() {
    let folder = folder(16).await;
    let location = folder.path().to_str().unwrap();
    let some = Dataset::open(&format!("{location}/{{00001..00002}}.tar")).await.unwrap();
    let expected: Vec<_> = (4..12).map(|i| (i, format!("16 {i}"))).collect();
    assert_eq!(captions(&some).await, expected);
    assert_eq!((some.manifest().num_samples, some.manifest().num_sample_ids), (8, 16));
    let error = Dataset::open(&format!("{location}/{{00002..00004}}.tar")).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the manifest of `{location}` has no shard `00004.tar`"));
}

#[tokio::test]
async fn a_large_file_in_the_place_of_an_index_or_manifest_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(folder.path());
    write(&store, 8).await;
    let file = std::fs::File::create(folder.path().join("00001.idx")).unwrap();
    // Takes no room on the disk, but would in memory.
    file.set_len(1 << 40).unwrap();
    let dataset = Dataset::from_store(store, "manifest.json").await.unwrap();
    assert!(dataset.index(0).await.is_ok());
    let error = dataset.index(1).await.unwrap_err();
    let ReadError::Index { index, source, .. } = &error else { panic!("{error}") };
    assert_eq!(index, "00001.idx");
    assert_eq!(source.to_string(), "it has 1099511627776 bytes, its 4 samples need 128");

    std::fs::File::create(folder.path().join("manifest.json")).unwrap().set_len(1 << 40).unwrap();
    let error = Dataset::open(folder.path().to_str().unwrap()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("it has 1099511627776 bytes, where no manifest has more"), "{source}");
}

#[tokio::test]
async fn four_compressed_shards_are_read_at_a_time() {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    let store = Store::from_object_store(Arc::new(faulty.clone()), "").unwrap();
    let mut manifest = write(&store, 4 * 7).await;
    for entry in &mut manifest.shards {
        let tar = store.get(&entry.name).await.unwrap();
        let mut compressed = Vec::new();
        GzipEncoder::new(&tar[..]).read_to_end(&mut compressed).await.unwrap();
        entry.name.push_str(".gz");
        entry.num_bytes = compressed.len() as u64;
        store.put(&entry.name, compressed).await.unwrap();
    }
    store.put("manifest.json", manifest.to_json()).await.unwrap();

    let dataset = Dataset::from_store(store, "manifest.json").await.unwrap();
    let indexes = join_all((0..7).map(|shard| dataset.index(shard))).await;
    let gate = Gate::closed();
    faulty.inject(RequestKind::Get, ".tar.gz", 0, Fault::Wait(gate.clone()));
    let num_before = faulty.requests().len();
    let num_asked = || faulty.requests().len() - num_before;
    let runs = join_all(indexes.iter().enumerate().map(|(shard, index)| {
        let index = index.as_ref().unwrap();
        dataset.fetch(shard, index, 1..3)
    }));
    let opening = async {
        gate.reached_by(4).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(num_asked(), 4);
        gate.open();
    };
    let (runs, ()) = futures::join!(runs, opening);
    assert_eq!(num_asked(), 7);
    for (shard, run) in runs.into_iter().enumerate() {
        assert_eq!(run.unwrap().sample(2).unwrap().id(), SampleId(4 * shard as u64 + 2));
    }
}
