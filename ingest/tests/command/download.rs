use std::collections::BTreeMap;
use std::fs::File;

use arrow_array::cast::AsArray;
use fastclip_testkit::{WebAnswer, WebServer};
use md5::{Digest, Md5};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::{Ran, Scratch, caption, jpeg, json, kill, manifest};

/// Rows that fail in the lists of these tests: one in so many.
const FAILING: usize = 7;

const SETTINGS: [&str; 7] = [
    "--number-sample-per-shard",
    "8",
    "--resize-mode",
    "keep_ratio",
    "--image-size",
    "20",
    "--allow-private-hosts",
];

/// Longer than any answer takes, however busy the machine is.
const PATIENCE: [&str; 4] = ["--timeout", "60", "--total-timeout", "60"];

/// For runs that only go on when they have asked a silent host again. Other answers may be late: they are asked for again, too.
pub(crate) const IMPATIENCE: [&str; 4] = ["--timeout", "1", "--retries", "50"];

pub(crate) fn download<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    // An option that is given twice is refused.
    let patience = if more.contains(&"--timeout") { &[][..] } else { &PATIENCE };
    [&["download", "--input", "list.csv", "--output", output][..], &SETTINGS, patience, more].concat()
}

/// A list of rows that a server has images for, less every seventh.
pub(crate) fn list(scratch: &Scratch, server: &WebServer, num_rows: usize) {
    let mut list = "url,caption,id\n".to_owned();
    for row in 0..num_rows {
        let path = format!("/{row}.jpg");
        if row % FAILING != FAILING - 1 {
            server.answer(&path, WebAnswer::Body(jpeg(row)));
        }
        list += &format!("{},{},{row}\n", server.url(&path), caption(row));
    }
    scratch.write("list.csv", list);
}

/// Texts of the columns of a table, row by row.
pub(crate) fn table(scratch: &Scratch, name: &str) -> Vec<BTreeMap<String, String>> {
    let file = File::open(scratch.path(name)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        for row in 0..batch.num_rows() {
            let fields = batch
                .schema()
                .fields()
                .iter()
                .zip(batch.columns())
                .filter_map(|(field, column)| {
                    let text = column.as_string_opt::<i32>()?;
                    arrow_array::Array::is_valid(text, row)
                        .then(|| (field.name().clone(), text.value(row).to_owned()))
                })
                .collect();
            rows.push(fields);
        }
    }
    rows
}

#[test]
fn a_list_becomes_shards_with_a_table_of_every_row() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 20);
    server.answer("/3.jpg", WebAnswer::Body(b"<html>not here</html>".to_vec()));
    let ran = scratch.ingest_well(&download("out", &["--save-additional-columns", "id"]));
    let expected = "fetched 17 of 20 rows (85.0 %) in 3 shards, ";
    assert!(ran.stdout.starts_with(expected), "{}", ran.stdout);
    let summary = "
  outcome                        rows     share
  success                          17    85.0 %
  http_404                          2    10.0 %
  html_page                         1     5.0 %

2 failed to download, 1 to be resized, 0 filtered; the tables beside the shards have every row
20 rows in ";
    assert!(ran.stdout.contains(summary), "{}", ran.stdout);
    scratch.ingest_well(&["verify", "out"]);

    let samples = scratch.samples("out");
    let keys: Vec<&str> = samples.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys[..7], ["000000", "000001", "000002", "000004", "000005", "000007", "000010"]);
    let (_, members) = &samples[3];
    assert_eq!(members.keys().collect::<Vec<_>>(), ["jpg", "json", "txt"]);
    assert_eq!(members["txt"], caption(4).as_bytes());
    let facts = json(&members["json"]);
    assert_eq!(facts["url"], server.url("/4.jpg"));
    assert_eq!(
        (&facts["id"], &facts["status"], &facts["key"]),
        (&"4".into(), &"success".into(), &"000004".into())
    );
    // 28 by 16 pixels, of which the shorter side becomes 20.
    assert_eq!((&facts["width"], &facts["height"]), (&35.into(), &20.into()));
    assert_eq!((&facts["original_width"], &facts["original_height"]), (&28.into(), &16.into()));

    let rows = table(&scratch, "out/00000.parquet");
    assert_eq!(rows.len(), 8);
    let statuses: Vec<&str> = rows.iter().map(|row| row["status"].as_str()).collect();
    let expected = [
        "success",
        "success",
        "success",
        "failed_to_resize",
        "success",
        "success",
        "failed_to_download",
        "success",
    ];
    assert_eq!(statuses, expected);
    assert_eq!((rows[6]["error_message"].as_str(), rows[6]["id"].as_str()), ("http_404: 404 Not Found", "6"));
    assert_eq!(rows[4]["sha256"], facts["sha256"]);
    let stats = json(&scratch.files("out")["00000_stats.json"]);
    assert_eq!((&stats["count"], &stats["successes"]), (&8.into(), &6.into()));
    assert_eq!(stats["status_dict"], serde_json::json!({"html_page": 1, "http_404": 1, "success": 6}));
}

