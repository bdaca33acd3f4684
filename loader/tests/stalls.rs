//! A stream that stands still says what it waits for.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Toy, at, block_on, count, try_read};
use fastclip_loader::{LoadError, Loader, Order, Tail, Transform};
use fastclip_shards::{Dataset, Store};
use fastclip_testkit::{Fault, FaultyStore, Gate, RequestKind};
use object_store::local::LocalFileSystem;

#[test]
fn a_store_that_never_answers_ends_the_stream_with_stage_and_shard() {
    let toy = Toy::new(40, 20);
    let files = LocalFileSystem::new_with_prefix(toy.path()).unwrap();
    let faulty = FaultyStore::new(Arc::new(files));
    let store = Store::from_object_store(Arc::new(faulty.clone()), "").unwrap();
    let dataset = block_on(Dataset::from_store(store, "manifest.json")).unwrap();
    let gate = Gate::closed();
    faulty.inject(RequestKind::Get, "00001.tar", 1, Fault::Wait(gate.clone()));
    let loader = Loader::builder(dataset)
        .global_batch(count(4))
        .order(Order::Sequential)
        .tail(Tail::Keep)
        .transform(Transform::eval(16))
        .stall_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let mut batches = loader.stream(at(0, 0), at(1, 0)).unwrap();
    let error = batches.find_map(Result::err).unwrap();
    let LoadError::Stalled { waits, .. } = &error else { panic!("{error}") };
    assert!(waits.contains("reading has waited "), "{waits}");
    assert!(waits.contains("of shard `00001.tar`"), "{waits}");
    assert!(waits.contains("dispatching has waited "), "{waits}");
    assert!(batches.next().is_none(), "after an error a stream has ended");
    // Not waited for, hence this returns although the gate is shut.
    drop(batches);
    gate.open();
    assert!(try_read(&loader, at(0, 0), at(1, 0)).is_ok());
}
