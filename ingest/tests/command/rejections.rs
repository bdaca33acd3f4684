use std::fs;

use serde_json::{Value, json};

use crate::support::{Scratch, caption, jpeg, manifest};

/// Stem, image and caption.
type BadPair<'a> = (&'a str, &'a [u8], Option<&'a [u8]>);

/// A folder of 40 good pairs and one of each kind of bad one.
fn mixed(scratch: &Scratch) {
    for row in 0..40 {
        scratch.write(&format!("in/good{row:02}.jpg"), jpeg(row));
        scratch.write(&format!("in/good{row:02}.txt"), caption(row));
    }
    let whole = jpeg(0);
    let bad: [BadPair<'_>; 8] = [
        ("cut", &whole[..whole.len() - 40], Some(b"a caption")),
        ("empty", b"", Some(b"a caption")),
        ("html", b"<html></html>", Some(b"a caption")),
        ("latin1", &whole, Some(b"caf\xe9")),
        ("silent", &whole, None),
        ("blank", &whole, Some(b" \n")),
        ("bomb", &bomb(), Some(b"a caption")),
        ("classless", &whole, Some(b"a caption")),
    ];
    for (stem, image, caption) in bad {
        scratch.write(&format!("in/{stem}.jpg"), image);
        if let Some(caption) = caption {
            scratch.write(&format!("in/{stem}.txt"), caption);
        }
    }
    scratch.write("in/classless.cls", "cat");
    std::os::unix::fs::symlink("nowhere.jpg", scratch.path("in/gone.jpg")).unwrap();
    scratch.write("in/gone.txt", "a caption");
}

/// A header that claims 30,000 by 30,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixel = image::GrayImage::new(1, 1);
    pixel.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Bmp).unwrap();
    bytes[18..22].copy_from_slice(&30_000_u32.to_le_bytes());
    bytes[22..26].copy_from_slice(&30_000_u32.to_le_bytes());
    bytes
}

const EXPECTED: [(&str, &str, &str); 9] = [
    ("blank.jpg", "caption_missing", "the caption is empty"),
    ("bomb.jpg", "too_large", "30000×30000 pixels, the limit is 89478485 in all"),
    ("classless.jpg", "invalid_class", "the class `cat` is no whole number"),
    ("cut.jpg", "corrupt_image", "Premature end of JPEG file"),
    ("empty.jpg", "zero_bytes", "the file is empty"),
    ("gone.jpg", "missing_file", "there is no such file"),
    ("html.jpg", "not_an_image", "it starts with `<html></html>`"),
    ("latin1.jpg", "caption_not_utf8", "`latin1.txt` is not UTF-8 at byte 3"),
    ("silent.jpg", "caption_missing", "there is no `silent.txt` beside the image"),
];

