use std::collections::BTreeMap;
use std::process::Stdio;

use fastclip_testkit::{WebAnswer, WebServer};

use crate::download::{IMPATIENCE, download, list};
use crate::support::{Ran, Scratch, jpeg, kill};

/// Everything that makes a dataset, less what says how long it took.
pub(crate) fn dataset(scratch: &Scratch, folder: &str) -> BTreeMap<String, Vec<u8>> {
    scratch.files(folder).into_iter().filter(|(name, _)| !name.ends_with("_stats.json")).collect()
}

/// Fetches all parts at once, each in a process of its own.
fn fetch_parts(scratch: &Scratch, output: &str, num_parts: usize) -> Vec<Ran> {
    let parts: Vec<String> = (1..=num_parts).map(|part| format!("{part}/{num_parts}")).collect();
    let processes = parts.iter().map(|part| {
        let mut command = scratch.command(&download(output, &["--part", part]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let processes: Vec<_> = processes.collect();
    processes.into_iter().map(|process| Ran::from(process.wait_with_output().unwrap())).collect()
}

#[test]
fn any_number_of_parts_gives_the_dataset_of_one_run() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 60);
    scratch.ingest_well(&download("whole", &[]));
    // Of 8 shards: all in one, in three of unlike size, one each, and more parts than shards.
    for num_parts in [1, 3, 8, 11] {
        let output = format!("out-{num_parts}");
        for ran in fetch_parts(&scratch, &output, num_parts) {
            assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
            assert!(
                ran.stdout.contains(&format!("\nwhen all parts are done: ingest finish {output}\n")),
                "{}",
                ran.stdout
            );
        }
        assert!(!scratch.path(&output).join("manifest.json").exists());
        let finished = scratch.ingest_well(&["finish", &output]).stdout;
        assert!(finished.starts_with("fetched 52 of 60 rows (86.7 %) in 8 shards, "), "{finished}");
        assert_eq!(dataset(&scratch, &output), dataset(&scratch, "whole"), "{num_parts} parts");
        assert!(!scratch.path(&output).join("download-state").exists());
        let again = scratch.ingest_well(&["finish", &output]).stdout;
        assert!(again.starts_with("already complete: "), "{again}");
    }
    scratch.ingest_well(&["verify", "out-3"]);
}

#[test]
fn a_dataset_that_lacks_parts_says_what_makes_them() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 60);
    let error = scratch.ingest_refused(&["finish", "."]);
    assert_eq!(error, "error: `.` holds no download that was begun\nhint: begin with `ingest download`\n");
    for part in ["2/4", "4/4"] {
        scratch.ingest_well(&download("out", &["--part", part]));
    }
    let error = scratch.ingest_refused(&["finish", "out"]);
    let (said, hint) = error.split_once("\nhint: ").unwrap();
    assert_eq!(said, "error: `out` lacks 4 of 8 shards: 00000, 00001, 00004, 00005");
    let command = hint
        .strip_prefix("run `ingest ")
        .unwrap()
        .strip_suffix(" --part 1/4`, and the same with 3/4\n")
        .unwrap();
    for part in ["1/4", "3/4"] {
        let words: Vec<&str> = command.split(' ').chain(["--part", part]).collect();
        scratch.ingest_well(&words);
    }
    scratch.ingest_well(&["finish", "out"]);
    assert_eq!(server.num_requests("/0.jpg"), 1);
}

#[test]
fn one_run_completes_what_parts_began() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 60);
    scratch.ingest_well(&download("whole", &[]));
    scratch.ingest_well(&download("out", &["--part", "2/3"]));
    let ran = scratch.ingest_well(&download("out", &["--part", "2/3"])).stdout;
    assert!(ran.starts_with("part 2/3: already complete: "), "{ran}");
    scratch.ingest_well(&download("out", &[]));
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "whole"));
    // Row 23 is in the second part, row 0 is not.
    assert_eq!((server.num_requests("/0.jpg"), server.num_requests("/23.jpg")), (2, 2));
}

