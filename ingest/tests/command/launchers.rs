//! What `scripts/launch` hands to schedulers, run without them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastclip_testkit::{Python, WebServer};
use serde_json::Value;

use crate::download::{download, list};
use crate::parts::dataset;
use crate::support::{Ran, Scratch};

/// Runs at once what Slurm would run later: all tasks of an array at the same time.
const SBATCH: &str = r#"#!/usr/bin/env bash
set -euo pipefail
while [[ $1 == --* ]]; do
    case $1 in
        --array=*) array=${1#*=} ;;
        --export=ALL,*) export "${1#--export=ALL,}" ;;
        --parsable | --dependency=afterany:7) ;;
        *) echo "unknown: $1" >&2 && exit 1 ;;
    esac
    shift
done
export SLURM_JOB_ID=7
if [ -n "${array:-}" ]; then
    for task in $(seq "${array%-*}" "${array#*-}"); do SLURM_ARRAY_TASK_ID=$task "$@" >&2 & done
    wait
else
    "$@"
fi
echo "7;cluster"
"#;

fn launch_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/launch")
}

/// As it is run on a login node, also where this test is a job itself.
fn slurm_script() -> Command {
    let mut command = Command::new(launch_folder().join("ingest.slurm"));
    command.env_remove("SLURM_JOB_ID");
    command
}

/// A folder for PATH with these programs and `ingest`.
fn programs(scratch: &Scratch, programs: &[(&str, &str)]) -> String {
    for (name, text) in programs {
        let path = scratch.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::create_dir_all(scratch.path("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ingest"), scratch.path("bin/ingest")).unwrap();
    format!("{}:{}", scratch.path("bin").display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_slurm_script_fetches_parts_and_finishes() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 40);
    scratch.ingest_well(&download("whole", &[]));
    let path = programs(&scratch, &[("sbatch", SBATCH), ("srun", "#!/bin/sh\nexec \"$@\"\n")]);
    let mut command = slurm_script();
    let arguments = download("out", &[]);
    command.arg("3").args(&arguments[1..]).current_dir(scratch.path("")).env("PATH", path);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    for part in ["part 1/3: fetched ", "part 2/3: fetched ", "part 3/3: fetched "] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    assert!(ran.stdout.starts_with("fetched 35 of 40 rows (87.5 %) in 5 shards"), "{}", ran.stdout);
    assert_eq!(dataset(&scratch, "out"), dataset(&scratch, "whole"));
    let mut command = slurm_script();
    let ran = Ran::from(command.arg("--input").output().unwrap());
    assert!(ran.code == Some(1) && ran.stderr.starts_with("Usage: "), "{}", ran.stderr);
}

/// The command of the container of a job, with another input and output, and what its environment sets.
fn container<'a>(job: &'a Value, list: &str, output: &str) -> (Vec<String>, Vec<(&'a str, &'a str)>) {
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let words = container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let command = words.map(|word| match word.split_once('=') {
        Some(("--input", _)) => format!("--input={list}"),
        Some(("--output", _)) => format!("--output={output}"),
        Some(("--url-col", _)) => "--url-col=url".to_owned(),
        Some(("--caption-col", _)) => "--caption-col=caption".to_owned(),
        _ if word.starts_with("s3://") => output.to_owned(),
        _ => word.to_owned(),
    });
    let variables = container["env"].as_array().into_iter().flatten();
    let variables = variables.map(|set| (set["name"].as_str().unwrap(), set["value"].as_str().unwrap()));
    (command.collect(), variables.collect())
}

#[test]
fn the_kubernetes_jobs_fetch_parts_and_finish() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 10);
    let script = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let jobs = Python::new().run(script, &[launch_folder().join("ingest-kubernetes.yaml")]);
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let (fetching, finishing) = (&jobs[0], &jobs[1]);
    assert_eq!(fetching["spec"]["completionMode"], "Indexed");
    let (command, variables) = container(fetching, "list.csv", "out");
    let num_parts = fetching["spec"]["completions"].as_u64().unwrap();
    assert_eq!(fetching["spec"]["parallelism"], num_parts);
    assert_eq!(variables, [("INGEST_NUM_PARTS", num_parts.to_string().as_str())]);
    // One row a shard, and nearly all of the pods have nothing to do.
    let more = ["--allow-private-hosts", "--number-sample-per-shard", "1", "--retries", "0"];
    let words: Vec<&str> = command[1..].iter().map(String::as_str).chain(more).collect();
    for index in 0..num_parts {
        let mut pod = scratch.command(&words);
        pod.env("JOB_COMPLETION_INDEX", index.to_string()).envs(variables.iter().copied());
        let ran = Ran::from(pod.output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let (command, _) = container(finishing, "", "out");
    assert_eq!(command, ["ingest", "finish", "out"]);
    let ran = scratch.ingest_well(&["finish", "out"]);
    assert!(ran.stdout.starts_with("fetched 9 of 10 rows"), "{}", ran.stdout);
}
