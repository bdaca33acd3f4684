//! Storage that fails while a run writes checkpoints: the run goes on, says so, and what was complete stays so.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use fastclip_testkit::{Ranks, RunningRanks, S3Fault, S3Server, run};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::setting::{Setting, assert_same_run, succeed};

const GOES_ON: &str = "and the run goes on; the last complete one: ";

fn rank(setting: &Setting, mut command: Command) -> Command {
    command.args(setting.flags("faulty", 2)).args(["--save-every-steps", "2", "--epochs", "16"]);
    command.args(["--val-frequency", "0"]);
    command
}

fn wait_for_checkpoint(ranks: &mut RunningRanks, checkpoints: &Path, than: u64) -> u64 {
    let newest = || {
        let name = fs::read_to_string(checkpoints.join("latest")).unwrap_or_default();
        name.trim().strip_prefix("step_").and_then(|steps| steps.parse::<u64>().ok()).unwrap_or(0)
    };
    ranks.wait_until("a checkpoint", || newest() > than);
    newest()
}

/// How many checkpoints could not be written, by the last line of the metrics.
fn num_failed(setting: &Setting) -> u64 {
    let text = fs::read_to_string(setting.of_run("faulty", "metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let counts = records.filter_map(|record| record["timing"]["checkpoints"]["failed"].as_u64());
    counts.last().unwrap()
}

fn whole(setting: &Setting) {
    let mut command = setting.launched("whole", 2);
    command.args(["--epochs", "16", "--val-frequency", "0"]);
    succeed(command);
}

#[test]
fn a_full_disk_costs_checkpoints_and_metrics_but_not_the_run() {
    let setting = Setting::new();
    whole(&setting);
    // A limit on the size of files fails writes where a full disk would, in every file and at every byte, and can be taken
    // back. What a process gets beside the error, a signal, is ignored by the shell for it.
    let mut ranks = Ranks::new(2).start(|_| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_train"), "run"]);
        shell.current_dir(setting.path(""));
        rank(&setting, shell)
    });
    let checkpoints = setting.of_run("faulty", "checkpoints");
    wait_for_checkpoint(&mut ranks, &checkpoints, 1);
    let pid = Pid::from_raw(ranks.id(0) as i32);
    let limit = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(100));
    ranks.wait_for_line(0, |line| line.contains(GOES_ON));
    ranks.wait_for_line(0, |line| line.contains("the run goes on, although it can not be recorded"));
    let last = fs::read_to_string(checkpoints.join("latest")).unwrap();
    assert!(checkpoints.join(last.trim()).join("checkpoint.json").exists());
    let steps: u64 = last.trim().strip_prefix("step_").unwrap().parse().unwrap();
    limit(None);
    wait_for_checkpoint(&mut ranks, &checkpoints, steps);
    ranks.wait_until("metrics", || {
        fs::read_to_string(setting.of_run("faulty", "metrics.jsonl")).unwrap().contains(r#""failed":"#)
    });
    ranks.kill_all();
    ranks.wait();
    assert!(num_failed(&setting) > 0);
    // Lines that the disk did not take are lost with the steps before the next checkpoint; weights are not.
    for finished in Ranks::new(2).start(|_| rank(&setting, setting.train("run"))).wait() {
        finished.assert_code(0);
    }
    let file = "open_clip_model.safetensors";
    assert!(setting.newest("whole", file) == setting.newest("faulty", file), "{file} differs");
}

/// A program whose user may not do everything, even if the test's may.
fn without_privileges(program: &str) -> Command {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let none = "-dac_override,-dac_read_search,-fowner";
    command.arg(format!("--bounding-set={none}")).arg(format!("--inh-caps={none}")).arg(program);
    command
}

#[test]
fn a_folder_that_may_not_be_written_any_more_costs_checkpoints_but_not_the_run() {
    let setting = Setting::new();
    whole(&setting);
    let mut ranks = Ranks::new(2).start(|_| {
        let mut command = without_privileges(env!("CARGO_BIN_EXE_train"));
        command.arg("run").current_dir(setting.path(""));
        rank(&setting, command)
    });
    let checkpoints = setting.of_run("faulty", "checkpoints");
    wait_for_checkpoint(&mut ranks, &checkpoints, 1);
    let allow = |mode| fs::set_permissions(&checkpoints, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let told = ranks.wait_for_line(0, |line| line.contains("could not be written, and the run goes on"));
    assert!(told.contains("Permission denied"), "{told}");
    ranks.wait_for_line(0, |line| line.contains(GOES_ON));
    let last = fs::read_to_string(checkpoints.join("latest")).unwrap();
    let steps: u64 = last.trim().strip_prefix("step_").unwrap().parse().unwrap();
    assert!(checkpoints.join(last.trim()).join("checkpoint.json").exists());
    allow(0o755);
    wait_for_checkpoint(&mut ranks, &checkpoints, steps);
    for finished in ranks.wait() {
        finished.assert_code(0);
    }
    assert!(num_failed(&setting) > 0);
    assert_same_run(&setting, "whole", "faulty");
}

#[test]
fn a_folder_that_can_not_be_written_is_refused_before_the_first_step() {
    let setting = Setting::new();
    fs::create_dir(setting.path("readonly")).unwrap();
    fs::set_permissions(setting.path("readonly"), fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = without_privileges(env!("CARGO_BIN_EXE_train"));
    command.arg("run").current_dir(setting.path("")).args(setting.flags("run", 1));
    command.args(["--checkpoint-dir", "readonly"]);
    run(&mut command)
        .assert_code(1)
        .assert_says(&["could not keep checkpoints in `readonly/run`", "Permission denied"]);
}

#[test]
fn a_bucket_that_fails_costs_checkpoints_but_not_the_run() {
    let setting = Setting::new();
    whole(&setting);
    for fault in [S3Fault::InternalError, S3Fault::CutAfter(0), S3Fault::Denied] {
        let server = S3Server::start();
        let mut ranks = Ranks::new(2).start(|_| {
            let mut command = rank(&setting, setting.train("run"));
            command.args(["--checkpoint-dir", &server.location("checkpoints"), "--resume", "none"]);
            command.envs(server.environment()).env("OBJECT_STORE_MAX_RETRIES", "1");
            command
        });
        let checkpoints = server.file("checkpoints/faulty");
        wait_for_checkpoint(&mut ranks, &checkpoints, 1);
        // From now on nothing is taken.
        server.inject(move |request| (!request.is_get).then_some(fault));
        ranks.wait_for_line(0, |line| line.contains(GOES_ON));
        let last = fs::read_to_string(checkpoints.join("latest")).unwrap();
        let steps: u64 = last.trim().strip_prefix("step_").unwrap().parse().unwrap();
        // What is named is whole, by the digests that are compared when it is read.
        let named = server.location(&format!("checkpoints/faulty/{}", last.trim()));
        let mut other = setting.launched(&format!("other-{steps}-{fault:?}"), 2);
        other.args(["--epochs", "16", "--val-frequency", "0", "--resume", &named]).envs(server.environment());
        other.args(["--stop-after", &(steps + 1).to_string()]);
        run(&mut other)
            .assert_code(75)
            .assert_says(&[&format!("continuing after step {steps} from {named}")]);
        server.inject(|_| None);
        wait_for_checkpoint(&mut ranks, &checkpoints, steps);
        for finished in ranks.wait() {
            finished.assert_code(0);
        }
        assert!(num_failed(&setting) > 0, "{fault:?}");
        let newest = fs::read_to_string(checkpoints.join("latest")).unwrap();
        let file = "open_clip_model.safetensors";
        let found = fs::read(checkpoints.join(newest.trim()).join(file)).unwrap();
        assert!(setting.newest("whole", file) == found, "{fault:?}: {file} differs");
    }
}
