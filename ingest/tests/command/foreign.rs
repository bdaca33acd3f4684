use std::fs;
use std::io::Write;

use crate::support::{Scratch, caption, jpeg, json, manifest};

/// A tar as img2dataset's and webdataset's writers make them: members sorted, PAX records before each.
fn foreign_tar(samples: std::ops::Range<usize>, is_pax: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for sample in samples {
        let json = format!("{{\"key\": \"{:09}\", \"caption\": \"{}\"}}", 10 * sample, caption(sample));
        let members =
            [("jpg", jpeg(sample)), ("json", json.into_bytes()), ("txt", caption(sample).into_bytes())];
        for (extension, data) in members {
            let mut header = if is_pax { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
            header.set_mode(0o444);
            header.set_size(data.len() as u64);
            if is_pax {
                builder.append_pax_extensions([("mtime", &b"1700000000.123"[..])]).unwrap();
            }
            builder.append_data(&mut header, format!("{sample:09}.{extension}"), data.as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn two_shards(scratch: &Scratch) {
    scratch.write("foreign/00000.tar", foreign_tar(0..5, true));
    scratch.write("foreign/00001.tar", foreign_tar(5..8, false));
    scratch.write("foreign/00000_stats.json", "{}");
}

#[test]
fn tars_of_others_become_a_dataset_without_being_changed() {
    let scratch = Scratch::new();
    two_shards(&scratch);
    let before = scratch.files("foreign");
    let ran = scratch.ingest_well(&["index", "foreign"]);
    assert_eq!(ran.stdout, "indexed 8 samples in 2 shards of `foreign`\n");
    let samples = scratch.samples("foreign");
    assert_eq!(samples.len(), 8);
    for (number, (key, members)) in samples.iter().enumerate() {
        assert_eq!(key, &format!("{number:09}"));
        assert_eq!((&members["jpg"], &members["txt"]), (&jpeg(number), &caption(number).into_bytes()));
    }
    let after = scratch.files("foreign");
    assert!(before.iter().all(|(name, bytes)| &after[name] == bytes));
    scratch.ingest_well(&["verify", "foreign"]);

    let error = scratch.ingest_refused(&["index", "foreign"]);
    assert_eq!(
        error,
        "error: `foreign` already has a `manifest.json`\nhint: replace the manifest with --overwrite\n"
    );
    scratch.ingest_well(&["index", "foreign", "--overwrite"]);
    assert!(!scratch.path("foreign/index-state").exists(), "nothing is left but indexes and manifest");
}

/// Indexes, and kills it when so many shards are remembered. What is left is a dataset that is not finished.
fn kill_after(scratch: &Scratch, num_remembered: usize) {
    // The last shard is a hole of a TiB: the command is still reading it when it is killed.
    let hole = scratch.path("foreign/99999.tar");
    fs::File::create(&hole).unwrap().set_len(1 << 40).unwrap();
    let mut child = scratch.command(&["index", "foreign", "--threads", "1"]).spawn().unwrap();
    let remembered = || fs::read_dir(scratch.path("foreign/index-state")).map_or(0, Iterator::count);
    while remembered() < num_remembered {
        assert_eq!(child.try_wait().unwrap(), None, "it ended too early");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(hole).unwrap();
    assert!(!scratch.path("foreign/manifest.json").exists());
}

#[test]
fn a_killed_run_goes_on_without_reading_a_shard_again() {
    let scratch = Scratch::new();
    for shard in 0..6 {
        scratch.write(&format!("foreign/{shard:05}.tar"), foreign_tar(5 * shard..5 * shard + 5, false));
    }
    kill_after(&scratch, 4);
    let ran = scratch.ingest_well(&["index", "foreign"]);
    let recalled: usize = ran.stdout.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((3..=6).contains(&recalled), "{}", ran.stdout);
    let resumed = scratch.files("foreign");
    scratch.ingest_well(&["index", "foreign", "--overwrite"]);
    assert_eq!(resumed, scratch.files("foreign"), "an interruption does not show in the dataset");
    scratch.ingest_well(&["verify", "foreign"]);
}

#[test]
fn a_shard_that_changed_since_is_read_again_and_so_are_those_whose_ids_move() {
    let scratch = Scratch::new();
    for shard in 0..4 {
        scratch.write(&format!("foreign/{shard:05}.tar"), foreign_tar(5 * shard..5 * shard + 5, false));
    }
    kill_after(&scratch, 4);
    scratch.write("foreign/00001.tar", foreign_tar(5..7, false));
    let ran = scratch.ingest_well(&["index", "foreign"]);
    let expected = "indexed 17 samples in 4 shards of `foreign`, 1 of which an earlier run had read\n";
    assert_eq!(ran.stdout, expected);
    let first_ids: Vec<_> =
        manifest(&scratch.path("foreign")).shards.iter().map(|shard| shard.first_sample_id.0).collect();
    assert_eq!(first_ids, [0, 5, 7, 12]);
    scratch.ingest_well(&["verify", "foreign"]);
}

#[test]
fn replacing_a_manifest_keeps_what_it_says_about_the_source() {
    let scratch = Scratch::new();
    scratch.pairs(5);
    scratch.ingest_well(&["pack", "--input", "pairs/table.jsonl", "--output", "out"]);
    let before = manifest(&scratch.path("out")).source;
    scratch.ingest_well(&["index", "out", "--overwrite"]);
    let after = manifest(&scratch.path("out")).source;
    assert!(before.contains_key("pack") && before.iter().all(|(name, fact)| after[name] == *fact));
    assert_eq!(after["ids"], "dense");
}

#[test]
fn ids_can_come_from_the_json_members() {
    let scratch = Scratch::new();
    two_shards(&scratch);
    let ran = scratch.ingest_well(&["index", "foreign", "--ids", "json-key"]);
    assert!(ran.stdout.contains("ids reach 71: tables of training will have as many rows"), "{}", ran.stdout);
    let manifest = manifest(&scratch.path("foreign"));
    assert_eq!((manifest.num_samples, manifest.num_sample_ids), (8, 71));
    assert_eq!(manifest.shards.iter().map(|shard| shard.first_sample_id.0).collect::<Vec<_>>(), [0, 50]);
    scratch.ingest_well(&["verify", "foreign"]);

    scratch.write("foreign/00002.tar", foreign_tar(7..9, false));
    let error = scratch.ingest_refused(&["index", "foreign", "--ids", "json-key", "--overwrite"]);
    let expected =
        "error: sample `000000007` at byte 0 of shard `00002.tar` has id 70, as a sample before it has\n";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_sample_without_an_id_is_named() {
    let scratch = Scratch::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    builder.append_data(&mut header, "a.jpg", &b"x"[..]).unwrap();
    scratch.write("foreign/x.tar", builder.into_inner().unwrap());
    let error = scratch.ingest_refused(&["index", "foreign", "--ids", "json-key"]);
    let expected = "error: sample `a` at byte 0 of shard `x.tar` has no id: it has no JSON member\nhint: ";
    assert!(error.starts_with(expected), "{error}");
    let ran = scratch.ingest_well(&["index", "foreign"]);
    assert!(ran.stdout.contains("1 samples have neither caption nor class"), "{}", ran.stdout);
}

#[test]
fn a_cut_tar_is_refused_at_its_byte_or_kept_up_to_there() {
    let scratch = Scratch::new();
    two_shards(&scratch);
    let tar = fs::read(scratch.path("foreign/00001.tar")).unwrap();
    // Into the JSON of the last sample.
    let cut = tar.len() - 1024 - 1500;
    scratch.write("foreign/00001.tar", &tar[..cut]);
    let error = scratch.ingest_refused(&["index", "foreign"]);
    assert!(error.starts_with("error: shard `00001.tar` is damaged after 2 whole samples\n"), "{error}");
    assert!(
        error.contains(&format!("  caused by: the tar is cut at byte {cut}: `000000007.json`, whose ")),
        "{error}"
    );
    assert!(
        error.ends_with("hint: keep the whole samples around the damage with --skip-damaged\n"),
        "{error}"
    );
    assert!(!scratch.path("foreign/manifest.json").exists());

    let ran = scratch.ingest_well(&["index", "foreign", "--skip-damaged"]);
    assert!(
        ran.stdout.starts_with(
            "indexed 7 samples in 2 shards of `foreign`, 1 of which an earlier run had read\nshard `00001.tar` is damaged"
        ),
        "{}",
        ran.stdout
    );
    assert_eq!(scratch.samples("foreign").len(), 7);
    scratch.ingest_well(&["verify", "foreign"]);
}

#[test]
fn what_follows_damage_is_kept_too_except_samples_that_lack_members() {
    let scratch = Scratch::new();
    let whole = foreign_tar(0..6, false);
    let place = |name: &str| {
        (0..whole.len()).step_by(512).find(|&at| whole[at..].starts_with(name.as_bytes())).unwrap()
    };
    // The first member of a sample, one in its middle, and its last: the neighbours have all of theirs.
    for (name, samples) in [
        ("000000000.jpg", 5),
        ("000000002.jpg", 5),
        ("000000002.json", 5),
        ("000000002.txt", 5),
        ("000000005.txt", 5),
    ] {
        let mut tar = whole.clone();
        tar[place(name) + 2] ^= 0x10;
        scratch.write("foreign/x.tar", tar);
        let ran = scratch.ingest_well(&["index", "foreign", "--skip-damaged", "--overwrite"]);
        assert!(
            ran.stdout.starts_with(&format!("indexed {samples} samples in 1 shards")),
            "{name}: {}",
            ran.stdout
        );
        let lost = &name[..9];
        assert!(scratch.samples("foreign").iter().all(|(key, _)| key != lost), "{name}");
        scratch.ingest_well(&["verify", "foreign"]);
    }
}

#[test]
fn compressed_tars_are_indexed_and_read_like_plain_ones() {
    let scratch = Scratch::new();
    let gzip = |tar: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(tar).unwrap();
        encoder.finish().unwrap()
    };
    scratch.write("foreign/00000.tar", foreign_tar(0..5, true));
    let compressed = gzip(&foreign_tar(5..25, false));
    scratch.write("foreign/00001.tar.gz", &compressed);
    scratch.ingest_well(&["index", "foreign"]);
    let samples = scratch.samples("foreign");
    assert_eq!(samples.len(), 25);
    for (number, (key, members)) in samples.iter().enumerate() {
        assert_eq!(key, &format!("{number:09}"));
        assert_eq!((&members["jpg"], &members["txt"]), (&jpeg(number), &caption(number).into_bytes()));
    }
    let shard = &manifest(&scratch.path("foreign")).shards[1];
    assert_eq!((shard.index.as_str(), shard.num_bytes), ("00001.tar.gz.idx", compressed.len() as u64));
    scratch.ingest_well(&["verify", "foreign"]);

    scratch.write("foreign/00001.tar.gz", &compressed[..compressed.len() * 2 / 3]);
    let error = scratch.ingest_refused(&["index", "foreign", "--overwrite"]);
    assert!(error.contains("shard `00001.tar.gz` is damaged after "), "{error}");
    assert!(error.contains("the compressed bytes are damaged"), "{error}");
    scratch.ingest_well(&["index", "foreign", "--overwrite", "--skip-damaged"]);
    let left = scratch.samples("foreign");
    assert!((6..25).contains(&left.len()) && left[..] == samples[..left.len()], "{}", left.len());
}

#[test]
fn an_absurd_header_is_refused_at_its_byte() {
    let scratch = Scratch::new();
    let mut tar = foreign_tar(0..2, false);
    let header = (0..tar.len()).step_by(512).find(|&at| tar[at..].starts_with(b"000000001.jpg")).unwrap();
    tar[header + 124..header + 136].copy_from_slice(b"99999999999\0");
    scratch.write("foreign/x.tar", tar);
    let error = scratch.ingest_refused(&["index", "foreign"]);
    assert!(error.contains(&format!("the tar header at byte {header} has checksum ")), "{error}");
}

#[test]
fn an_empty_shard_is_refused_or_left_out() {
    let scratch = Scratch::new();
    two_shards(&scratch);
    scratch.write("foreign/00002.tar", "");
    scratch.write("foreign/00003.tar", [0; 10_240]);
    let error = scratch.ingest_refused(&["index", "foreign"]);
    assert_eq!(
        error,
        "error: shard `00002.tar` is empty: no samples in 0 bytes\nhint: leave such shards out with --skip-damaged\n"
    );
    let ran = scratch.ingest_well(&["index", "foreign", "--skip-damaged"]);
    assert!(ran.stdout.contains("shard `00003.tar` is empty: no samples in 10240 bytes"), "{}", ran.stdout);
    assert_eq!(manifest(&scratch.path("foreign")).shards.len(), 2);

    scratch.write("none/readme.txt", "x");
    let error = scratch.ingest_refused(&["index", "none"]);
    assert_eq!(error, "error: `none` holds no tars with samples\n");
    let error = scratch.ingest_refused(&["index", "nowhere"]);
    assert_eq!(error, "error: could not use the location\n  caused by: there is no folder `nowhere`\n");
}

#[test]
fn what_we_pack_others_read() {
    let scratch = Scratch::new();
    scratch.pairs(5);
    scratch.ingest_well(&["pack", "--input", "pairs/table.jsonl", "--output", "out"]);
    let bytes = fs::read(scratch.path("out/00000.tar")).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(&names[..4], ["000000000.jpg", "000000000.txt", "000000000.json", "000000001.jpg"]);
    assert_eq!(json(&scratch.files("out")["sizes.json"])["00000.tar"], 5);
}
