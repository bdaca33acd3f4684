//! Which caption of a sample is used.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::BTreeMap;

use common::{Members, Toy, at, count, jpeg, read, try_read};
use fastclip_loader::{BadReason, CaptionSource, Captions, LoadError, Tokenizer};

fn source(text: &str) -> CaptionSource {
    text.parse().unwrap()
}

/// Samples with a caption of their own, two in a list, one in a field, and one that some lack.
fn several(number: u32) -> Members {
    let json = format!(
        r#"{{"similarity": NaN, "short": "short {number}", "all": ["one", null, "two"], "none": null, "size": 3}}"#
    );
    let mut members = vec![
        ("jpg", jpeg(number, (20, 20))),
        ("txt", format!("plain {number}").into_bytes()),
        ("json", json.into_bytes()),
    ];
    if number.is_multiple_of(2) {
        members.push(("alt", b"alternative".to_vec()));
    }
    members
}

/// How often each caption is used in some epochs, without its number, by the tokens of its first word.
fn counted(toy: &Toy, captions: Captions, num_epochs: u64) -> BTreeMap<&'static str, usize> {
    let tokenizer = Tokenizer::clip();
    let words = ["plain", "short", "one", "two", "alternative"];
    let tokens = words.map(|word| tokenizer.encode(word, 3)[1]);
    let loader = toy.loader(16).captions(captions).build().unwrap();
    let mut counts = BTreeMap::new();
    for batch in read(&loader, at(0, 0), at(num_epochs, 0)) {
        for row in batch.tokens.chunks_exact(12) {
            let word = tokens.iter().position(|token| row[1] == *token).unwrap();
            *counts.entry(words[word]).or_default() += 1;
        }
    }
    counts
}

#[test]
fn the_first_source_that_has_a_caption_gives_it() {
    let toy = Toy::with(64, 32, several);
    let first = |sources: &[&str]| {
        counted(&toy, Captions::First(sources.iter().map(|text| source(text)).collect()), 1)
    };
    assert_eq!(first(&["json:none", "json:missing", "json:short", "txt"]), BTreeMap::from([("short", 64)]));
    assert_eq!(first(&["json:all"]), BTreeMap::from([("one", 64)]));
    assert_eq!(first(&["alt", "txt"]), BTreeMap::from([("alternative", 32), ("plain", 32)]));
}

#[test]
fn captions_are_drawn_by_weight_and_the_same_on_any_number_of_threads() {
    let toy = Toy::with(64, 32, several);
    let random = Captions::Random(vec![source("txt"), source("json:all")]);
    let counts = counted(&toy, random.clone(), 12);
    for word in ["plain", "one", "two"] {
        assert!((196..316).contains(&counts[word]), "a third of 768 each: {counts:?}");
    }
    let weighted = Captions::Weighted(vec![(source("alt"), 3.0), (source("json:all"), 1.0)]);
    let counts = counted(&toy, weighted, 12);
    assert!((248..328).contains(&counts["alternative"]), "three quarters of half of 768: {counts:?}");
    let tokens = |threads| {
        let loader = toy.loader(16).captions(random.clone()).threads(count(threads)).build().unwrap();
        read(&loader, at(0, 0), at(2, 0)).into_iter().flat_map(|batch| batch.tokens).collect::<Vec<_>>()
    };
    assert_eq!(tokens(1), tokens(3));
}

#[test]
fn a_field_that_is_no_caption_makes_a_bad_sample_and_a_setting_without_sources_is_refused() {
    let toy = Toy::with(32, 32, several);
    let loader = toy.loader(16).captions(Captions::First(vec![source("json:size")])).build().unwrap();
    let Err(LoadError::NoGoodSample { first, .. }) = try_read(&loader, at(0, 0), at(1, 0)) else {
        panic!("no sample has a caption there");
    };
    assert_eq!(
        (first.reason, &first.detail[..]),
        (BadReason::MalformedCaption, "`json:size`: 3 is not text")
    );
    for captions in [Captions::Random(Vec::new()), Captions::Weighted(vec![(source("txt"), 0.0)])] {
        let error = toy.loader(16).captions(captions).build().unwrap_err().to_string();
        assert!(error.starts_with("captions cannot be "), "{error}");
    }
}
