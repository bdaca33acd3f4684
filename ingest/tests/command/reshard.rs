use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Scratch, caption, jpeg, json, kill, manifest};

/// A dataset of `num_rows` samples in shards of eight, `pairs-out`.
fn dataset(scratch: &Scratch, num_rows: usize) {
    scratch.pairs(num_rows);
    let pairs = "pairs/table.jsonl";
    scratch.ingest_well(&["pack", "--input", pairs, "--output", "pairs-out", "--samples-per-shard", "8"]);
}

fn members(samples: &[(String, BTreeMap<String, Vec<u8>>)], extension: &str) -> Vec<Vec<u8>> {
    samples.iter().map(|(_, members)| members[extension].clone()).collect()
}

#[test]
fn shards_of_another_size_hold_the_same_samples() {
    let scratch = Scratch::new();
    dataset(&scratch, 30);
    let ran = scratch.ingest_well(&["reshard", "pairs-out", "--output", "out", "--samples-per-shard", "20"]);
    assert!(ran.stdout.starts_with("packed 30 of 30 rows in 2 shards, "), "{}", ran.stdout);
    scratch.ingest_well(&["verify", "out"]);
    let (before, after) = (scratch.samples("pairs-out"), scratch.samples("out"));
    for extension in ["jpg", "txt"] {
        assert_eq!(members(&before, extension), members(&after, extension));
    }
    assert_eq!(after[21].0, "000010001");
    let facts = json(&after[21].1["json"]);
    assert_eq!((&facts["key"], &facts["caption"]), (&"000010001".into(), &caption(21).into()));
}

#[test]
fn a_dataset_is_not_written_over_itself() {
    let scratch = Scratch::new();
    dataset(&scratch, 20);
    foreign(&scratch);
    std::os::unix::fs::symlink(scratch.path("pairs-out"), scratch.path("link")).unwrap();
    let (before, foreign_before) = (scratch.files("pairs-out"), scratch.files("foreign"));
    for more in [&[][..], &["--overwrite"], &["--resume"]] {
        for (input, output) in
            [("pairs-out", "./pairs-out/"), ("link", "pairs-out"), ("pairs-out/00001.tar", "pairs-out")]
        {
            let error = scratch.ingest_refused(&[&["reshard", input, "--output", output][..], more].concat());
            let expected = format!("error: `{output}` already holds `");
            assert!(
                error.starts_with(&expected) && error.contains("`, which is input\nhint: choose"),
                "{error}"
            );
        }
        let error =
            scratch.ingest_refused(&[&["reshard", "foreign", "--output", "foreign"][..], more].concat());
        assert!(error.starts_with("error: `foreign` already holds `a.tar`, which is input\n"), "{error}");
    }
    assert!(scratch.files("pairs-out") == before && scratch.files("foreign") == foreign_before);
    scratch.ingest_well(&["reshard", "pairs-out", "--output", "pairs-out/again"]);
}

#[test]
fn bytes_bound_a_shard_unless_one_sample_is_larger() {
    let scratch = Scratch::new();
    dataset(&scratch, 40);
    let bound = 30_000;
    scratch.ingest_well(&["reshard", "pairs-out", "--output", "out", "--max-shard-bytes", "30000"]);
    scratch.ingest_well(&["verify", "out"]);
    let shards = manifest(&scratch.path("out")).shards;
    assert!(shards.len() > 2 && shards.iter().all(|shard| shard.num_bytes <= bound), "{shards:?}");
    let (before, after) = (scratch.samples("pairs-out"), scratch.samples("out"));
    assert_eq!(members(&before, "jpg"), members(&after, "jpg"));
    for (key, members) in &after {
        assert_eq!(&json(&members["json"])["key"], key);
    }
    // Packed with the same bound, the shards are the same but for what JSON says.
    let pairs = "pairs/table.jsonl";
    scratch.ingest_well(&["pack", "--input", pairs, "--output", "packed", "--max-shard-bytes", "30000"]);
    assert_eq!(manifest(&scratch.path("packed")).shards, shards);
    scratch.ingest_well(&["reshard", "pairs-out", "--output", "single", "--max-shard-bytes", "1"]);
    assert_eq!(manifest(&scratch.path("single")).shards.len(), 40);
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, data).unwrap();
}