#[test]
fn a_part_that_is_fetched_twice_at_once_harms_nothing() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 60);
    scratch.ingest_well(&download("whole", &[]));
    let processes: Vec<_> = (0..4)
        .map(|_| {
            let mut command = scratch.command(&download("out", &["--part", "1/1"]));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for process in processes {
        let ran = Ran::from(process.wait_with_output().unwrap());
        // One that comes too late says so, unless it has nothing to do any more; one whose files another removed breaks.
        assert!(matches!(ran.code, Some(0 | 2)), "{}{}", ran.stdout, ran.stderr);
    }
    scratch.ingest_well(&download("out", &["--part", "1/1"]));
    scratch.ingest_well(&["finish", "out"]);
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "whole"));
}

#[test]
fn files_of_two_processes_are_not_mixed() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 16);
    scratch.ingest_well(&download("whole", &[]));
    scratch.ingest_well(&download("out", &["--part", "1/1"]));
    // As if another process had been killed after it replaced the first shard.
    let mut tar = scratch.files("out")["00000.tar"].clone();
    tar[600] ^= 1;
    scratch.write("out/00000.tar", tar);
    scratch.write("out/download-state/writing/00000-0123456789abcdef", "process 1\n");
    let error = scratch.ingest_refused(&["finish", "out"]);
    assert!(
        error.starts_with("error: `out` lacks 1 of 2 shards: 00000\nhint: run `ingest download "),
        "{error}"
    );
    scratch.ingest_well(&download("out", &["--part", "1/1"]));
    scratch.ingest_well(&["finish", "out"]);
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "whole"));
}

/// Fetches a list while another process, which claimed the first shard before this one, publishes it after this one. Gives how it ended.
fn fetch_beside_another(scratch: &Scratch, server: &WebServer, is_mixed: bool) -> Ran {
    list(scratch, server, 16);
    scratch.ingest_well(&download("whole", &[]));
    // Another answer than this one has.
    server.answer("/0.jpg", WebAnswer::Body(jpeg(99)));
    scratch.ingest_well(&download("other", &["--part", "1/1"]));
    server.answer("/0.jpg", WebAnswer::Body(jpeg(0)));
    server.answer("/15.jpg", WebAnswer::Silence);
    let mut command = scratch.command(&download("out", &IMPATIENCE));
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !scratch.path("out/download-state/00000.json").exists() {
        assert!(process.try_wait().unwrap().is_none(), "it waits for the last row");
        std::thread::yield_now();
    }
    scratch.write("out/download-state/writing/00000-0123456789abcdef", "process 1\n");
    for file in ["00000.tar", "00000.idx", "00000.parquet", "download-state/00000.json"] {
        // The tar of one and the record of the other do not go together.
        if !(is_mixed && file == "00000.tar") {
            std::fs::copy(scratch.path("other").join(file), scratch.path("out").join(file)).unwrap();
        }
    }
    server.answer("/15.jpg", WebAnswer::Body(jpeg(15)));
    Ran::from(process.wait_with_output().unwrap())
}

#[test]
fn the_manifest_has_what_was_published_last() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    let ran = fetch_beside_another(&scratch, &server, false);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    scratch.ingest_well(&["verify", "out"]);
    scratch.ingest_well(&["finish", "other"]);
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "other"));
}

#[test]
fn a_run_does_not_complete_a_dataset_of_mixed_shards() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    let ran = fetch_beside_another(&scratch, &server, true);
    assert_eq!(ran.code, Some(2), "{}{}", ran.stdout, ran.stderr);
    let expected = "error: another process has written to `out` at the same time, which mixed shards: 00000\nhint: let only";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    scratch.ingest_well(&download("out", &[]));
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "whole"));
}