#[test]
fn complete_shards_are_not_fetched_again() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 24);
    // The last row does not come, so that the run has to be ended while the shards before it are complete.
    server.answer("/23.jpg", WebAnswer::Silence);
    let mut child = scratch.command(&download("out", &["--retries", "50"])).spawn().unwrap();
    let record = scratch.path("out/download-state/00001.json");
    while !record.exists() || server.num_requests("/16.jpg") == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it waits for the last row");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.answer("/23.jpg", WebAnswer::Body(jpeg(23)));
    scratch.ingest_well(&download("out", &["--retries", "50"]));
    assert_eq!((server.num_requests("/0.jpg"), server.num_requests("/15.jpg")), (1, 1));
    assert_eq!(server.num_requests("/16.jpg"), 2);
}

#[test]
fn another_list_or_another_size_is_refused_by_name() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 4);
    scratch.ingest_well(&download("out", &[]));
    let error = scratch.ingest_refused(&download("out", &["--encode-quality", "80"]));
    assert_eq!(
        error,
        "error: `out` was made in another way: encode-quality is 95 there and 80 here\nhint: use the same input and \
         settings, or replace it with --overwrite\n"
    );
    list(&scratch, &server, 5);
    let error = scratch.ingest_refused(&download("out", &[]));
    assert!(error.starts_with("error: `out` was made in another way: the input has changed\n"), "{error}");
    scratch.ingest_well(&download("out", &["--overwrite"]));
}

#[test]
fn a_list_is_not_overwritten_by_the_dataset() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 8);
    scratch.ingest_well(&download("lists", &[]));
    let before = scratch.files("lists");
    for location in ["lists/00000.parquet", "lists/*.parquet"] {
        for more in [&[][..], &["--overwrite"]] {
            let command = [&["download", "--input", location, "--output", "lists"][..], &SETTINGS, more];
            let error = scratch.ingest_refused(&command.concat());
            assert_eq!(
                error,
                "error: `lists` already holds `00000.parquet`, which is input\nhint: choose another folder: files of the \
                 dataset would take the place of the input\n"
            );
        }
    }
    let pack = ["pack", "--input", "lists/00000.parquet", "--output", "lists", "--image-col", "url"];
    let error = scratch.ingest_refused(&pack);
    assert!(error.contains("already holds `00000.parquet`, which is input"), "{error}");
    assert_eq!(scratch.files("lists"), before);
    // A list that nothing takes the place of may lie there.
    std::fs::create_dir(scratch.path("out")).unwrap();
    std::fs::rename(scratch.path("list.csv"), scratch.path("out/list.csv")).unwrap();
    let command = [&["download", "--input", "out/list.csv", "--output", "out"][..], &SETTINGS];
    scratch.ingest_well(&command.concat());
    assert!(scratch.path("out/list.csv").exists());
}