/// Shards of another program: no manifest, keys that repeat, members of all kinds.
fn foreign(scratch: &Scratch) {
    for shard in 0..3 {
        let mut tar = tar::Builder::new(Vec::new());
        for row in 0..5 {
            let key = format!("{row:03}");
            append(&mut tar, &format!("{key}.jpeg"), &jpeg(shard * 5 + row));
            append(&mut tar, &format!("{key}.txt"), caption(shard * 5 + row).as_bytes());
            append(&mut tar, &format!("{key}.npy"), &[row as u8; 700]);
            if row != 3 {
                append(
                    &mut tar,
                    &format!("{key}.json"),
                    br#"{"key": "x", "url": "http://a.org/", "width": 1}"#,
                );
            }
        }
        let bytes = tar.into_inner().unwrap();
        match shard {
            2 => scratch.write("foreign/c.tar.zst", zstd::encode_all(&bytes[..], 1).unwrap()),
            _ => scratch.write(&format!("foreign/{}.tar", ["a", "b"][shard]), bytes),
        };
    }
}

#[test]
fn tars_without_a_manifest_keep_all_of_their_members() {
    let scratch = Scratch::new();
    foreign(&scratch);
    let reshard = ["reshard", "foreign", "--output", "out", "--samples-per-shard", "7"];
    let ran = scratch.ingest_well(&reshard);
    assert!(ran.stdout.starts_with("packed 15 of 15 rows in 3 shards"), "{}", ran.stdout);
    scratch.ingest_well(&["verify", "out"]);
    for (row, (key, members)) in scratch.samples("out").iter().enumerate() {
        assert_eq!(members["jpeg"], jpeg(row));
        assert_eq!(members["npy"], [(row % 5) as u8; 700]);
        assert_eq!(members.contains_key("json"), row % 5 != 3);
        if let Some(facts) = members.get("json").map(|facts| json(facts)) {
            assert_eq!((&facts["key"], &facts["width"]), (&key.as_str().into(), &(24 + row % 8).into()));
            assert_eq!(facts["url"], "http://a.org/");
        }
    }
    // With a manifest the samples are the same.
    scratch.ingest_well(&["index", "foreign"]);
    scratch.ingest_well(&["reshard", "foreign", "--output", "again", "--samples-per-shard", "7"]);
    assert_eq!(manifest(&scratch.path("again")).shards, manifest(&scratch.path("out")).shards);

    fs::remove_file(scratch.path("foreign/manifest.json")).unwrap();
    let whole = fs::read(scratch.path("foreign/b.tar")).unwrap();
    scratch.write("foreign/b.tar", &whole[..5000]);
    let error = scratch.ingest_refused(&["reshard", "foreign", "--output", "cut"]);
    assert!(error.contains("shard `b.tar` is damaged") && error.contains("--skip-damaged"), "{error}");
    let error = scratch.ingest_refused(&["reshard", "pairs", "--output", "none"]);
    assert!(error.contains("pairs"), "{error}");
}

