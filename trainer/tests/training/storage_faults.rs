//! Storage that fails while a run writes checkpoints: the run goes on, says so, and what was complete stays so.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use fastclip_testkit::{Ranks, S3Fault, S3Server, run};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::setting::{
    ENDLESS, STOPPED, Setting, assert_same_progress, forget_launchers, newest_steps, stop_at,
    wait_for_checkpoint,
};

const GOES_ON: &str = "and the run goes on; the last complete one: ";

fn rank(setting: &Setting, mut command: Command) -> Command {
    command.args(setting.flags("faulty", 2)).args(ENDLESS);
    command.args(["--save-every-steps", "2", "--val-frequency", "0"]);
    command
}

/// Whether the checkpoint of so many steps is complete.
fn is_complete(checkpoints: &Path, steps: u64) -> bool {
    checkpoints.join(format!("step_{steps:08}/checkpoint.json")).exists()
}

/// How many checkpoints could not be written, by the last line of the metrics that says so.
fn num_failed(setting: &Setting) -> u64 {
    let text = fs::read_to_string(setting.of_run("faulty", "metrics.jsonl")).unwrap();
    // The last line of a run that goes on may be a half.
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut counts = records.filter_map(|record| record["timing"]["checkpoints"]["failed"].as_u64());
    counts.next_back().unwrap_or(0)
}

/// The same run without faults, up to the step at which the faulty one stands.
fn whole(setting: &Setting, name: &str, steps: u64) {
    let mut command = setting.endless(name);
    command.args(["--val-frequency", "0"]);
    stop_at(command, steps);
}

#[test]
fn a_full_disk_costs_checkpoints_and_metrics_but_not_the_run() {
    let setting = Setting::new();
    // A limit on the size of files fails writes where a full disk would, in every file and at every byte, and can be taken
    // back. What a process gets beside the error, a signal, is ignored by the shell for it.
    let mut ranks = Ranks::new(2).start(|_| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_train"), "run"]);
        shell.current_dir(setting.path(""));
        forget_launchers(&mut shell);
        rank(&setting, shell)
    });
    let checkpoints = setting.of_run("faulty", "checkpoints");
    wait_for_checkpoint(&mut ranks, &checkpoints, 1);
    let pid = Pid::from_raw(ranks.id(0) as i32);
    let limit = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(100));
    ranks.wait_for_line(0, |line| line.contains(GOES_ON));
    ranks.wait_for_line(0, |line| line.contains("the run goes on, although it can not be recorded"));
    let last = newest_steps(&checkpoints);
    assert!(is_complete(&checkpoints, last));
    limit(None);
    wait_for_checkpoint(&mut ranks, &checkpoints, last + 1);
    ranks.wait_until("metrics that count failures", || num_failed(&setting) > 0);
    ranks.kill_all();
    ranks.wait();
    // Lines that the disk did not take are lost with the steps before the next checkpoint; weights are not.
    let steps = newest_steps(&checkpoints) + 4;
    let continued = Ranks::new(2).start(|_| {
        let mut command = rank(&setting, setting.train("run"));
        command.args(["--stop-after", &steps.to_string()]);
        command
    });
    for finished in continued.wait() {
        finished.assert_code(STOPPED);
    }
    whole(&setting, "whole", steps);
    let file = "open_clip_model.safetensors";
    assert!(setting.newest("whole", file) == setting.newest("faulty", file), "{file} differs");
}

/// A program whose user may not do everything, even if the test's may.
fn without_privileges(program: &str) -> Command {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(if is_root { "setpriv" } else { program });
    if is_root {
        let none = "-dac_override,-dac_read_search,-fowner";
        command.arg(format!("--bounding-set={none}")).arg(format!("--inh-caps={none}")).arg(program);
    }
    forget_launchers(&mut command);
    command
}

#[test]
fn a_folder_that_may_not_be_written_any_more_costs_checkpoints_but_not_the_run() {
    let setting = Setting::new();
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
    let last = newest_steps(&checkpoints);
    assert!(is_complete(&checkpoints, last));
    allow(0o755);
    wait_for_checkpoint(&mut ranks, &checkpoints, last + 1);
    ranks.signal(0, "TERM");
    for finished in ranks.wait() {
        finished.assert_code(STOPPED);
    }
    assert!(num_failed(&setting) > 0);
    whole(&setting, "whole", newest_steps(&checkpoints));
    assert_same_progress(&setting, "whole", "faulty");
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
    for fault in [S3Fault::InternalError, S3Fault::CutAfter(0), S3Fault::Denied] {
        let server = S3Server::start();
        let mut ranks = Ranks::new(2).start(|_| {
            let mut command = rank(&setting, setting.train("run"));
            command.args(["--checkpoint-dir", &server.location("checkpoints"), "--resume", "none"]);
            // Time-outs run on while the ranks are held below.
            command.args(["--dist-timeout", "600"]);
            command.envs(server.environment()).env("OBJECT_STORE_MAX_RETRIES", "1");
            command
        });
        let checkpoints = server.file("checkpoints/faulty");
        wait_for_checkpoint(&mut ranks, &checkpoints, 1);
        // From now on nothing is taken.
        server.inject(move |request| (!request.is_get).then_some(fault));
        ranks.wait_for_line(0, |line| line.contains(GOES_ON));
        let last = newest_steps(&checkpoints);
        // Every step that the run takes meanwhile would have to be taken by the one that it is compared with.
        let hold = |signal| [0, 1].iter().for_each(|&rank| ranks.signal(rank, signal));
        hold("STOP");
        // What is named is whole, by the digests that are compared when it is read.
        let named = server.location(&format!("checkpoints/faulty/step_{last:08}"));
        let mut other = setting.endless(&format!("other-{fault:?}"));
        other.args(["--val-frequency", "0", "--resume", &named]).envs(server.environment());
        stop_at(other, last + 1).assert_says(&[&format!("continuing after step {last} from {named}")]);
        server.inject(|_| None);
        hold("CONT");
        wait_for_checkpoint(&mut ranks, &checkpoints, last + 1);
        ranks.signal(0, "TERM");
        for finished in ranks.wait() {
            finished.assert_code(STOPPED);
        }
        assert!(num_failed(&setting) > 0, "{fault:?}");
        let (name, steps) = (format!("whole-{fault:?}"), newest_steps(&checkpoints));
        whole(&setting, &name, steps);
        let file = "open_clip_model.safetensors";
        let found = fs::read(checkpoints.join(format!("step_{steps:08}")).join(file)).unwrap();
        assert!(setting.newest(&name, file) == found, "{fault:?}: {file} differs");
    }
}
