//! The promises of the whole loader, on real shards.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::collections::BTreeSet;

use common::{Contents, Toy, at, count, good, read, try_read};
use fastclip_loader::{Augmentation, ImageTransformer, LoadError};
use fastclip_loader::{Loader, Order, Quality, Tail, Tokenizer, Transform, World, decode_rgb};
use fastclip_schemas::{Position, SampleId};

#[test]
fn batches_do_not_depend_on_threads_prefetch_or_requests() {
    let toy = Toy::new(150, 40);
    let expected = read(&toy.loader(24).threads(count(1)).build().unwrap(), at(0, 0), at(2, 0));
    assert_eq!(expected.len(), 12);
    for (threads, prefetch, requests) in [(2, 1, 1), (4, 3, 7), (3, 8, 64)] {
        let loader = toy
            .loader(24)
            .threads(count(threads))
            .prefetch_batches(count(prefetch))
            .requests_in_flight(count(requests))
            .build()
            .unwrap();
        assert!(read(&loader, at(0, 0), at(2, 0)) == expected, "{threads} threads, {prefetch}, {requests}");
    }
}

#[test]
fn the_ranks_of_any_world_together_read_the_same_global_batches() {
    let toy = Toy::new(150, 40);
    for tail in [Tail::Drop, Tail::Keep] {
        let of_rank = |rank, size| {
            let world = World::new(rank, size).unwrap();
            read(&toy.loader(24).tail(tail).world(world).build().unwrap(), at(0, 0), at(1, 0))
        };
        let whole = of_rank(0, 1);
        assert_eq!(whole.len(), if tail == Tail::Drop { 6 } else { 7 });
        for size in [2, 3, 4, 8] {
            let ranks: Vec<Vec<Contents>> = (0..size).map(|rank| of_rank(rank, size)).collect();
            assert!(ranks.iter().all(|steps| steps.len() == whole.len()), "the same number of steps");
            for (step, expected) in whole.iter().enumerate() {
                let united = Contents::unite(ranks.iter().map(|rank| rank[step].clone()));
                assert!(united == *expected, "step {step} of {size} ranks");
            }
        }
    }
}

#[test]
fn resuming_anywhere_changes_nothing_that_follows() {
    let toy = Toy::new(130, 50);
    let loader = toy.loader(16).build().unwrap();
    let until = at(2, 3);
    let whole = read(&loader, at(0, 0), until);
    assert_eq!(whole.len(), 8 + 8 + 3);
    let positions: Vec<Position> = whole.iter().map(|batch| batch.position).collect();
    assert!(positions.iter().enumerate().all(|(done, at)| loader.position_after(done as u64) == *at));
    for (done, from) in positions.into_iter().enumerate() {
        // A loader of its own, as after a restart.
        let resumed = read(&toy.loader(16).build().unwrap(), from, until);
        assert!(resumed == whole[done..], "from {from:?}");
    }
}

#[test]
fn a_stream_says_where_it_stands_and_another_one_goes_on_there() {
    let toy = Toy::new(130, 50);
    let until = at(2, 3);
    let loader = toy.loader(16).build().unwrap();
    let whole = read(&loader, at(0, 0), until);
    for done in [0, 1, 8, 15, whole.len()] {
        let mut stream = loader.stream(at(0, 0), until).unwrap();
        stream.by_ref().take(done).for_each(|batch| drop(batch.unwrap()));
        let stored = serde_json::to_string(&stream.state()).unwrap();
        assert!(stored.len() < 200, "{stored}");
        let state = serde_json::from_str(&stored).unwrap();
        let resumed = toy.loader(16).build().unwrap().resume(state, until).unwrap();
        let rest: Vec<_> = resumed.map(|batch| Contents::of(&batch.unwrap())).collect();
        assert!(rest == whole[done..], "after {done} batches");
        let refused = toy.loader(8).build().unwrap().resume(state, until);
        assert!(matches!(refused, Err(LoadError::OtherOrder { .. })), "{refused:?}");
    }
}

#[test]
fn a_stream_crosses_epochs_and_each_has_its_own_order() {
    let toy = Toy::new(64, 64);
    let loader = toy.loader(32).build().unwrap();
    assert_eq!((loader.steps_per_epoch(), loader.num_samples()), (2, 64));
    let batches = read(&loader, at(3, 1), at(5, 1));
    let positions: Vec<Position> = batches.iter().map(|batch| batch.position).collect();
    assert_eq!(positions, [at(3, 1), at(4, 0), at(4, 1), at(5, 0)]);
    let ids: BTreeSet<u64> = batches[1..3].iter().flat_map(|batch| batch.ids.clone()).collect();
    assert_eq!(ids.len(), 64, "an epoch has every sample");
    assert_ne!(batches[1].ids, batches[3].ids);
    // The end of an epoch may be named from either side.
    assert_eq!(read(&loader, at(3, 2), at(4, 1)), batches[1..2]);
    assert!(read(&loader, at(4, 1), at(4, 1)).is_empty());
}