#[test]
fn filters_leave_out_samples_with_their_reason() {
    let scratch = Scratch::new();
    dataset(&scratch, 20);
    // Captions from `picture number 10` on have 17 characters; images are 24 to 31 pixels wide and 16 high.
    let ran = scratch.ingest_well(&[
        "reshard",
        "pairs-out",
        "--output",
        "out",
        "--min-caption-chars",
        "17",
        "--max-aspect-ratio",
        "1.8",
        "--resize-mode",
        "keep_ratio",
        "--image-size",
        "8",
    ]);
    let wide: Vec<usize> = (10..20).filter(|row| 24 + row % 8 > 28).collect();
    let kept: Vec<usize> = (10..20).filter(|row| !wide.contains(row)).collect();
    assert!(ran.stdout.starts_with(&format!("packed {} of 20 rows", kept.len())), "{}", ran.stdout);
    let samples = scratch.samples("out");
    assert_eq!(
        members(&samples, "txt"),
        kept.iter().map(|row| caption(*row).into_bytes()).collect::<Vec<_>>()
    );
    let facts = json(&samples[0].1["json"]);
    assert_eq!((&facts["width"], &facts["height"]), (&13.into(), &8.into()));
    let rejected = fs::read_to_string(scratch.path("out/rejected.jsonl")).unwrap();
    let reasons: Vec<_> = rejected.lines().map(|line| json(line.as_bytes())).collect();
    assert_eq!(reasons.iter().filter(|line| line["reason"] == "caption_too_short").count(), 10);
    assert_eq!(reasons.iter().filter(|line| line["reason"] == "too_long").count(), wide.len());
    assert_eq!((&reasons[3]["row"], &reasons[3]["image"]), (&3.into(), &"00000.tar/000000003".into()));

    // One of five samples has no URL.
    foreign(&scratch);
    let hosts = scratch.write("hosts.txt", "a.org\n");
    let ran = scratch.ingest_well(&[
        "reshard",
        "foreign",
        "--output",
        "allowed",
        "--allow-hosts",
        hosts.to_str().unwrap(),
    ]);
    assert!(ran.stdout.starts_with("packed 12 of 15 rows"), "{}", ran.stdout);
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_shards() {
    let scratch = Scratch::new();
    dataset(&scratch, 200);
    let duplicated = "{pairs-out,pairs-out}";
    let arguments = |output: &'static str, threads: &'static str| {
        [
            "reshard",
            duplicated,
            "--output",
            output,
            "--samples-per-shard",
            "11",
            "--drop-duplicates",
            "--resize-mode",
            "border",
            "--image-size",
            "40",
            "--threads",
            threads,
            "--resume",
        ]
    };
    let whole = scratch.ingest_well(&arguments("whole", "1"));
    assert!(whole.stdout.contains("packed 200 of 400 rows"), "{}", whole.stdout);
    for pause in [5, 20, 60, 100, 150] {
        let mut child = scratch.command(&arguments("out", "3")).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        kill(&child, libc::SIGKILL);
        child.wait().unwrap();
    }
    scratch.ingest_well(&arguments("out", "2"));
    let files = |folder: &str| scratch.files(folder);
    assert_eq!(files("out"), files("whole"));
    assert!(!Path::new(&scratch.path("out/reshard-state")).exists());
    let again = scratch.ingest_well(&arguments("out", "2")).stdout;
    assert!(again.starts_with("already complete: "), "{again}");
}

#[test]
fn duplicates_are_left_out_and_name_the_first() {
    let scratch = Scratch::new();
    scratch.pairs(10);
    for (copy, row) in [(4, 1), (7, 1), (9, 8)] {
        scratch.write(&format!("pairs/images/{copy:04}.jpg"), jpeg(row));
    }
    let pack = |output: &str, more: &[&str]| {
        let common = ["pack", "--input", "pairs/table.jsonl", "--output", output, "--samples-per-shard", "3"];
        scratch.ingest_well(&[&common[..], more].concat())
    };
    let ran = pack("out", &["--drop-duplicates", "--max-bad-fraction", "0"]);
    assert!(ran.stdout.starts_with("packed 7 of 10 rows"), "{}", ran.stdout);
    let rejected = fs::read_to_string(scratch.path("out/rejected.jsonl")).unwrap();
    let found: Vec<_> = rejected
        .lines()
        .map(|line| json(line.as_bytes()))
        .map(|line| (line["row"].as_u64().unwrap(), line["message"].as_str().unwrap().to_owned()))
        .collect();
    let expected =
        [(4, "the bytes of `000000001`"), (7, "the bytes of `000000001`"), (9, "the bytes of `000020000`")];
    assert_eq!(found, expected.map(|(row, message)| (row, message.to_owned())));
    pack("all", &[]);
    scratch.ingest_well(&[
        "reshard",
        "all",
        "--output",
        "dropped",
        "--samples-per-shard",
        "3",
        "--drop-duplicates",
    ]);
    assert_eq!(members(&scratch.samples("dropped"), "txt"), members(&scratch.samples("out"), "txt"));
}