#[test]
fn a_list_of_which_nothing_can_be_had_says_why() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    scratch.write("list.csv", format!("url\n{}\nftp://host/a\n\n127.0.0.1\n", server.url("/gone")));
    let error = scratch.ingest_refused(&download("out", &[]));
    assert!(error.starts_with("error: none of 3 rows became a sample: "), "{error}");
    for reason in ["1 http_404", "1 scheme_refused", "1 invalid_url"] {
        assert!(error.contains(reason), "{error}");
    }
    assert!(!scratch.path("out/manifest.json").exists());
    let private = download("private", &[]);
    let private: Vec<&str> =
        private.into_iter().filter(|argument| *argument != "--allow-private-hosts").collect();
    list(&scratch, &server, 3);
    let error = scratch.ingest_refused(&private);
    assert!(error.contains("3 private_address"), "{error}");
    assert_eq!(server.num_requests("/0.jpg"), 0);
}

#[test]
fn a_request_to_stop_ends_after_the_open_shard() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 4000);
    let mut command = scratch.command(&download("out", &["--threads", "1", "--thread-count", "2"]));
    let mut child =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    while !scratch.path("out/download-state/00001.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it is not done so soon");
        std::thread::yield_now();
    }
    assert_eq!(kill(&child, libc::SIGINT), 0);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(2), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("complete shards are kept\nhint: run the same command to continue"),
        "{}",
        ran.stderr
    );
    let rows = ran.stderr.split("stopped after ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(rows.parse::<u64>().unwrap() % 8, 0, "{}", ran.stderr);
}

#[test]
fn rows_that_break_a_rule_are_counted_and_never_asked_for() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    server.answer("/0.jpg", WebAnswer::Body(jpeg(0)));
    let mut list = format!("url,caption\n{},a long enough caption\n", server.url("/0.jpg"));
    list += &format!("{},short\n", server.url("/1.jpg"));
    list += &format!("{},1234567890 !!\n", server.url("/2.jpg"));
    list += "https://images.example.org/a.jpg,another long caption\n";
    scratch.write("list.csv", list);
    scratch.write("denied.txt", "# not these\nexample.org\n");
    let rules = ["--min-caption-chars", "8", "--min-caption-letters", "0.5", "--deny-hosts", "denied.txt"];
    let ran = scratch.ingest_well(&download("out", &rules));
    assert!(ran.stdout.starts_with("fetched 1 of 4 rows (25.0 %)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n0 failed to download, 0 to be resized, 3 filtered; "), "{}", ran.stdout);
    for rule in ["caption_few_letters", "caption_too_short", "host_denied"] {
        assert!(ran.stdout.contains(&format!("\n  {rule:<22}            1    25.0 %")), "{}", ran.stdout);
    }
    let rows = table(&scratch, "out/00000.parquet");
    assert_eq!(rows[3]["status"], "filtered");
    assert_eq!(rows[3]["error_message"], "host_denied: `images.example.org` is denied as `example.org`");
    assert_eq!(json(&scratch.files("out")["00000_stats.json"])["filtered"], 3);

    scratch.write("denied.txt", "example.com\n");
    let error = scratch.ingest_refused(&download("out", &rules));
    assert!(error.contains("deny-hosts is "), "{error}");
}

#[test]
fn stats_tell_why_rows_failed_and_verify_compares_tables() {
    let scratch = Scratch::new();
    let server = WebServer::start();
    list(&scratch, &server, 30);
    scratch.ingest_well(&download("out", &[]));
    let printed = scratch.ingest_well(&["stats", "out", "--json", "stats.json"]).stdout;
    assert!(printed.contains("\n26 of 30 rows in 4 tables became samples: 86.7 %\n"), "{printed}");
    assert!(printed.contains("  http_404\n") && printed.contains(" 86.7 % succeed  127.0.0.1"), "{printed}");
    let rows = &json(&std::fs::read(scratch.path("stats.json")).unwrap())["rows"];
    assert_eq!((&rows["num_rows"], &rows["failures"][0][1]), (&30.into(), &4.into()));
    scratch.ingest_well(&["verify", "out"]);

    let other = std::fs::read(scratch.path("out/00003.parquet")).unwrap();
    scratch.write("out/00002.parquet", other);
    let ran = scratch.ingest(&["verify", "out"]);
    assert_eq!(ran.code, Some(1));
    let expected = "00002.tar: has 7 samples, its table `00002.parquet` says ";
    assert!(ran.stdout.starts_with(expected), "{}", ran.stdout);
}