#[test]
fn a_process_that_was_forgotten_leaves_a_finished_dataset_alone() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 16);
    // The first process waits for the last row, with its shard open.
    server.answer("/15.jpg", WebAnswer::Silence);
    let mut command = scratch.command(&download("out", &[&["--part", "2/2"][..], &IMPATIENCE].concat()));
    let mut forgotten = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while server.num_requests("/15.jpg") == 0 {
        assert!(forgotten.try_wait().unwrap().is_none(), "it waits for the last row");
        std::thread::yield_now();
    }
    assert_eq!(kill(&forgotten, libc::SIGSTOP), 0);
    server.answer("/15.jpg", WebAnswer::Body(jpeg(15)));
    // Another answer than the first process had.
    server.answer("/8.jpg", WebAnswer::Body(jpeg(99)));
    for part in ["1/2", "2/2"] {
        scratch.ingest_well(&download("out", &["--part", part]));
    }
    scratch.ingest_well(&["finish", "out"]);
    let before = dataset(&scratch, "out");
    assert_eq!(kill(&forgotten, libc::SIGCONT), 0);
    let ran = Ran::from(forgotten.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(2), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("error: another process has written shard 1 of `out` in the meantime\nhint: "),
        "{}",
        ran.stderr
    );
    assert_eq!(dataset(&scratch, "out"), before);
    scratch.ingest_well(&["verify", "out"]);
}

#[test]
fn parts_with_other_settings_do_not_mix() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 16);
    scratch.ingest_well(&download("out", &["--part", "1/2"]));
    let error = scratch.ingest_refused(&download("out", &["--part", "2/2", "--encode-quality", "80"]));
    assert!(error.contains("encode-quality is 95 there and 80 here"), "{error}");
    // Two that begin at the same moment see nothing of each other.
    scratch.ingest_well(&download("other", &["--part", "2/2", "--encode-quality", "80"]));
    for file in ["00001.tar", "00001.idx", "00001.parquet", "download-state/00001.json"] {
        std::fs::copy(scratch.path("other").join(file), scratch.path("out").join(file)).unwrap();
    }
    let error = scratch.ingest_refused(&["finish", "out"]);
    assert!(error.contains("`download-state/00001.json` belongs to other settings"), "{error}");
}

#[test]
fn a_part_does_not_overwrite() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 16);
    let error = scratch.ingest_refused(&download("out", &["--part", "1/2", "--overwrite"]));
    assert!(error.contains("cannot be used with"), "{error}");
    let mut command = scratch.command(&download("out", &["--overwrite"]));
    command.envs([("AWS_BATCH_JOB_ARRAY_INDEX", "0"), ("AWS_BATCH_JOB_ARRAY_SIZE", "2")]);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("error: `out` cannot be overwritten by a part of a run\nhint: empty"),
        "{}",
        ran.stderr
    );
}

#[test]
fn schedulers_name_the_part() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 24);
    scratch.ingest_well(&download("whole", &[]));
    let slurm =
        [("SLURM_ARRAY_TASK_MIN", "5"), ("SLURM_ARRAY_TASK_MAX", "7"), ("SLURM_ARRAY_TASK_COUNT", "3")];
    let tasks: [(&str, &[(&str, &str)]); 3] = [
        ("1/3", &[&slurm[..], &[("SLURM_ARRAY_TASK_ID", "5")]].concat()),
        ("2/3", &[("AWS_BATCH_JOB_ARRAY_INDEX", "1"), ("AWS_BATCH_JOB_ARRAY_SIZE", "3")]),
        ("3/3", &[("JOB_COMPLETION_INDEX", "2"), ("INGEST_NUM_PARTS", "3")]),
    ];
    for (part, variables) in tasks {
        let mut command = scratch.command(&download("out", &[]));
        let ran = Ran::from(command.envs(variables.iter().copied()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stderr.starts_with(&format!("fetching part {part}, as ")), "{}", ran.stderr);
        assert!(ran.stdout.starts_with(&format!("part {part}: fetched ")), "{}", ran.stdout);
    }
    scratch.ingest_well(&["finish", "out"]);
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "whole"));
    let mut command = scratch.command(&download("out-2", &[]));
    let ran = Ran::from(command.env("SLURM_ARRAY_TASK_ID", "3").output().unwrap());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.ends_with("hint: say --part I/N, or --part all for the whole list\n"),
        "{}",
        ran.stderr
    );
}
