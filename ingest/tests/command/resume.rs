use std::fs;
use std::process::Child;

use crate::support::{Ran, Scratch, jpeg, kill};

const INPUT: [&str; 5] = ["pack", "--input", "pairs/table.jsonl", "--samples-per-shard", "8"];

fn pack<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&INPUT[..], more].concat()
}

/// Starts packing and waits until the record of a shard is there.
fn start_until(scratch: &Scratch, output: &str, shard: usize) -> Child {
    let mut command = scratch.command(&pack(&["--output", output, "--threads", "1"]));
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let record = scratch.path(output).join(format!("pack-state/{shard:05}.json"));
    while !record.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child
}

/// Interrupts a run in its middle and gives how it ended. A run that was faster than the signal is repeated with more
/// rows, so that this never depends on the speed of the machine.
fn interrupted(scratch: &Scratch, signal: i32) -> Ran {
    for num_rows in [400, 1600, 6400] {
        scratch.pairs(num_rows);
        let _ = fs::remove_dir_all(scratch.path("out"));
        let child = start_until(scratch, "out", 2);
        assert_eq!(kill(&child, signal), 0);
        let ran = Ran::from(child.wait_with_output().unwrap());
        if !scratch.path("out/manifest.json").exists() {
            return ran;
        }
    }
    panic!("the command finished 800 shards before a signal could reach it");
}

#[test]
fn a_killed_run_resumes_to_the_very_same_dataset() {
    let scratch = Scratch::new();
    interrupted(&scratch, libc::SIGKILL);
    // What a broken upload leaves under a local folder.
    scratch.write("out/00003.tar#1", "half a shard");
    scratch.write("out/pack-state/00003.json#1", "half a record");
    // Shards that are complete are not written again: this row is in one of them.
    let row = scratch.path("pairs/images/0003.jpg");
    fs::remove_file(&row).unwrap();
    let ran = scratch.ingest_well(&pack(&["--output", "out", "--resume"]));
    assert!(ran.stdout.starts_with("packed "), "{}", ran.stdout);
    fs::write(&row, jpeg(3)).unwrap();
    scratch.ingest_well(&pack(&["--output", "whole"]));
    assert_eq!(scratch.files("out"), scratch.files("whole"));
    assert!(!scratch.path("out/pack-state").exists());
    scratch.ingest_well(&["verify", "out"]);
}

#[test]
fn files_that_only_look_like_broken_uploads_stay() {
    let scratch = Scratch::new();
    scratch.pairs(10);
    let others = ["#notes.txt#", "take#2", "00000.tar#", "list.csv#1"];
    for name in others {
        scratch.write(&format!("out/{name}"), "of somebody");
    }
    scratch.write("out/00000.tar#1", "half a shard");
    scratch.write("out/manifest.json#1", "half a manifest");
    scratch.ingest_well(&pack(&["--output", "out"]));
    let files = scratch.files("out");
    for name in others {
        assert!(files.contains_key(name), "{name}");
    }
    assert!(!files.contains_key("00000.tar#1") && !files.contains_key("manifest.json#1"));
}

#[test]
fn a_terminated_run_says_how_to_resume() {
    let scratch = Scratch::new();
    let ran = interrupted(&scratch, libc::SIGTERM);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("error: stopped after "), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("hint: run the same command with --resume to continue\n"), "{}", ran.stderr);
    scratch.ingest_well(&pack(&["--output", "out", "--resume"]));
    scratch.ingest_well(&pack(&["--output", "whole"]));
    assert_eq!(scratch.files("out"), scratch.files("whole"));
}

