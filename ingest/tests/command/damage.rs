use std::fs;

use crate::support::{Scratch, jpeg, json};

fn packed() -> Scratch {
    let scratch = Scratch::new();
    scratch.pairs(20);
    let arguments = ["pack", "--input", "pairs/table.jsonl", "--output", "out", "--samples-per-shard", "8"];
    scratch.ingest_well(&arguments);
    scratch
}

/// Verifies, insists that it fails, and gives what it printed.
fn verdict(scratch: &Scratch) -> String {
    let ran = scratch.ingest(&["verify", "out"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains(" of 3 shards of `out` must be rebuilt\n"), "{}", ran.stderr);
    ran.stdout
}

#[test]
fn a_sound_dataset_is_said_to_be_whole() {
    let ran = packed().ingest_well(&["verify", "out"]);
    assert_eq!(ran.stdout, "3 of 3 shards are whole; the manifest counts 20 samples\n");
}

#[test]
fn every_shard_to_rebuild_is_named_with_what_is_wrong() {
    let scratch = packed();
    let tar = scratch.path("out/00000.tar");
    let mut bytes = fs::read(&tar).unwrap();
    let num_bytes = bytes.len();
    bytes[600] ^= 1;
    fs::write(&tar, &bytes).unwrap();
    let text = verdict(&scratch);
    assert!(text.starts_with("00000.tar: has digest blake3:"), "{text}");
    let rebuild =
        "\n  to rebuild it: ingest pack --input table.jsonl --output out --overwrite, with the settings";
    assert!(text.contains(rebuild), "{text}");
    assert!(text.ends_with("\n2 of 3 shards are whole; the manifest counts 20 samples\n"), "{text}");

    fs::write(&tar, &bytes[..5000]).unwrap();
    fs::remove_file(scratch.path("out/00001.tar")).unwrap();
    fs::copy(scratch.path("out/00000.idx"), scratch.path("out/00002.idx")).unwrap();
    let text = verdict(&scratch);
    let shorter = format!("00000.tar: shard `00000.tar` has 5000 bytes, the manifest says {num_bytes}\n");
    assert!(text.contains(&shorter), "{text}");
    assert!(
        text.contains("00001.tar: the manifest of `out` names `00001.tar`, which is not there\n"),
        "{text}"
    );
    assert!(text.contains("00002.tar: index `00002.idx` of shard `00002.tar` has digest blake3:"), "{text}");
    assert!(text.ends_with("0 of 3 shards are whole; the manifest counts 20 samples\n"), "{text}");
}

#[test]
fn a_lost_index_is_rebuilt_by_the_command_that_is_named() {
    let scratch = packed();
    let before = scratch.files("out");
    fs::copy(scratch.path("out/00000.idx"), scratch.path("out/00002.idx")).unwrap();
    let text = verdict(&scratch);
    assert!(text.contains("\n  to rebuild it: ingest index out --overwrite\n"), "{text}");
    scratch.ingest_well(&["index", "out", "--overwrite"]);
    scratch.ingest_well(&["verify", "out"]);
    assert_eq!(before["00002.idx"], scratch.files("out")["00002.idx"]);
}

#[test]
fn sizes_that_disagree_and_files_of_nobody_are_named() {
    let scratch = packed();
    scratch.write("out/sizes.json", r#"{"00000.tar": 8, "00001.tar": 7, "00002.tar": 4}"#);
    scratch.write("out/notes.txt", "x");
    let ran = scratch.ingest(&["verify", "out", "--json", "verdict.json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let expected = "\
`sizes.json` says that `00001.tar` has 7 samples, the manifest says 8
1 files belong to nothing: notes.txt
";
    assert!(ran.stdout.starts_with(expected), "{}", ran.stdout);
    assert_eq!(ran.stderr, "error: 1 files beside the shards of `out` disagree with them\n");
    let verdict = json(&fs::read(scratch.path("verdict.json")).unwrap());
    assert_eq!(verdict["unknown_files"][0], "notes.txt");
    assert_eq!(verdict["shards"].as_array().unwrap().len(), 3);
}

/// A tar of these members.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn images_that_do_not_decode_and_what_occurs_again_are_counted() {
    let scratch = Scratch::new();
    let whole = jpeg(0);
    let cut = &whole[..whole.len() - 40];
    let first = [("a.jpg", whole.as_slice()), ("a.txt", b"x"), ("b.jpg", cut), ("b.txt", b"x")];
    let second = [("b.jpg", whole.as_slice()), ("b.txt", b"x"), ("c.png", b"no image"), ("c.txt", b"x")];
    scratch.write("out/0.tar", tar(&first));
    scratch.write("out/1.tar", tar(&second));
    scratch.ingest_well(&["index", "out"]);
    let text = scratch.ingest_well(&["verify", "out", "--decode", "all"]).stdout;
    let repeated = "\
1 samples have the key of another sample:
  `b`: sample 1 of 0.tar and sample 0 of 1.tar
";
    assert!(text.contains(repeated), "{text}");
    let same = "1 images are those of an earlier sample:\n  `a`: sample 0 of 0.tar and sample 0 of 1.tar\n";
    assert!(text.contains(same), "{text}");
    assert!(text.contains("2 of 4 images that were decoded cannot be:\n  0.tar: `b.jpg`: "), "{text}");
    assert!(text.contains("  1.tar: `c.png`: the file is of no known image format\n"), "{text}");
    let text = scratch.ingest_well(&["verify", "out", "--decode", "none"]).stdout;
    assert!(!text.contains("decoded"), "{text}");
    let error = scratch.ingest_refused(&["verify", "out", "--decode", "some"]);
    assert!(error.contains("expected none, all, or sample:N"), "{error}");
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused_with_both_values() {
    let scratch = packed();
    let path = scratch.path("out/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"num_samples\": 20", "\"num_samples\": 21", 1)).unwrap();
    let error = scratch.ingest_refused(&["verify", "out"]);
    let expected = "\
error: the manifest `manifest.json` of `out` is unusable
  caused by: the manifest says num_samples = 21, its shards say 20
hint: `ingest index --overwrite` makes a new manifest for the shards that are there
";
    assert_eq!(error, expected);
    fs::write(&path, text.replacen("\"shards\"", "\"shard\"", 1)).unwrap();
    let error = scratch.ingest_refused(&["verify", "out"]);
    assert!(error.contains("unknown field `shard`"), "{error}");
}

#[test]
fn a_manifest_that_disagrees_with_its_shards_is_told_from_damaged_shards() {
    let scratch = packed();
    let path = scratch.path("out/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let other = text.replacen("\"num_samples\": 20", "\"num_samples\": 19", 1).replacen(
        "\"num_samples\": 4",
        "\"num_samples\": 3",
        1,
    );
    fs::write(&path, other).unwrap();
    let text = verdict(&scratch);
    let expected =
        "00002.tar: index `00002.idx` of shard `00002.tar` says num_samples = 4, the manifest says 3\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_location_without_a_dataset_is_refused_with_a_hint() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("bare")).unwrap();
    let error = scratch.ingest_refused(&["verify", "bare"]);
    assert!(
        error.starts_with("error: `bare` is no dataset: it holds no `manifest.json`\nhint: `ingest pack` "),
        "{error}"
    );
    let error = scratch.ingest_refused(&["verify", "https://user:pw@localhost/x?sig=secret"]);
    assert!(
        error.contains("`https://localhost/x`") && !error.contains("secret") && !error.contains("pw@"),
        "{error}"
    );
}
