use std::fs;

use crate::support::{Scratch, caption, jpeg, json};

/// 20 samples in shards of 5.
fn shards(scratch: &Scratch) {
    scratch.pairs(20);
    scratch.ingest_well(&[
        "pack",
        "--input",
        "pairs/table.jsonl",
        "--output",
        "shards",
        "--samples-per-shard",
        "5",
    ]);
}

fn stats(scratch: &Scratch, arguments: &[&str]) -> serde_json::Value {
    scratch.ingest_well(&[&["stats", "shards", "--json", "stats.json"], arguments].concat());
    json(&fs::read(scratch.path("stats.json")).unwrap())
}

#[test]
fn stats_count_what_was_packed() {
    let scratch = Scratch::new();
    shards(&scratch);
    let found = stats(&scratch, &[]);
    let samples = &found["samples"];
    assert_eq!((&found["num_shards"], &samples["num_samples"]), (&4.into(), &20.into()));
    let widths: u64 = (0..20).map(|row| 24 + row % 8).sum();
    assert_eq!(samples["width"]["sum"], widths);
    assert_eq!((&samples["width"]["min"], &samples["width"]["max"]), (&24.into(), &31.into()));
    assert_eq!((&samples["height"]["min"], &samples["height"]["max"]), (&16.into(), &16.into()));
    assert_eq!(
        (&samples["aspect_percent"]["min"], &samples["aspect_percent"]["max"]),
        (&150.into(), &194.into())
    );
    let image_bytes: usize = (0..20).map(|row| jpeg(row).len()).sum();
    assert_eq!(samples["image_bytes"]["sum"], image_bytes);
    let caption_chars: usize = (0..20).map(|row| caption(row).len()).sum();
    assert_eq!(samples["caption_chars"]["sum"], caption_chars);
    assert_eq!(found, stats(&scratch, &["--threads", "3"]));
    let printed = scratch.ingest_well(&["stats", "shards"]).stdout;
    assert!(printed.contains("in 4 of 4 shards of `shards`"), "{printed}");
    assert!(printed.contains("height in pixels: least 16, mean 16.0, most 16"), "{printed}");
}

#[test]
fn stats_of_some_shards_name_them() {
    let scratch = Scratch::new();
    shards(&scratch);
    let found = stats(&scratch, &["--sample", "2", "--seed", "7"]);
    assert_eq!(found["sampled_shards"].as_array().unwrap().len(), 2);
    assert_eq!(found["samples"]["num_samples"], 10);
    assert_eq!(found, stats(&scratch, &["--sample", "2", "--seed", "7"]));
}

#[test]
fn stats_count_samples_that_lack_something() {
    let scratch = Scratch::new();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in
        [("0.jpg", &b"no image"[..]), ("0.txt", b" \n"), ("1.jpg", &jpeg(1)), ("2.txt", "größe".as_bytes())]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, data).unwrap();
    }
    scratch.write("shards/0.tar", builder.into_inner().unwrap());
    scratch.ingest_well(&["index", "shards"]);
    let samples = &stats(&scratch, &[])["samples"];
    for (count, expected) in [
        ("num_samples", 3),
        ("num_unreadable_images", 1),
        ("num_without_image", 1),
        ("num_without_caption", 1),
        ("num_empty_captions", 1),
        ("num_damaged", 0),
    ] {
        assert_eq!(samples[count], expected, "{count}");
    }
    assert_eq!(samples["caption_chars"]["max"], 5);
}