#[test]
fn images_are_compared_with_the_hash_of_the_list() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    let md5 =
        |bytes: &[u8]| -> String { Md5::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect() };
    let mut list = "url,md5\n".to_owned();
    for row in 0..4 {
        server.answer(&format!("/{row}.jpg"), WebAnswer::Body(jpeg(row)));
        let hash = [md5(&jpeg(0)), md5(&jpeg(0)), String::new(), md5(&jpeg(3))];
        list += &format!("{},{}\n", server.url(&format!("/{row}.jpg")), hash[row]);
    }
    scratch.write("list.csv", list);
    let more = ["--verify-hash", "md5,md5", "--compute-hash", "md5", "--save-additional-columns", "md5"];
    let ran = scratch.ingest_well(&download("out", &more));
    assert!(ran.stdout.contains("\n  hash_mismatch                     2    50.0 %\n"), "{}", ran.stdout);
    let rows = table(&scratch, "out/00000.parquet");
    let hash = |row: usize| md5(&jpeg(row)).to_lowercase();
    assert_eq!((&rows[0]["md5"], &rows[3]["md5"]), (&hash(0), &hash(3)));
    assert_eq!(
        rows[1]["error_message"],
        format!("hash_mismatch: md5 {}, the list says {}", hash(1), hash(0))
    );
    assert_eq!(rows[2]["error_message"], format!("hash_mismatch: the list has no md5 for {}", hash(2)));
    assert!(!rows[0].contains_key("sha256"));

    let none = scratch.ingest_well(&download("none", &["--compute-hash", "none"]));
    assert!(none.stdout.starts_with("fetched 4 of 4 rows"), "{}", none.stdout);
    assert!(json(&scratch.samples("none")[0].1["json"]).get("sha256").is_none());
    let error = scratch.ingest_refused(&download("other", &["--verify-hash", "md5,crc32"]));
    assert!(error.contains("`crc32` is none of md5, sha256 and sha512"), "{error}");
}

#[test]
fn duplicates_have_a_status_of_their_own_also_after_a_resume() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    let mut list = "url,caption\n".to_owned();
    // Row 5 has the URL of row 2, rows 9 and 21 the bytes of row 4, and row 23 the URL of row 21.
    for row in 0..24 {
        let (path, image) = match row {
            5 => ("/2.jpg".to_owned(), 2),
            9 | 21 => (format!("/{row}.jpg"), 4),
            23 => ("/21.jpg".to_owned(), 4),
            _ => (format!("/{row}.jpg"), row),
        };
        server.answer(&path, WebAnswer::Body(jpeg(image)));
        list += &format!("{},{}\n", server.url(&path), caption(row));
    }
    scratch.write("list.csv", list);
    let settings = ["--drop-duplicates", "--drop-duplicate-urls", "--retries", "0"];
    let ran = scratch.ingest_well(&download("whole", &settings));
    let expected = "\n0 failed to download, 0 to be resized, 0 filtered, 4 duplicates; the tables";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    for reason in ["duplicate", "duplicate_url"] {
        assert!(ran.stdout.contains(&format!("\n  {reason:<22}            2 ")), "{}", ran.stdout);
    }
    let rows = table(&scratch, "whole/00002.parquet");
    assert_eq!(rows[5]["status"], "duplicate");
    assert_eq!(rows[5]["error_message"], "duplicate: the bytes of `000004`");
    assert_eq!(rows[7]["error_message"], "duplicate_url: the URL of `000025`");
    assert_eq!(json(&scratch.files("whole")["00002_stats.json"])["duplicates"], 2);

    // The last shard fails to be written, since a folder lies in its place; then the run goes on.
    std::fs::create_dir_all(scratch.path("out/00002.parquet/x")).unwrap();
    let failed = scratch.ingest(&download("out", &settings));
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    std::fs::remove_dir_all(scratch.path("out/00002.parquet")).unwrap();
    scratch.ingest_well(&download("out", &settings));
    let shards = |folder: &str| manifest(&scratch.path(folder)).shards;
    assert_eq!(shards("out"), shards("whole"));
    assert_eq!(table(&scratch, "out/00002.parquet"), rows);
}
