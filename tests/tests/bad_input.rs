//! Bad input, from the file on disk to the message that a person reads: each case ends with its exit code and
//! names the file, the shard and the sample.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fastclip_shards::{DatasetWriter, Store, StoreOptions, WriterOptions};
use fastclip_testkit::{Finished, Pair, Ranks, TinyDataset, run};
use fastclip_tests::{ingest, runtime, train};
use tempfile::TempDir;

/// The input was refused.
const REFUSED: i32 = 1;
/// Something broke.
const BROKEN: i32 = 2;

/// Number of the bad sample of [`with_bad_sample`]: the second one of the second shard.
const BAD: u32 = 7;

/// Twelve samples in two shards, one of them bad; `spoil` changes its image and caption.
fn with_bad_sample(spoil: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = Store::create(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    let options =
        WriterOptions { samples_per_shard: NonZeroU32::new(6).unwrap(), ..WriterOptions::default() };
    runtime().block_on(async {
        let mut writer = DatasetWriter::new(store, options);
        for number in 0..12 {
            // Large enough that most of the file is picture, and half of it is half a picture.
            let pair = Pair::new(number, 256);
            let (mut jpeg, mut caption) = (pair.jpeg, pair.caption.into_bytes());
            if number == BAD {
                spoil(&mut jpeg, &mut caption);
            }
            let members: Vec<(&str, &[u8])> = [("jpg", &jpeg[..]), ("txt", &caption[..])]
                .into_iter()
                .filter(|(extension, data)| *extension == "jpg" || !data.is_empty())
                .collect();
            writer.append(&members).await.unwrap();
        }
        writer.finish(BTreeMap::new()).await.unwrap();
    });
    folder
}

/// The command that trains on this dataset for an epoch, with global batches of four.
fn train_on(data: &Path, logs: &Path, more: &[&str]) -> Command {
    let mut command = train(["run", "--model", "toy", "--warmup", "1"]);
    if !more.contains(&"--batch-size") {
        command.args(["--batch-size", "4"]);
    }
    if !more.contains(&"--epochs") {
        command.args(["--epochs", "1"]);
    }
    command.args(["--device", "cpu", "--threads", "1", "--workers", "1"]);
    command.arg("--train-data").arg(data).arg("--logs").arg(logs).args(more);
    command
}

fn trained(data: &Path) -> Finished {
    let logs = TempDir::new().unwrap();
    run(&mut train_on(data, logs.path(), &[]))
}

/// Training on the dataset is refused with a message that names shard, sample and key of the bad one.
///
/// Not before the second epoch: the budget is judged at bad samples, once a whole epoch has been seen.
#[track_caller]
fn assert_sample_is_named(data: &TempDir, reason: &str) {
    let logs = TempDir::new().unwrap();
    run(&mut train_on(data.path(), logs.path(), &["--epochs", "2"])).assert_code(REFUSED).assert_says(&[
        "bad, the budget allows 5.00 %",
        "sample 1 of shard `00001.tar`",
        "key `000010001`",
        reason,
    ]);
}

/// Packs a table with one good row and this one, with no bad row allowed. The image is `rows/bad.jpg`.
fn packed(image: &[u8], row: &[u8]) -> Finished {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("rows")).unwrap();
    fs::write(folder.path().join("rows/good.jpg"), Pair::new(0, 32).jpeg).unwrap();
    fs::write(folder.path().join("rows/bad.jpg"), image).unwrap();
    let table = [b"{\"image\": \"rows/good.jpg\", \"caption\": \"fine\"}\n", row, b"\n"].concat();
    fs::write(folder.path().join("table.jsonl"), table).unwrap();
    let mut command =
        ingest(["pack", "--input", "table.jsonl", "--output", "out", "--max-bad-fraction", "0"]);
    let mut finished = run(command.current_dir(folder.path()));
    assert!(!folder.path().join("out/manifest.json").exists(), "{finished}");
    // The list of rejected rows is part of what a person is told.
    finished.stderr += &fs::read_to_string(folder.path().join("out/rejected.jsonl")).unwrap_or_default();
    finished
}

