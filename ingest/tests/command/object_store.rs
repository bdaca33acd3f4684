use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use fastclip_ingest::{
    Columns, DecodeCheck, DuplicateOptions, IdSource, IndexOptions, Limits, OnExisting, PackError,
    PackOptions, Progress, RunStateError, Stop, VerifyOptions, index, pack, verify,
};
use fastclip_shards::{Dataset, Store};
use fastclip_testkit::CloudServer;
use object_store::memory::InMemory;

use crate::support::Scratch;

fn options(scratch: &Scratch, output: Store) -> PackOptions {
    PackOptions {
        input: scratch.path("pairs/table.jsonl").into(),
        output,
        on_existing: OnExisting::Refuse,
        columns: Columns::default(),
        samples_per_shard: NonZeroU32::new(8).unwrap(),
        max_shard_bytes: None,
        duplicates: DuplicateOptions::default(),
        limits: Limits::default(),
        max_bad_fraction: 0.0,
        side_files: Vec::new(),
        threads: NonZeroUsize::new(2).unwrap(),
        created_by: "test".to_owned(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn an_object_store_is_an_output_like_a_folder() {
    is_like_a_folder(Store::from_object_store(Arc::new(InMemory::new()), "a/prefix").unwrap());
}

#[test]
fn azures_storage_is_an_output_like_a_folder() {
    let server = CloudServer::azure();
    is_like_a_folder(Store::create(&server.location("a/prefix"), &server.options()).unwrap());
}

fn is_like_a_folder(store: Store) {
    let scratch = Scratch::new();
    scratch.pairs(20);
    let options = options(&scratch, store.clone());
    let (progress, stop) = (Progress::silent(), Stop::default());
    let report = pack(&options, &progress, &stop).unwrap();
    assert_eq!((report.num_samples, report.num_shards), (20, 3));
    let names: Vec<_> = block_on(store.list()).unwrap().into_iter().map(|object| object.name).collect();
    let shards = ["00000.idx", "00000.tar", "00001.idx", "00001.tar", "00002.idx", "00002.tar"];
    assert_eq!(names, [&shards[..], &["manifest.json", "sizes.json"]].concat());

    let refused = pack(&options, &progress, &stop).unwrap_err();
    assert!(
        matches!(refused, PackError::State(RunStateError::Occupied { is_resumable: true, .. })),
        "{refused}"
    );
    let dataset = block_on(Dataset::from_store(store.clone(), "manifest.json")).unwrap();
    let options = VerifyOptions { decode: DecodeCheck::All, threads: NonZeroUsize::MIN };
    let report = verify(&dataset, &options, &progress, &stop).unwrap();
    assert!(report.check().is_ok(), "{report}");

    // The same tars, indexed as if they were another program's, give the same indexes.
    let again = IndexOptions {
        location: store.clone(),
        ids: IdSource::Dense,
        skip_damaged: false,
        overwrite: true,
        threads: NonZeroUsize::new(2).unwrap(),
        created_by: "test".to_owned(),
    };
    index(&again, &progress, &stop).unwrap();
    let reindexed = block_on(Dataset::from_store(store, "manifest.json")).unwrap();
    assert_eq!(reindexed.manifest().shards, dataset.manifest().shards);
}

#[test]
fn a_stopped_run_leaves_no_manifest_and_resumes() {
    let scratch = Scratch::new();
    scratch.pairs(20);
    let store = Store::from_object_store(Arc::new(InMemory::new()), "").unwrap();
    let mut options = options(&scratch, store.clone());
    let stop = Stop::default();
    stop.request();
    let stopped = pack(&options, &Progress::silent(), &stop).unwrap_err();
    assert!(matches!(stopped, PackError::Stopped { num_rows: 0 }), "{stopped}");
    assert!(!stopped.is_refusal());
    assert_eq!(block_on(store.get_if_there("manifest.json")).unwrap(), None);
    options.on_existing = OnExisting::Resume;
    let report = pack(&options, &Progress::silent(), &Stop::default()).unwrap();
    assert_eq!(report.num_samples, 20);
}
