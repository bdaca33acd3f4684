use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use fastclip_testkit::{S3Server, WebAnswer, WebServer};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{Ran, Scratch, caption, jpeg, json, manifest};

const SETTINGS: [&str; 4] = ["--number-sample-per-shard", "5", "--skip-reencode", "--resize-mode=no"];

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// Three lists of four rows each, and a server that has their images.
fn lists(server: &WebServer, write: impl Fn(&str, Vec<u8>)) {
    for part in 0..3 {
        let mut list = "url,caption\n".to_owned();
        for row in part * 4..part * 4 + 4 {
            server.answer(&format!("/{row}.jpg"), WebAnswer::Body(jpeg(row)));
            list += &format!("{},{}\n", server.url(&format!("/{row}.jpg")), caption(row));
        }
        write(&format!("part-{part}.csv.gz"), gzip(&list));
    }
}

fn put(server: &S3Server, name: &str, bytes: &[u8]) {
    let path = server.file(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[track_caller]
fn download(scratch: &Scratch, store: &S3Server, output: &str, inputs: &[&str]) {
    let mut command = scratch.command(&["download", "--output", output, "--allow-private-hosts", "--input"]);
    command.args(inputs).args(SETTINGS).envs(store.environment());
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("fetched 12 of 12 rows"), "{}", ran.stdout);
}

#[test]
fn lists_are_one_list_wherever_they_lie() {
    let (scratch, web, store) = (Scratch::new(), WebServer::start(), S3Server::start());
    lists(&web, |name, bytes| {
        scratch.write(&format!("lists/{name}"), &bytes);
        put(&store, &format!("lists/{name}"), &bytes);
        web.answer(&format!("/lists/{name}"), WebAnswer::Body(bytes));
    });
    download(&scratch, &store, "folder", &["lists"]);
    let shards = |folder: &str| manifest(&scratch.path(folder)).shards;
    assert_eq!(shards("folder").len(), 3);
    let captions: Vec<_> =
        scratch.samples("folder").into_iter().map(|(_, sample)| sample["txt"].clone()).collect();
    assert_eq!(captions, (0..12).map(|row| caption(row).into_bytes()).collect::<Vec<_>>());

    let bucket = store.location("lists");
    let pattern = format!("{bucket}/part-?.csv.gz");
    let braces = format!("{bucket}/part-{{0..2}}.csv.gz");
    let rest = format!("{bucket}/part-[12].csv.gz");
    for (output, inputs) in [
        ("files", &["lists/part-0.csv.gz", "lists/part-1.csv.gz", "lists/part-2.csv.gz"][..]),
        ("pattern", &["lists/*.gz"]),
        ("bucket", &[&bucket]),
        ("bucket-pattern", &[&pattern]),
        ("bucket-braces", &[&braces]),
        ("mixed", &["lists/part-0.csv.gz", &rest]),
    ] {
        download(&scratch, &store, output, inputs);
        assert_eq!(shards(output), shards("folder"), "{output}");
    }
    // The list is the same, so that a run goes on when it was moved.
    let again = scratch.ingest_well(
        &[&["download", "--output", "bucket", "--input", "lists", "--allow-private-hosts"][..], &SETTINGS]
            .concat(),
    );
    assert!(again.stdout.starts_with("already complete: "), "{}", again.stdout);
}

#[test]
fn what_is_not_there_is_said_in_the_words_of_where_it_is_not() {
    let (scratch, store) = (Scratch::new(), S3Server::start());
    put(&store, "lists/a.csv", b"url\nhttp://a/b\n");
    let refused = |input: &str| {
        let mut command = scratch.command(&["download", "--output", "out", "--input", input]);
        let ran = Ran::from(command.envs(store.environment()).output().unwrap());
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        ran.stderr
    };
    let there = store.location("lists");
    assert!(refused(&format!("{there}/b.csv")).contains(&format!("there is no input `{there}/b.csv`")));
    assert!(refused(&format!("{there}/*.tsv")).contains(&format!("`{there}/*.tsv` matches no file")));
    assert!(refused(&format!("{there}/a.csv?sig=secret")).contains("matches no file"));
    let error = refused("https://user:secret@host/a.csv?sig=secret");
    assert!(error.contains("was given with a query") && !error.contains("secret"), "{error}");
    assert!(refused("nowhere.csv").contains("there is no input `nowhere.csv`"));
}

/// A parquet file as the library `datasets` writes it, its rows in groups of three.
fn write_images(path: &Path, rows: std::ops::Range<usize>, is_plain: bool) {
    let images: Vec<Vec<u8>> = rows.clone().map(jpeg).collect();
    let bytes =
        Arc::new(BinaryArray::from_iter(images.iter().map(|image| Some(image.as_slice())))) as ArrayRef;
    let paths = rows.clone().map(|row| (row != 1).then(|| format!("{row}.jpg"))).collect::<StringArray>();
    let image = match is_plain {
        true => bytes,
        false => Arc::new(StructArray::from(vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
            (Arc::new(Field::new("path", DataType::Utf8, true)), Arc::new(paths) as ArrayRef),
        ])) as ArrayRef,
    };
    let text = rows.clone().map(|row| Some(caption(row))).collect::<StringArray>();
    let label = rows.map(|row| Some(row as i64 % 2)).collect::<Int64Array>();
    let columns: [(&str, ArrayRef); 3] =
        [("image", image), ("text", Arc::new(text)), ("label", Arc::new(label))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn images_in_parquet_become_samples() {
    let (scratch, store) = (Scratch::new(), S3Server::start());
    for (name, is_plain) in [("struct", false), ("plain", true)] {
        for (part, rows) in [(0, 0..7), (1, 7..12)] {
            let file = format!("{name}/data/train-{part:05}-of-00002.parquet");
            write_images(&scratch.path(&file), rows, is_plain);
            put(&store, &file, &std::fs::read(scratch.path(&file)).unwrap());
        }
    }
    scratch.write("struct/README.md", "not a table");
    let pack = |input: &str, output: &str| {
        let settings = ["--caption-col", "text", "--class-col", "label", "--samples-per-shard", "5"];
        let mut command = scratch.command(&["pack", "--input", input, "--output", output]);
        let ran = Ran::from(command.args(settings).envs(store.environment()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.starts_with("packed 12 of 12 rows"), "{}", ran.stdout);
    };
    for name in ["struct", "plain"] {
        let remote = format!("{name}-remote");
        pack(name, &format!("{name}-out"));
        pack(&store.location(name), &remote);
        let samples = scratch.samples(&format!("{name}-out"));
        assert_eq!(samples, scratch.samples(&remote));
        for (row, (_, members)) in samples.iter().enumerate() {
            assert_eq!(members["jpg"], jpeg(row), "images keep their bytes");
            assert_eq!(members["txt"], caption(row).as_bytes());
            assert_eq!(members["cls"], (row % 2).to_string().as_bytes());
            let path = (name == "struct" && row != 1).then(|| format!("{row}.jpg"));
            assert_eq!(json(&members["json"]).get("image").and_then(|path| path.as_str()), path.as_deref());
        }
    }
}

#[test]
fn images_of_a_table_in_a_bucket_lie_beside_it() {
    let (scratch, store) = (Scratch::new(), S3Server::start());
    let lines = (0..6).map(|row| format!("img/{row}.jpg,{}\n", caption(row))).collect::<String>();
    put(&store, "pairs/table.csv", format!("image,caption\n{lines}").as_bytes());
    for row in 0..5 {
        put(&store, &format!("pairs/img/{row}.jpg"), &jpeg(row));
    }
    let table = store.location("pairs/table.csv");
    let mut command =
        scratch.command(&["pack", "--input", &table, "--output", "out", "--max-bad-fraction", "0.5"]);
    let ran = Ran::from(command.envs(store.environment()).output().unwrap());
    assert!(ran.stdout.starts_with("packed 5 of 6 rows"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("row 5, `img/5.jpg`: there is no such file"), "{}", ran.stdout);
    assert_eq!(scratch.samples("out")[3].1["jpg"], jpeg(3));
}