fn rejected(scratch: &Scratch) -> Vec<Value> {
    let text = fs::read_to_string(scratch.path("out/rejected.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_kind_of_bad_row_is_counted_listed_and_left_out() {
    let scratch = Scratch::new();
    mixed(&scratch);
    let arguments = ["pack", "--input", "in", "--output", "out", "--max-bad-fraction", "0.5"];
    let ran = scratch.ingest_well(&[&arguments[..], &["--samples-per-shard", "16"]].concat());
    assert!(ran.stdout.contains("packed 40 of 49 rows in 3 shards"), "{}", ran.stdout);
    assert!(ran.stdout.contains("rejected 9 rows (18.37 %), listed in `rejected.jsonl`"), "{}", ran.stdout);
    let missing = "  caption missing            2  row 0, `blank.jpg`: the caption is empty\n";
    assert!(ran.stdout.contains(missing), "{}", ran.stdout);

    let rejected = rejected(&scratch);
    let found: Vec<_> = rejected.iter().map(|row| (&row["image"], &row["reason"], &row["message"])).collect();
    for ((image, reason, message), expected) in found.iter().zip(EXPECTED) {
        assert_eq!((image.as_str(), reason.as_str()), (Some(expected.0), Some(expected.1)), "{message}");
        assert!(message.as_str().unwrap().contains(expected.2), "{image}: {message}");
    }
    assert_eq!(rejected.len(), EXPECTED.len());

    let samples = scratch.samples("out");
    let stems: Vec<_> = samples.iter().map(|(_, members)| members["txt"].clone()).collect();
    assert_eq!(stems, (0..40).map(|row| caption(row).into_bytes()).collect::<Vec<_>>());
    let source = manifest(&scratch.path("out")).source;
    assert_eq!((&source["num_rows"], &source["num_rejected"]), (&json!(49), &json!(9)));
}

#[test]
fn above_the_budget_nothing_is_committed_and_the_counts_are_told() {
    let scratch = Scratch::new();
    mixed(&scratch);
    let error = scratch.ingest_refused(&["pack", "--input", "in", "--output", "out"]);
    let first = "error: 3 of 49 rows were rejected, more than max_bad_fraction = 0.05 allows: 1 too large, 1 caption missing, 1 invalid class\n";
    assert!(error.starts_with(first), "{error}");
    assert!(error.contains("\nhint: `rejected.jsonl` in the output lists every rejected row"), "{error}");
    assert!(!scratch.path("out/manifest.json").exists());
    assert_eq!(rejected(&scratch).len(), 3);

    // The budget is no property of the dataset, so more of it continues the run.
    let arguments = ["pack", "--input", "in", "--output", "out", "--resume", "--max-bad-fraction", "0.2"];
    scratch.ingest_well(&arguments);
    assert_eq!(rejected(&scratch).len(), 9);
}

#[test]
fn bad_rows_of_tables_are_counted_too() {
    let scratch = Scratch::new();
    for row in 0..3 {
        scratch.write(&format!("in/{row}.jpg"), jpeg(row));
    }
    let table = b"image,caption\n0.jpg,one\n1.jpg\n2.jpg,caf\xe9\n,four\nno.jpg,five\n";
    scratch.write("in/table.csv", table);
    let lines = b"{\"image\": \"0.jpg\", \"caption\": \"one\"}\nnot json\n\n{\"image\": \"2.jpg\", \"caption\": \"caf\xe9\"}\n{\"image\": \"1.jpg\", \"caption\": null}\n";
    scratch.write("in/table.jsonl", lines);
    let pack = |table: &str| {
        let arguments =
            ["pack", "--overwrite", "--input", table, "--output", "out", "--max-bad-fraction", "1"];
        scratch.ingest_well(&arguments);
        let reasons = rejected(&scratch).into_iter();
        reasons
            .map(|row| (row["row"].as_u64().unwrap(), row["reason"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let expect = |expected: &[(u64, &str)]| {
        expected.iter().map(|(row, reason)| (*row, (*reason).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(
        pack("in/table.csv"),
        expect(&[(1, "malformed_row"), (2, "caption_not_utf8"), (3, "missing_file"), (4, "missing_file")])
    );
    assert_eq!(
        pack("in/table.jsonl"),
        expect(&[(1, "malformed_row"), (2, "caption_not_utf8"), (3, "caption_missing")])
    );
}

#[test]
fn an_input_that_cannot_be_packed_at_all_is_refused_by_name() {
    let scratch = Scratch::new();
    scratch.write("in/table.csv", "path,text\na.jpg,x\n");
    scratch.write("in/empty.csv", "image,caption\n");
    scratch.write("in/bad.parquet", "no parquet");
    scratch.write("in/none.csv", "image,caption\nno.jpg,x\n");
    scratch.write("in/x.doc", "x");
    fs::create_dir(scratch.path("bare")).unwrap();
    let cases = [
        (
            "in/table.csv",
            "`in/table.csv` has no column `image`, it has `path`, `text`\nhint: name the columns with",
        ),
        ("in/empty.csv", "`in/empty.csv` has no rows"),
        ("in/bad.parquet", "`in/bad.parquet` is no readable parquet file"),
        ("in/none.csv", "none of 1 rows became a sample: 1 missing file"),
        ("in/x.doc", "`in/x.doc` is neither a folder nor a table"),
        ("bare", "`bare` has no rows"),
        ("nowhere", "there is no input `nowhere`"),
    ];
    for (input, expected) in cases {
        let arguments =
            ["pack", "--input", input, "--output", "out", "--max-bad-fraction", "1", "--overwrite"];
        let error = scratch.ingest_refused(&arguments);
        assert!(error.contains(expected), "{error}");
        assert!(!scratch.path("out/manifest.json").exists());
    }
}