const CAPTIONED: &[u8] = br#"{"image": "rows/bad.jpg", "caption": "a caption"}"#;

#[test]
fn a_jpeg_cut_in_half_is_named() {
    let whole = Pair::new(BAD, 256).jpeg;
    packed(&whole[..whole.len() / 2], CAPTIONED).assert_code(REFUSED).assert_says(&[
        "1 corrupt image",
        "\"row\":1",
        "rows/bad.jpg",
    ]);
    let data = with_bad_sample(|jpeg, _| jpeg.truncate(jpeg.len() / 2));
    assert_sample_is_named(&data, "truncated image");
}

#[test]
fn an_image_without_bytes_is_named() {
    packed(b"", CAPTIONED).assert_code(REFUSED).assert_says(&["1 zero bytes", "\"row\":1", "rows/bad.jpg"]);
    let data = with_bad_sample(|jpeg, _| jpeg.clear());
    assert_sample_is_named(&data, "undecodable image");
}

#[test]
fn a_caption_that_is_not_utf8_is_named() {
    packed(&Pair::new(BAD, 32).jpeg, b"{\"image\": \"rows/bad.jpg\", \"caption\": \"caf\xe9\"}")
        .assert_code(REFUSED)
        .assert_says(&["1 caption not UTF-8", "\"row\":1"]);
    let data = with_bad_sample(|_, caption| *caption = b"caf\xe9".to_vec());
    assert_sample_is_named(&data, "caption not UTF-8");
}

#[test]
fn a_missing_caption_is_named() {
    packed(&Pair::new(BAD, 32).jpeg, br#"{"image": "rows/bad.jpg"}"#).assert_code(REFUSED).assert_says(&[
        "1 caption missing",
        "\"row\":1",
        "rows/bad.jpg",
    ]);
    let data = with_bad_sample(|_, caption| caption.clear());
    assert_sample_is_named(&data, "no caption");
}

#[test]
fn a_truncated_tar_is_named_by_every_program() {
    let tiny = TinyDataset::new(12, 6);
    let shard = tiny.file("00001.tar");
    let whole = fs::read(&shard).unwrap();
    // Within the data of a member, not between two.
    let cut = whole.len() / 2 + 100;
    fs::write(&shard, &whole[..cut]).unwrap();
    let sizes = format!("has {cut} bytes, the manifest says {}", whole.len());
    trained(tiny.path()).assert_code(REFUSED).assert_says(&["`00001.tar`", &sizes]);

    let verified = run(&mut ingest(["verify", tiny.location()])).assert_code(REFUSED);
    assert!(verified.stdout.contains("00001.tar") && verified.stdout.contains(&sizes), "{verified}");

    // Without a manifest it is a foreign tar, refused at the byte where it is cut.
    fs::remove_file(tiny.file("manifest.json")).unwrap();
    run(&mut ingest(["index", tiny.location()]))
        .assert_code(REFUSED)
        .assert_says(&["`00001.tar`", &format!("cut at byte {cut}")]);
}

#[test]
fn an_empty_shard_is_named_by_every_program() {
    let tiny = TinyDataset::new(12, 6);
    fs::write(tiny.file("00001.tar"), "").unwrap();
    trained(tiny.path()).assert_code(REFUSED).assert_says(&["`00001.tar`", "has 0 bytes, the manifest says"]);
    let verified = run(&mut ingest(["verify", tiny.location()])).assert_code(REFUSED);
    assert!(verified.stdout.contains("`00001.tar` has 0 bytes"), "{verified}");
    fs::remove_file(tiny.file("manifest.json")).unwrap();
    run(&mut ingest(["index", tiny.location()]))
        .assert_code(REFUSED)
        .assert_says(&["shard `00001.tar` is empty: no samples in 0 bytes"]);
}

