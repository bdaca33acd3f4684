use std::io::Write;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Scratch, caption, jpeg, json, manifest};

/// Packs `input` and checks that each of the seven pairs came through, in order.
fn comes_through(scratch: &Scratch, input: &str) {
    let ran = scratch.ingest_well(&["pack", "--input", input, "--output", "out", "--samples-per-shard", "3"]);
    assert!(ran.stdout.starts_with("packed 7 of 7 rows in 3 shards, "), "{}", ran.stdout);
    let samples = scratch.samples("out");
    assert_eq!(samples.len(), 7);
    for (row, (key, members)) in samples.iter().enumerate() {
        assert_eq!(key, &format!("{:05}{:04}", row / 3, row % 3));
        assert_eq!(members["jpg"], jpeg(row), "images keep their bytes");
        assert_eq!(members["txt"], caption(row).as_bytes());
        assert_eq!(members["cls"], (row % 2).to_string().as_bytes());
        let columns = json(&members["json"]);
        let named = [("key", json!(key)), ("caption", json!(caption(row))), ("width", json!(24 + row % 8))];
        for (name, expected) in named.into_iter().chain([("height", json!(16))]) {
            assert_eq!(columns[name], expected, "{columns}");
        }
    }
    let sizes = json(&scratch.files("out")["sizes.json"]);
    assert_eq!(sizes, json!({"00000.tar": 3, "00001.tar": 3, "00002.tar": 1}));
    scratch.ingest_well(&["verify", "out"]);
    assert_eq!(manifest(&scratch.path("out")).created_by, "ingest 0.1.0");
}

fn images(scratch: &Scratch) {
    for row in 0..7 {
        scratch.write(&format!("in/a/{row}.jpg"), jpeg(row));
    }
}

fn table_with(scratch: &Scratch, name: &str, header: &str, line: impl Fn(usize) -> String) {
    images(scratch);
    let lines: String = (0..7).map(|row| line(row) + "\n").collect();
    scratch.write(&format!("in/{name}"), header.to_owned() + &lines);
    comes_through(scratch, &format!("in/{name}"));
}

#[test]
fn a_csv_comes_through_with_its_other_columns() {
    let scratch = Scratch::new();
    let line = |row: usize| format!("{},a/{row}.jpg,\"{}\",\"x, {row}\"", row % 2, caption(row));
    table_with(&scratch, "table.csv", "cls,image,caption,note\n", line);
    assert_eq!(json(&scratch.samples("out")[4].1["json"])["note"], "x, 4");
}

#[test]
fn a_tsv_comes_through() {
    let line = |row: usize| format!("a/{row}.jpg\t{}\t{}", caption(row), row % 2);
    table_with(&Scratch::new(), "table.tsv", "image\tcaption\tcls\n", line);
}

#[test]
fn json_lines_come_through_with_their_types() {
    let scratch = Scratch::new();
    let line = |row: usize| {
        json!({"image": format!("a/{row}.jpg"), "caption": caption(row), "cls": row % 2, "tags": [row, "x"], "width": 1})
            .to_string()
    };
    table_with(&scratch, "table.jsonl", "", line);
    assert_eq!(json(&scratch.samples("out")[4].1["json"])["tags"], json!([4, "x"]));
}

#[test]
fn a_json_array_comes_through_with_its_types() {
    let scratch = Scratch::new();
    images(&scratch);
    let row = |row: usize| json!({"image": format!("a/{row}.jpg"), "caption": caption(row), "cls": row % 2, "tags": [row]});
    scratch.write("in/table.json", Value::from_iter((0..7).map(row)).to_string());
    comes_through(&scratch, "in/table.json");
    assert_eq!(json(&scratch.samples("out")[4].1["json"])["tags"], json!([4]));
}

#[test]
fn packed_tables_come_through_and_cut_ones_are_refused() {
    let table: String = (0..7).map(|row| format!("a/{row}.jpg,{},{}\n", caption(row), row % 2)).collect();
    let table = format!("image,caption,cls\n{table}");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(table.as_bytes()).unwrap();
    for (name, packed) in [
        ("in/table.csv.gz", gzip.finish().unwrap()),
        ("in/table.CSV.zst", zstd::encode_all(table.as_bytes(), 1).unwrap()),
    ] {
        let scratch = Scratch::new();
        images(&scratch);
        scratch.write(name, &packed);
        comes_through(&scratch, name);
        scratch.write(name, &packed[..packed.len() / 2]);
        let error = scratch.ingest_refused(&["pack", "--input", name, "--output", "other"]);
        assert!(error.contains(&format!("could not read `{name}`")), "{error}");
    }
}