#[test]
fn rejected_rows_survive_an_interruption() {
    let scratch = Scratch::new();
    scratch.pairs(40);
    for row in [2, 17, 38] {
        scratch.write(&format!("pairs/images/{row:04}.jpg"), "");
    }
    scratch.write("pairs/images/0030.jpg", "");
    let error = scratch.ingest_refused(&pack(&["--output", "out", "--max-bad-fraction", "0.06"]));
    assert!(
        error.contains("3 of 40 rows were rejected, more than max_bad_fraction = 0.06 allows: 3 zero bytes"),
        "{error}"
    );
    assert!(scratch.path("out/pack-state/00002.json").exists());
    let ran = scratch.ingest_well(&pack(&["--output", "out", "--max-bad-fraction", "0.5", "--resume"]));
    assert!(ran.stdout.contains("rejected 4 rows"), "{}", ran.stdout);
    scratch.ingest_well(&pack(&["--output", "whole", "--max-bad-fraction", "0.5"]));
    assert_eq!(scratch.files("out"), scratch.files("whole"));
}

#[test]
fn a_second_run_refuses_resumes_or_overwrites() {
    let scratch = Scratch::new();
    scratch.pairs(20);
    scratch.ingest_well(&pack(&["--output", "out"]));
    let before = scratch.files("out");
    let error = scratch.ingest_refused(&pack(&["--output", "out"]));
    let expected = "error: `out` already holds a dataset\nhint: continue with --resume, or replace it with --overwrite\n";
    assert_eq!(error, expected);

    let ran = scratch.ingest_well(&pack(&["--output", "out", "--resume"]));
    assert!(ran.stdout.starts_with("already complete: 20 of 20 rows in 3 shards, "), "{}", ran.stdout);
    assert_eq!(scratch.files("out"), before);

    // With fewer shards than before: none of the old ones may stay.
    scratch.pairs(10);
    scratch.ingest_well(&pack(&["--output", "out", "--overwrite"]));
    assert!(!scratch.path("out/00002.tar").exists());
    assert_eq!(scratch.samples("out").len(), 10);
}

#[test]
fn resuming_with_other_settings_or_another_input_is_refused_by_name() {
    let scratch = Scratch::new();
    scratch.pairs(20);
    scratch.ingest_well(&pack(&["--output", "out"]));
    let error = scratch.ingest_refused(&pack(&["--output", "out", "--resume", "--max-file-bytes", "9999"]));
    let expected = "error: `out` was made in another way: max-file-bytes is 67108864 there and 9999 here\n";
    assert!(error.starts_with(expected), "{error}");
    scratch.pairs(21);
    let error = scratch.ingest_refused(&pack(&["--output", "out", "--resume"]));
    assert!(error.starts_with("error: `out` was made in another way: the input has changed\n"), "{error}");
}

#[test]
fn a_shard_that_changed_since_stops_a_resumed_run() {
    let scratch = Scratch::new();
    interrupted(&scratch, libc::SIGKILL);
    fs::write(scratch.path("out/00001.tar"), "short").unwrap();
    let error = scratch.ingest_refused(&pack(&["--output", "out", "--resume"]));
    assert!(error.starts_with("error: cannot resume in `out`: `00001.tar` has 5 bytes, "), "{error}");
    fs::remove_file(scratch.path("out/00001.tar")).unwrap();
    let error = scratch.ingest_refused(&pack(&["--output", "out", "--resume"]));
    assert!(error.starts_with("error: cannot resume in `out`: `00001.tar` is not there any more"), "{error}");
}

#[test]
fn tars_of_others_are_not_touched() {
    let scratch = Scratch::new();
    scratch.pairs(3);
    scratch.write("out/cc3m-0001.tar", "precious");
    for more in [&["--output", "out"][..], &["--output", "out", "--resume"]] {
        let error = scratch.ingest_refused(&pack(more));
        assert!(
            error.starts_with("error: `out` already holds `cc3m-0001.tar`\nhint: choose another folder"),
            "{error}"
        );
    }
    scratch.ingest_well(&pack(&["--output", "out", "--overwrite"]));
    assert_eq!(scratch.files("out")["cc3m-0001.tar"], b"precious");
}