#[test]
fn a_manifest_that_disagrees_with_its_shards_is_refused_with_both_values() {
    let tiny = TinyDataset::new(12, 6);
    let manifest = fs::read_to_string(tiny.file("manifest.json")).unwrap();
    let counts = manifest.replace("\"num_samples\": 12", "\"num_samples\": 13");
    assert_ne!(counts, manifest);
    fs::write(tiny.file("manifest.json"), counts).unwrap();
    trained(tiny.path())
        .assert_code(REFUSED)
        .assert_says(&["manifest.json", "num_samples = 13, its shards say 12"]);

    let bytes = fs::metadata(tiny.file("00000.tar")).unwrap().len();
    let sizes =
        manifest.replacen(&format!("\"num_bytes\": {bytes}"), &format!("\"num_bytes\": {}", bytes + 512), 1);
    assert_ne!(sizes, manifest);
    fs::write(tiny.file("manifest.json"), sizes).unwrap();
    trained(tiny.path()).assert_code(REFUSED).assert_says(&[
        "`00000.tar`",
        &bytes.to_string(),
        &(bytes + 512).to_string(),
    ]);
}

#[test]
fn a_folder_without_a_manifest_is_refused_with_a_way_out() {
    let folder = TempDir::new().unwrap();
    trained(folder.path())
        .assert_code(REFUSED)
        .assert_says(&["manifest.json", folder.path().to_str().unwrap()]);
}

#[test]
fn an_unknown_config_key_is_refused_with_the_one_that_was_meant() {
    let tiny = TinyDataset::new(12, 6);
    let config = tiny.file("run.toml");
    fs::write(&config, "batch_sice = 4\n").unwrap();
    let logs = TempDir::new().unwrap();
    run(&mut train_on(tiny.path(), logs.path(), &["--config", config.to_str().unwrap()]))
        .assert_code(REFUSED)
        .assert_says(&["run.toml", "`batch_sice`", "batch_size"]);
}

#[test]
fn a_batch_larger_than_the_dataset_is_refused_with_both_numbers() {
    let tiny = TinyDataset::new(12, 6);
    let logs = TempDir::new().unwrap();
    run(&mut train_on(tiny.path(), logs.path(), &["--batch-size", "13"]))
        .assert_code(REFUSED)
        .assert_says(&["12 samples", "13"]);
}

#[test]
fn a_port_in_use_is_named() {
    let tiny = TinyDataset::new(12, 6);
    let logs = TempDir::new().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    // Rank 0 is the one that listens.
    let ranks = Ranks::new(2).port(port).without(1).deadline(Duration::from_secs(180));
    let running = ranks.start(|_| train_on(tiny.path(), logs.path(), &["--dist-timeout", "60"]));
    let first = running.wait().into_iter().next().unwrap();
    first.assert_code(BROKEN).assert_says(&[&format!(":{port}"), "the port is in use"]);
}

#[test]
fn a_rank_that_never_comes_is_named_when_the_time_is_up() {
    let tiny = TinyDataset::new(12, 6);
    let logs = TempDir::new().unwrap();
    let ranks = Ranks::new(2).without(1).deadline(Duration::from_secs(180));
    let running = ranks.start(|_| train_on(tiny.path(), logs.path(), &["--dist-timeout", "5"]));
    let first = running.wait().into_iter().next().unwrap();
    first.assert_code(BROKEN).assert_says(&["rank 1"]);
}

#[test]
fn one_bad_sample_among_many_costs_itself_only() {
    let folder = TempDir::new().unwrap();
    let store = Store::create(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    let pairs = (0..200).map(|number| match Pair::new(number, 32) {
        pair if number == BAD => Pair { jpeg: pair.jpeg[..pair.jpeg.len() / 2].to_vec(), ..pair },
        pair => pair,
    });
    runtime().block_on(TinyDataset::write(store, pairs, 100));
    trained(folder.path()).assert_code(0).assert_says(&["00000.tar", "000000007"]);
}