#[test]
fn a_parquet_table_comes_through_with_its_types() {
    let scratch = Scratch::new();
    images(&scratch);
    let text = |value: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new((0..7).map(|row| Some(value(row))).collect::<StringArray>())
    };
    let similarity: ArrayRef =
        Arc::new((0..7).map(|row| (row != 3).then_some(row as f32 / 4.0)).collect::<Float32Array>());
    let batch = RecordBatch::try_from_iter([
        ("image", text(&|row| format!("a/{row}.jpg"))),
        ("caption", text(&caption)),
        ("cls", Arc::new((0..7).map(|row| Some(row % 2)).collect::<Int64Array>()) as ArrayRef),
        ("similarity", similarity),
    ])
    .unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    scratch.write("in/table.parquet", writer.into_inner().unwrap());
    comes_through(&scratch, "in/table.parquet");
    let samples = scratch.samples("out");
    assert_eq!(json(&samples[2].1["json"])["similarity"], 0.5);
    assert_eq!(json(&samples[3].1["json"])["similarity"], json!(null));
}

#[test]
fn a_folder_comes_through_with_what_lies_beside_its_images() {
    let scratch = Scratch::new();
    images(&scratch);
    for row in 0..7 {
        scratch.write(&format!("in/a/{row}.txt"), format!("\u{feff}{}\n", caption(row)));
        scratch.write(&format!("in/a/{row}.cls"), format!("{}\n", row % 2));
        scratch.write(&format!("in/a/{row}.json"), format!("{{\"key\": \"other\", \"licence\": {row}}}"));
    }
    scratch.write("in/.hidden/x.jpg", b"not looked at");
    scratch.write("in/classnames.txt", "cat\ndog\n");
    scratch.write("in/zeroshot_classification_templates.txt", "a photo of a {c}\n");
    scratch.write("licence.md", "free");
    comes_through(&scratch, "in");
    assert_eq!(json(&scratch.samples("out")[4].1["json"])["licence"], 4);
    assert_eq!(scratch.files("out")["classnames.txt"], b"cat\ndog\n");

    let again = ["pack", "--input", "in", "--output", "other", "--side-file", "licence.md"];
    scratch.ingest_well(&again);
    let files = scratch.files("other");
    assert_eq!(files["licence.md"], b"free");
    assert_eq!(files["zeroshot_classification_templates.txt"], b"a photo of a {c}\n");
}

#[test]
fn a_split_takes_its_rows_only() {
    let scratch = Scratch::new();
    images(&scratch);
    let split = |row: usize| if [0, 3, 6].contains(&row) { "val" } else { "train" };
    let lines: String = (0..7).map(|row| format!("a/{row}.jpg,{},{}\n", caption(row), split(row))).collect();
    scratch.write("in/table.csv", format!("file,title,part\n{lines}"));
    let columns = ["--image-col", "file", "--caption-col", "title", "--split", "val", "--split-col", "part"];
    let ran = scratch
        .ingest_well(&[&["pack", "--input", "in/table.csv", "--output", "out"][..], &columns].concat());
    assert!(ran.stdout.contains("packed 3 of 7 rows"), "{}", ran.stdout);
    assert!(ran.stdout.contains("left out 4 rows of other splits"), "{}", ran.stdout);
    let captions: Vec<_> =
        scratch.samples("out").into_iter().map(|(_, members)| members["txt"].clone()).collect();
    assert_eq!(captions, [0, 3, 6].map(|row| caption(row).into_bytes()));

    let error = scratch.ingest_refused(&["pack", "--input", "in/a", "--split", "val", "--output", "x"]);
    assert!(error.contains("`in/a` is a folder, which has no columns"), "{error}");
}

#[test]
fn threads_do_not_show_in_the_dataset() {
    let scratch = Scratch::new();
    scratch.pairs(60);
    for threads in ["1", "2", "7"] {
        let input = ["pack", "--input", "pairs/table.jsonl", "--samples-per-shard", "7"];
        scratch.ingest_well(&[&input[..], &["--output", threads, "--threads", threads]].concat());
    }
    assert_eq!(scratch.files("1"), scratch.files("2"));
    assert_eq!(scratch.files("1"), scratch.files("7"));
    assert_eq!(scratch.files("1").len(), 9 * 2 + 2);
}
