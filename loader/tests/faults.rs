//! Bad samples, broken shards, and streams that are dropped.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use common::{Contents, Members, Toy, at, good, jpeg, read, small_loader, try_read};
use fastclip_loader::{
    BadReason, BadSampleBudget, LoadError, Order, Tail, Transform, UnreadableShards, World,
};
use fastclip_testkit::{Fault, RequestKind};

fn cut(mut image: Vec<u8>) -> Vec<u8> {
    image.truncate(image.len() / 2);
    image
}

/// Samples 3, 11, 19, … are bad, each in another way.
fn with_faults(number: u32) -> Members {
    let caption = ("txt", b"a caption".to_vec());
    let image = |bytes| ("jpg", bytes);
    match number {
        3 => vec![image(cut(jpeg(3, (40, 40)))), caption],
        11 => vec![image(b"<html>gone</html>".to_vec()), caption],
        19 => vec![image(Vec::new()), caption],
        27 => vec![image(jpeg(27, (40, 40))), ("txt", vec![b'a', 0xff, b'b'])],
        35 => vec![image(jpeg(35, (40, 40)))],
        43 => vec![caption],
        51 => vec![image(jpeg(51, (40, 40))), caption, ("cls", b"cat".to_vec())],
        _ => good(number),
    }
}

const NUM_BAD: u64 = 7;

#[test]
fn bad_samples_are_counted_by_reason_and_replaced_by_good_ones_of_the_same_run() {
    let toy = Toy::with(64, 32, with_faults);
    let budget = BadSampleBudget::UNLIMITED;
    let loader = toy.loader(16).segment_samples(8).bad_sample_budget(budget).build().unwrap();
    let batches = read(&loader, at(0, 0), at(1, 0));
    assert!(batches.iter().all(|batch| batch.ids.len() == 16), "batches stay full");
    let mut counts = BTreeMap::new();
    batches.iter().flat_map(|batch| &batch.ids).for_each(|&id| *counts.entry(id).or_insert(0) += 1);
    let bad = [3, 11, 19, 27, 35, 43, 51];
    assert!(bad.iter().all(|id| !counts.contains_key(id)), "{counts:?}");
    assert_eq!(counts.len() as u64, 64 - NUM_BAD, "all good samples are there");
    for (id, _) in counts.iter().filter(|&(_, &count)| count > 1) {
        assert!(bad.iter().any(|bad| bad / 8 == id / 8), "{id} stands in for one of its segment");
    }
    let stats = loader.stats();
    let expected = [
        (BadReason::MissingImage, 1),
        (BadReason::TruncatedImage, 1),
        (BadReason::UndecodableImage, 2),
        (BadReason::MissingCaption, 1),
        (BadReason::CaptionNotUtf8, 1),
        (BadReason::Class, 1),
    ];
    assert_eq!(stats.bad_samples, BTreeMap::from(expected));
}

#[test]
fn a_bad_sample_that_was_cut_off_from_its_neighbours_is_replaced_all_the_same() {
    let toy = Toy::with(64, 32, with_faults);
    let budget = BadSampleBudget::UNLIMITED;
    let loader = toy.loader(4).segment_samples(8).window_samples(9).bad_sample_budget(budget);
    let loader = loader.build().unwrap();
    let epochs = 20;
    let batches = read(&loader, at(0, 0), at(epochs, 0));
    assert!(batches.iter().all(|batch| batch.ids.len() == 4), "batches stay full");
    assert_eq!(loader.stats().num_bad(), epochs * NUM_BAD);
}

#[test]
fn a_short_tail_is_judged_when_the_epoch_is_over() {
    let toy = Toy::with(20, 20, |_| vec![("txt", b"no image".to_vec())]);
    let loader = toy.loader(16).tail(Tail::Keep).build().unwrap();
    let error = try_read(&loader, at(0, 0), at(1, 0)).unwrap_err();
    assert!(matches!(error, LoadError::BadSamples { num_bad: 20, num_samples: 20, .. }), "{error}");
}

