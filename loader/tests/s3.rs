//! Streams from a real S3 server, sound and faulty: what arrives is what lies on disk.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::{Contents, Toy, at, block_on, count, read, s3_copy, try_read};
use fastclip_loader::{
    BadSampleBudget, LoadError, Loader, LoaderBuilder, Order, Tail, Transform, UnreadableShards,
};
use fastclip_shards::{Cache, Dataset, StoreOptions};
use fastclip_testkit::{S3Fault, S3Request, S3Server};

fn refined(builder: LoaderBuilder) -> Loader {
    builder
        .global_batch(count(12))
        .order(Order::Shuffled { seed: 7 })
        .tail(Tail::Drop)
        .transform(Transform::eval(16))
        .context_length(12)
        .threads(count(2))
        .build()
        .unwrap()
}

fn open(server: &S3Server, options: &StoreOptions) -> Dataset {
    block_on(Dataset::open_with(&server.location("toy"), options)).unwrap()
}

fn remote(server: &S3Server) -> Loader {
    refined(Loader::builder(open(server, &server.options())))
}

/// A part of a shard, for the first time. What is asked for after a cut is the rest of the same part, and ends as it does.
fn is_first(seen: &mut HashSet<(String, String)>, request: &S3Request) -> bool {
    let end = request.range.iter().filter_map(|range| range.split('-').nth(1)).collect();
    request.is_get && request.path.ends_with(".tar") && seen.insert((request.path.clone(), end))
}

fn local(toy: &Toy) -> Vec<Contents> {
    read(&refined(Loader::builder(toy.open())), at(0, 0), at(2, 0))
}

#[test]
fn a_stream_from_s3_is_that_from_disk() {
    let toy = Toy::new(60, 20);
    let server = s3_copy(&toy);
    assert!(read(&remote(&server), at(0, 0), at(2, 0)) == local(&toy));
}

#[test]
fn with_a_cache_nothing_is_asked_for_twice_and_nothing_changes() {
    let (toy, folder) = (Toy::new(60, 20), tempfile::tempdir().unwrap());
    let server = s3_copy(&toy);
    let cached = || {
        let cache = Cache::open(folder.path(), 64 << 20).unwrap();
        refined(Loader::builder(open(&server, &server.options()).with_cache(cache)))
    };
    assert!(read(&cached(), at(0, 0), at(2, 0)) == local(&toy));
    let again = cached();
    let before = server.requests().len();
    assert!(read(&again, at(0, 0), at(2, 0)) == local(&toy));
    assert_eq!(server.requests()[before..], []);
    assert_eq!(again.dataset().cache().unwrap().stats().misses, 0);
}

/// The dataset was opened on an event loop that is gone by then, and whose connection is used again.
#[test]
fn a_stream_does_not_need_the_event_loop_that_opened_its_dataset() {
    let toy = Toy::new(60, 20);
    let server = s3_copy(&toy);
    // Alive and idle: nobody turns it while the stream reads.
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dataset = idle.block_on(Dataset::open_with(&server.location("toy"), &server.options())).unwrap();
    let loader = refined(Loader::builder(dataset).stall_timeout(Duration::from_secs(60)));
    assert!(read(&loader, at(0, 0), at(2, 0)) == local(&toy));
    drop(idle);
    assert!(read(&loader, at(0, 0), at(2, 0)) == local(&toy));
}

#[test]
fn refusals_cuts_slowness_and_wrong_lengths_change_nothing_that_arrives() {
    let toy = Toy::new(60, 20);
    let expected = local(&toy);
    for fault in
        [S3Fault::InternalError, S3Fault::CutAfter(700), S3Fault::InPieces(100), S3Fault::ShorterBy(5)]
    {
        let server = s3_copy(&toy);
        let loader = remote(&server);
        let mut seen = HashSet::new();
        server.inject(move |request| is_first(&mut seen, request).then_some(fault));
        assert!(read(&loader, at(0, 0), at(2, 0)) == expected, "{fault:?}");
        let sent = server.requests().len();
        assert!(sent > 12, "{fault:?}: every part was asked for: {sent}");
    }
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let toy = Toy::new(60, 20);
    let server = s3_copy(&toy);
    // The time is the client's own bound of an answer.
    let loader = refined(Loader::builder(open(&server, &server.options().with("timeout", "1s"))));
    let mut is_silent_once = true;
    server.inject(move |request| {
        (request.path.ends_with(".tar") && std::mem::take(&mut is_silent_once)).then_some(S3Fault::Silence)
    });
    assert!(read(&loader, at(0, 0), at(2, 0)) == local(&toy));
}

#[test]
fn a_shard_that_stays_short_ends_the_stream_or_is_left_out() {
    let toy = Toy::new(60, 20);
    let server = s3_copy(&toy);
    let dataset = open(&server, &server.options());
    server.inject(|request| {
        (request.is_get && request.path.ends_with("00001.tar")).then_some(S3Fault::ShorterBy(3))
    });
    let build = || Loader::builder(dataset.clone()).tail(Tail::Keep);
    let strict = refined(build());
    let error = try_read(&strict, at(0, 0), at(1, 0)).unwrap_err();
    assert!(matches!(&error, LoadError::Read { shard, .. } if shard == "00001.tar"), "{error}");

    let lenient = build().global_batch(count(12)).order(Order::Sequential).transform(Transform::eval(16));
    let lenient = lenient
        .unreadable_shards(UnreadableShards::LeaveOut)
        .bad_sample_budget(BadSampleBudget::UNLIMITED)
        .build()
        .unwrap();
    let ids: Vec<u64> = read(&lenient, at(0, 0), at(1, 0)).into_iter().flat_map(|batch| batch.ids).collect();
    assert_eq!(ids, (0..20).chain(40..60).collect::<Vec<u64>>());
    assert_eq!(lenient.stats().num_bad(), 20);
}
