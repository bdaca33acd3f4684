//! A store that fails at a chosen request or byte: the first cause arrives, and nothing half-done is taken
//! for whole.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::error::Error;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use fastclip_loader::{LoadError, Loader, Order, Tail, Transform};
use fastclip_schemas::{MANIFEST_FILE, Position};
use fastclip_shards::{Dataset, DatasetWriter, Store, WriterOptions};
use fastclip_testkit::{Fault, FaultyStore, Gate, Pair, RequestKind, TinyDataset};
use fastclip_tests::runtime;
use object_store::memory::InMemory;

/// A dataset of three shards with ten samples each, in a store that can be made to fail.
fn faulty_dataset() -> (FaultyStore, Dataset) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    let store = Store::from_object_store(Arc::new(faulty.clone()), "toy").unwrap();
    let dataset = runtime().block_on(async {
        TinyDataset::write(store.clone(), (0..30).map(|number| Pair::new(number, 32)), 10).await;
        Dataset::from_store(store, MANIFEST_FILE).await.unwrap()
    });
    (faulty, dataset)
}

fn loader(dataset: Dataset) -> Loader {
    let builder =
        Loader::builder(dataset).global_batch(NonZeroUsize::new(5).unwrap()).order(Order::Sequential);
    builder.tail(Tail::Keep).transform(Transform::eval(32)).build().unwrap()
}

/// The message with all its causes.
fn in_full(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
fn a_shard_that_breaks_off_ends_the_stream_with_its_name() {
    let (faulty, dataset) = faulty_dataset();
    faulty.inject(RequestKind::Get, "00001.tar", 0, Fault::CutAfter(700));
    let batches = loader(dataset).stream(Position::default(), Position::start_of(1)).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = batches.partition(Result::is_ok);
    assert!(good.len() <= 2, "shard 0 has two batches, there came {}", good.len());
    assert_eq!(bad.len(), 1, "after its first error a stream has ended");
    let error = bad.into_iter().next().unwrap().unwrap_err();
    assert!(matches!(&error, LoadError::Read { shard, .. } if shard == "00001.tar"), "{error:?}");
    let text = in_full(&error);
    assert!(text.contains("injected: `toy/00001.tar` breaks off"), "the first cause is not in: {text}");
}

#[test]
fn an_index_that_cannot_be_read_ends_the_stream_with_its_name() {
    let (faulty, dataset) = faulty_dataset();
    faulty.inject(RequestKind::Get, "00002.idx", 0, Fault::Fail);
    let batches = loader(dataset).stream(Position::default(), Position::start_of(1)).unwrap();
    let error = batches.filter_map(Result::err).next().expect("the index is needed for an epoch");
    assert!(in_full(&error).contains("00002"), "{}", in_full(&error));
}

#[test]
fn dropping_a_stream_that_waits_for_its_store_does_not_wait() {
    let (faulty, dataset) = faulty_dataset();
    let gate = Gate::closed();
    faulty.inject(RequestKind::Get, "00000.tar", 0, Fault::Wait(gate.clone()));
    let loader = loader(dataset);
    let batches = loader.stream(Position::default(), Position::start_of(1)).unwrap();
    runtime().block_on(gate.reached());
    // The gate stays shut: were the request waited for, this would never return.
    drop(batches);
    assert_eq!(loader.stats().buffers_lent, 0);
}

#[test]
fn a_slow_store_changes_when_batches_come_but_not_which() {
    let ids = |batches: fastclip_loader::Batches| -> Vec<u64> {
        batches
            .flat_map(|batch| batch.unwrap().sample_ids().iter().map(|id| id.0).collect::<Vec<_>>())
            .collect()
    };
    let (faulty, dataset) = faulty_dataset();
    let loader = loader(dataset);
    let undisturbed = ids(loader.stream(Position::default(), Position::start_of(1)).unwrap());
    let gate = Gate::closed();
    faulty.inject(RequestKind::Get, "00000.tar", 0, Fault::Wait(gate.clone()));
    let batches = loader.stream(Position::default(), Position::start_of(1)).unwrap();
    runtime().block_on(async {
        gate.reached().await;
        gate.open();
    });
    assert_eq!(ids(batches), undisturbed);
}

#[test]
fn a_writer_whose_store_fails_leaves_no_manifest() {
    for (kind, path_end) in
        [(RequestKind::Put, "00001.tar"), (RequestKind::Put, "00001.idx"), (RequestKind::Put, MANIFEST_FILE)]
    {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        faulty.inject(kind, path_end, 0, Fault::Fail);
        let store = Store::from_object_store(Arc::new(faulty.clone()), "toy").unwrap();
        runtime().block_on(async {
            let options =
                WriterOptions { samples_per_shard: NonZeroU32::new(3).unwrap(), ..WriterOptions::default() };
            let mut writer = DatasetWriter::new(store.clone(), options);
            let mut failure = None;
            for number in 0..9 {
                let pair = Pair::new(number, 32);
                let members = [("jpg", &pair.jpeg[..]), ("txt", pair.caption.as_bytes())];
                if let Err(error) = writer.append(&members).await {
                    failure = Some(error);
                    break;
                }
            }
            let error = match failure {
                Some(error) => error,
                None => writer.finish(BTreeMap::new()).await.expect_err("some request fails"),
            };
            let text = in_full(&error);
            assert!(text.contains(path_end) && text.contains("injected"), "{text}");
            let error = Dataset::from_store(store, MANIFEST_FILE).await.expect_err("there is no manifest");
            assert!(error.to_string().contains(MANIFEST_FILE), "{error}");
        });
    }
}