#[test]
fn replacements_depend_on_neither_ranks_nor_threads() {
    let toy = Toy::with(64, 32, with_faults);
    let budget = BadSampleBudget::UNLIMITED;
    for tail in [Tail::Drop, Tail::Keep] {
        let of_rank = |rank, size| {
            let world = World::new(rank, size).unwrap();
            let loader = toy.loader(16).tail(tail).world(world).bad_sample_budget(budget).build().unwrap();
            read(&loader, at(0, 0), at(2, 0))
        };
        let whole = of_rank(0, 1);
        let ranks: Vec<Vec<Contents>> = (0..4).map(|rank| of_rank(rank, 4)).collect();
        for (step, expected) in whole.iter().enumerate() {
            assert!(
                Contents::unite(ranks.iter().map(|rank| rank[step].clone())) == *expected,
                "{tail:?} {step}"
            );
        }
    }
}

#[test]
fn keeping_the_tail_leaves_bad_samples_out_and_closes_the_gaps() {
    let toy = Toy::with(64, 32, with_faults);
    let good_only = |id: &u64| !matches!(id, 3 | 11 | 19 | 27 | 35 | 43 | 51);
    let loader = toy
        .loader(16)
        .order(Order::Sequential)
        .tail(Tail::Keep)
        .transform(Transform::eval(16))
        .bad_sample_budget(BadSampleBudget::UNLIMITED)
        .build()
        .unwrap();
    let batches = read(&loader, at(0, 0), at(1, 0));
    let ids: Vec<u64> = batches.iter().flat_map(|batch| batch.ids.clone()).collect();
    assert_eq!(ids, (0..64).filter(good_only).collect::<Vec<u64>>());
    // Each image is still beside its id.
    let whole = Toy::new(64, 32);
    let intact = whole.loader(16).order(Order::Sequential).transform(Transform::eval(16)).build().unwrap();
    for (batch, intact) in batches.iter().zip(read(&intact, at(0, 0), at(1, 0))) {
        for (i, id) in batch.ids.iter().enumerate() {
            let j = intact.ids.iter().position(|other| other == id).unwrap();
            assert!(batch.images[i * 768..][..768] == intact.images[j * 768..][..768], "image of {id}");
            assert_eq!(batch.tokens[i * 12..][..12], intact.tokens[j * 12..][..12]);
        }
    }
    assert_eq!(loader.stats().num_bad(), NUM_BAD);
}

#[test]
fn more_bad_samples_than_the_budget_end_the_stream_and_name_the_last() {
    let toy = Toy::with(64, 32, with_faults);
    let build = |budget| toy.loader(16).order(Order::Sequential).bad_sample_budget(budget).build().unwrap();
    let none = build(BadSampleBudget::NONE);
    let error = try_read(&none, at(0, 0), at(1, 0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 of the first 4 samples are bad, the budget allows 0.00 %; the last one is sample 3 of shard `00000.tar` \
         (key `000000003`): truncated image: the image ends too early (Premature end of JPEG file)"
    );
    // 7 of 64 are more than 5 %, judged at the end of the epoch, as it has fewer than a thousand samples.
    let error = try_read(&build(BadSampleBudget::default()), at(0, 0), at(2, 0)).unwrap_err();
    let LoadError::BadSamples { num_bad, num_samples, .. } = error else { panic!("{error}") };
    assert!(num_samples >= 64 && num_bad >= NUM_BAD, "{num_bad} of {num_samples}");
}

#[test]
fn after_an_error_a_stream_has_ended() {
    let toy = Toy::with(64, 32, with_faults);
    let loader = toy.loader(16).bad_sample_budget(BadSampleBudget::NONE).build().unwrap();
    let mut batches = loader.stream(at(0, 0), at(9, 0)).unwrap();
    assert!(batches.by_ref().any(|batch| batch.is_err()));
    assert!(batches.next().is_none());
    assert_eq!((loader.stats().buffers_lent, loader.stats().bytes_in_flight), (0, 0));
}

#[test]
fn dropping_a_stream_does_not_wait_for_the_rest_of_a_batch() {
    let large = |number| vec![("jpg", jpeg(number, (300, 300))), ("txt", b"a photo".to_vec())];
    let toy = Toy::with(400, 400, large);
    let loader = toy.loader(400).build().unwrap();
    read(&loader, at(0, 0), at(1, 0));
    let num_requests = loader.stats().fetch.count;
    // In one round or another, this thread may be away while all of a batch is decoded.
    for round in 1..=5 {
        let batches = loader.stream(at(0, 0), at(1, 0)).unwrap();
        // All of the batch is at hand then.
        while loader.stats().fetch.count < (1 + round) * num_requests {
            thread::yield_now();
        }
        drop(batches);
    }
    assert!(loader.stats().decode.count < 6 * 400, "{}", loader.stats());
}

#[test]
fn a_store_that_refuses_all_is_not_asked_for_more_than_is_soon_needed() {
    let toy = Toy::new(400, 10);
    let (faulty, dataset) = toy.in_faulty_store();
    faulty.inject(RequestKind::Get, ".idx", 0, Fault::Fail);
    let loader = small_loader(dataset, 8)
        .tail(Tail::Keep)
        .segment_samples(1)
        .window_samples(16)
        .max_bytes_in_flight(600 << 10)
        .unreadable_shards(UnreadableShards::LeaveOut)
        .bad_sample_budget(BadSampleBudget::UNLIMITED)
        .build()
        .unwrap();
    let mut batches = loader.stream(at(0, 0), at(1000, 0)).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().len(), 0);
    // Long enough for tens of thousands of refusals, were they not paced.
    thread::sleep(Duration::from_millis(300));
    let num_requests = faulty.requests().len();
    assert!(num_requests < 1000, "{num_requests} requests for one batch of 8 samples");
}