#[test]
fn keeping_the_tail_delivers_every_sample_exactly_once_over_ranks() {
    let toy = Toy::new(101, 30);
    for order in [Order::Shuffled { seed: 5 }, Order::Sequential] {
        let mut ids = Vec::new();
        for rank in 0..4 {
            let world = World::new(rank, 4).unwrap();
            let loader = toy.loader(16).order(order).tail(Tail::Keep).world(world).build().unwrap();
            let batches = read(&loader, at(0, 0), at(1, 0));
            assert_eq!(batches.len(), 7);
            ids.extend(batches.into_iter().flat_map(|batch| batch.ids));
        }
        ids.sort_unstable();
        assert_eq!(ids, (0..101).collect::<Vec<u64>>());
    }
}

#[test]
fn the_sequential_order_is_that_of_the_ids() {
    let toy = Toy::new(50, 20);
    let loader = toy.loader(8).order(Order::Sequential).tail(Tail::Keep).build().unwrap();
    let ids: Vec<u64> = read(&loader, at(9, 0), at(10, 0)).into_iter().flat_map(|batch| batch.ids).collect();
    assert_eq!(ids, (0..50).collect::<Vec<u64>>());
}

#[test]
fn a_batch_holds_the_pixels_tokens_and_classes_of_its_samples() {
    let toy = Toy::with(20, 7, |number| {
        let mut members = good(number);
        if number % 2 == 0 {
            members.push(("cls", number.to_string().into_bytes()));
        }
        members
    });
    let transform = Transform::train(16);
    let order = Order::Shuffled { seed: 31 };
    let loader = toy.loader(10).order(order).transform(transform).quality(Quality::Exact).build().unwrap();
    let tokenizer = Tokenizer::clip();
    for batch in read(&loader, at(6, 0), at(7, 0)) {
        for (i, &id) in batch.ids.iter().enumerate() {
            let number = u32::try_from(id).unwrap();
            let image = decode_rgb(&good(number)[0].1).unwrap();
            let mut planes = vec![0; transform.image_bytes()];
            let augmentation = Augmentation { seed: 31, epoch: 6, sample: SampleId(id) };
            ImageTransformer::new().transform(&image, &transform, augmentation, &mut planes);
            assert!(batch.images[i * planes.len()..][..planes.len()] == planes, "pixels of {id}");

            let mut tokens = [0; 12];
            let length = tokenizer.encode_into(&format!("a photo number {number}"), &mut tokens);
            assert_eq!(batch.tokens[i * 12..][..12], tokens);
            assert_eq!(batch.lengths[i], length as i32);
            assert_eq!(batch.classes[i], if number % 2 == 0 { number as i32 } else { -1 });
        }
    }
}

#[test]
fn samples_of_a_classification_set_need_no_caption() {
    let toy = Toy::with(8, 8, |number| vec![good(number).remove(0), ("cls", b" 3\n".to_vec())]);
    let loader = toy.loader(8).transform(Transform::eval(16)).build().unwrap();
    let batches = read(&loader, at(0, 0), at(1, 0));
    assert_eq!(batches[0].classes, [3; 8]);
    assert_eq!(batches[0].lengths, [2; 8]);
    assert_eq!(batches[0].tokens[..3], [49406, 49407, 0]);
}

