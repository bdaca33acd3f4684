//! A stream that stands still says what it waits for.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::time::Duration;

use common::{Toy, at, count, try_read};
use fastclip_loader::{LoadError, Loader, Order, Tail, Transform};
use fastclip_testkit::{Fault, Gate, RequestKind};

#[test]
fn a_store_that_never_answers_ends_the_stream_with_stage_and_shard() {
    let toy = Toy::new(40, 20);
    let (faulty, dataset) = toy.in_faulty_store();
    let gate = Gate::closed();
    faulty.inject(RequestKind::Get, "00001.tar", 1, Fault::Wait(gate.clone()));
    let loader = Loader::builder(dataset)
        .global_batch(count(4))
        .order(Order::Sequential)
        .tail(Tail::Keep)
        .transform(Transform::eval(16))
        .stall_timeout(Duration::from_secs(2))
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