#[test]
fn a_run_without_a_good_sample_is_an_error() {
    let toy =
        Toy::with(32, 32, |number| if number < 16 { vec![("txt", b"x".to_vec())] } else { good(number) });
    let loader = toy
        .loader(8)
        .order(Order::Sequential)
        .window_samples(8)
        .bad_sample_budget(BadSampleBudget::UNLIMITED)
        .build()
        .unwrap();
    let message = try_read(&loader, at(0, 0), at(1, 0)).unwrap_err().to_string();
    assert!(message.starts_with("samples 0 to 7 of shard `00000.tar` are all bad"), "{message}");
    assert!(message.ends_with("no image: its members are txt"), "{message}");
}

#[test]
fn a_damaged_header_in_a_shard_costs_its_sample_only() {
    let toy = Toy::new(40, 40);
    let dataset = toy.open();
    let index = common::block_on(dataset.index(0)).unwrap();
    let path = toy.path().join("00000.tar");
    let mut bytes = fs::read(&path).unwrap();
    let header = index.byte_range(17..18).start as usize;
    bytes[header + 148..header + 156].copy_from_slice(b"9999999\0");
    fs::write(&path, bytes).unwrap();

    let loader =
        toy.loader(20).tail(Tail::Keep).bad_sample_budget(BadSampleBudget::UNLIMITED).build().unwrap();
    let mut ids: Vec<u64> =
        read(&loader, at(0, 0), at(1, 0)).into_iter().flat_map(|batch| batch.ids).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).filter(|&id| id != 17).collect::<Vec<u64>>());
    assert_eq!(loader.stats().bad_samples, BTreeMap::from([(BadReason::Archive, 1)]));
}

#[test]
fn a_missing_shard_ends_the_stream_with_its_name_after_the_batches_before_it() {
    let toy = Toy::new(96, 32);
    let loader = toy.loader(16).order(Order::Sequential).build().unwrap();
    fs::remove_file(toy.path().join("00001.tar")).unwrap();
    let mut batches = loader.stream(at(0, 0), at(1, 0)).unwrap();
    let good: Vec<_> = batches.by_ref().map_while(Result::ok).collect();
    assert_eq!(good.len(), 2, "the first shard is delivered");
    assert!(batches.next().is_none(), "the error was taken by `map_while`");

    let error = try_read(&loader, at(0, 0), at(1, 0)).unwrap_err();
    assert!(error.to_string().ends_with("of shard `00001.tar`"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_shard_that_was_cut_is_refused_before_its_samples_are_used() {
    let toy = Toy::new(40, 40);
    let path = toy.path().join("00000.tar");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = try_read(&toy.loader(20).build().unwrap(), at(0, 0), at(1, 0)).unwrap_err();
    let LoadError::Read { shard, source, .. } = error else { panic!("{error}") };
    assert_eq!(shard, "00000.tar");
    assert!(source.to_string().contains("the manifest says"), "{source}");
}