#[test]
fn batches_that_are_kept_do_not_stop_the_stream() {
    let toy = Toy::new(96, 96);
    let loader = toy.loader(8).prefetch_batches(count(1)).build().unwrap();
    let batches: Vec<_> = loader.stream(at(0, 0), at(1, 0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.len(), 12);
    let ids: BTreeSet<SampleId> = batches.iter().flat_map(|batch| batch.sample_ids()).copied().collect();
    assert_eq!(ids.len(), 96);
    assert_eq!(loader.stats().buffers_lent, 12);
    drop(batches);
    assert_eq!(loader.stats().buffers_lent, 0);
}

#[test]
fn streams_of_one_loader_do_not_disturb_each_other() {
    let toy = Toy::new(60, 25);
    let loader = toy.loader(12).build().unwrap();
    let expected = read(&loader, at(0, 0), at(1, 0));
    let streams = [(); 3].map(|()| loader.stream(at(0, 0), at(1, 0)).unwrap());
    let [first, second, third] = streams;
    for ((a, b), (c, expected)) in first.zip(second).zip(third.zip(expected)) {
        for batch in [a, b, c] {
            assert_eq!(Contents::of(&batch.unwrap()), expected);
        }
    }
}

#[test]
fn bytes_in_flight_stay_within_the_bound() {
    let toy = Toy::new(200, 50);
    let build =
        |bound| toy.loader(16).segment_samples(10).window_samples(12).max_bytes_in_flight(bound).build();
    let generous = build(64 << 20).unwrap();
    let expected = read(&generous, at(0, 0), at(2, 0));
    let stats = generous.stats();
    assert_eq!(stats.bytes_in_flight, 0);
    assert!(stats.peak_bytes_in_flight > 0 && stats.peak_bytes_in_flight <= 64 << 20);

    let message = build(100_000).unwrap_err().to_string();
    assert!(
        message.starts_with("max_bytes_in_flight is 100000, but the open windows of 16 lanes"),
        "{message}"
    );

    // The least bound that works: found, not computed, because rounding and read-ahead are the loader's business.
    let mut bound = 150 << 10;
    let tight = loop {
        match build(bound).map(|loader| (try_read(&loader, at(0, 0), at(2, 0)), loader)) {
            Ok((Ok(batches), loader)) => {
                assert!(batches == expected, "a tight bound changes no batch");
                break loader;
            }
            Ok((Err(error), _)) | Err(error) => {
                assert!(error.to_string().contains("raise it, or lower window_samples"), "{error}");
                bound += 4 << 10;
            }
        }
        assert!(bound < 64 << 20, "no bound is enough");
    };
    assert!(tight.stats().peak_bytes_in_flight <= bound);
    assert_eq!(tight.stats().bytes_in_flight, 0);
}

#[test]
fn the_order_digest_tells_orders_apart_and_nothing_else() {
    let toy = Toy::new(64, 20);
    let digest = |loader: fastclip_loader::LoaderBuilder| loader.build().unwrap().order_digest();
    let usual = digest(toy.loader(16));
    let world = World::new(1, 2).unwrap();
    assert_eq!(usual, digest(toy.loader(16).world(world).threads(count(5)).transform(Transform::eval(8))));
    let others = [
        digest(toy.loader(8)),
        digest(toy.loader(16).order(Order::Shuffled { seed: 8 })),
        digest(toy.loader(16).order(Order::Sequential)),
        digest(toy.loader(16).tail(Tail::Keep)),
        digest(toy.loader(16).window_samples(9)),
        digest(toy.loader(16).segment_samples(9)),
        digest(Toy::new(65, 20).loader(16)),
    ];
    assert!(!others.contains(&usual));
}

#[test]
fn statistics_count_what_was_done() {
    let toy = Toy::new(64, 20);
    let loader = toy.loader(16).tail(Tail::Keep).build().unwrap();
    read(&loader, at(0, 0), at(1, 0));
    let stats = loader.stats();
    assert_eq!((stats.num_batches, stats.num_samples, stats.num_bad()), (4, 64, 0));
    assert_eq!((stats.decode.count, stats.transform.count, stats.tokenize.count), (64, 64, 64));
    let shard_bytes: u64 = loader.dataset().manifest().shards.iter().map(|shard| shard.num_bytes).sum();
    assert!(
        stats.bytes_read > shard_bytes / 2 && stats.bytes_read <= shard_bytes,
        "each sample is read once"
    );
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let toy = Toy::new(20, 20);
    let refuse = |loader: fastclip_loader::LoaderBuilder| loader.build().unwrap_err().to_string();
    let refused = [
        (refuse(toy.loader(32)), "an epoch holds 20 samples, fewer than one global batch of 32"),
        (
            refuse(toy.loader(10).world(World::new(0, 4).unwrap())),
            "a global batch of 10 cannot be shared equally by 4 ranks",
        ),
        (
            refuse(toy.loader(10).context_length(1)),
            "context_length cannot be 1: it must lie between 2 and 65,536",
        ),
        (
            refuse(toy.loader(10).transform(Transform::eval(0))),
            "transform.size cannot be 0: it must lie between 1 and 4096",
        ),
        (
            refuse(toy.loader(10).transform(Transform::train_with(8, (0.9, 0.5), (1.0, 1.0)))),
            "transform.scale cannot be 0.9 to 0.5: it must rise within (0, 1]",
        ),
        (refuse(toy.loader(10).window_samples(0)), "window_samples cannot be 0: it must be at least 1"),
    ];
    for (message, expected) in refused {
        assert_eq!(message, expected);
    }
    let loader: Loader = toy.loader(10).build().unwrap();
    let refuse = |from, until| loader.stream(from, until).unwrap_err().to_string();
    assert_eq!(refuse(at(1, 3), at(2, 0)), "there is no step 3 in epoch 1: an epoch has 2 steps");
    assert_eq!(
        refuse(at(1, 1), at(1, 0)),
        "the stream cannot end at step 0 of epoch 1, before its start at step 1 of epoch 1"
    );
}
