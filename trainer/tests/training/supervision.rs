//! Runs that a launcher starts again.

use std::fs;
use std::process::Command;

use fastclip_testkit::{Ranks, RunningRanks};
use rustix::process::{Pid, Signal, kill_process};

use crate::setting::{Setting, assert_close, assert_same_run, succeed};

/// A launcher that starts failed ranks again at once.
fn supervised(setting: &Setting, name: &str, more: &[&str]) -> RunningRanks {
    Ranks::new(1).start(|_| {
        let mut command = setting.train("launch");
        command.args(["--ranks", "2", "--restart-delay", "0"]).args(setting.flags(name, 2)).args(more);
        command
    })
}

/// Finds the process of a rank among the children of its launcher.
fn find_rank(launcher: u32, rank: usize) -> Option<Pid> {
    let wanted = format!("RANK={rank}").into_bytes();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let is_it = parent == launcher && environment.split(|&byte| byte == 0).any(|entry| entry == wanted);
        is_it.then(|| Pid::from_raw(pid))?
    })
}

/// Kills a rank as soon as `is_time`, and only then.
fn kill_rank(running: &mut RunningRanks, rank: usize, what: &str, is_time: impl Fn() -> bool) -> Pid {
    let launcher = running.id(0);
    let mut found = None;
    running.wait_until(what, || {
        found = find_rank(launcher, rank);
        found.is_some() && is_time()
    });
    let pid = found.unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    pid
}

#[test]
fn killed_ranks_are_started_again_and_no_sample_is_lost_or_repeated() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    let mut running = supervised(&setting, "killed", &["--max-restarts", "3", "--save-every-steps", "1"]);
    for (rank, step) in [(1, "step_00000003"), (0, "step_00000008")] {
        let checkpoint = setting.of_run("killed", "checkpoints").join(step);
        kill_rank(&mut running, rank, step, || checkpoint.exists());
    }
    let finished = running.wait().remove(0).assert_code(0);
    finished.assert_says(&[
        "[launch] rank 1 was ended by signal 9 (SIGKILL); starting 2 ranks again from the checkpoint of step ",
        "(restart 1 of 3)",
        "[launch] rank 0 was ended by signal 9 (SIGKILL); starting 2 ranks again",
        "(restart 2 of 3)",
    ]);
    assert_same_run(&setting, "whole", "killed");
}

/// Kills rank 1 twice after a step and before any checkpoint.
fn kill_twice_without_progress(setting: &Setting, running: &mut RunningRanks) {
    let metrics = setting.of_run("run", "metrics.jsonl");
    let mut last = None;
    for time in ["a step", "a step of the second attempt"] {
        let launcher = running.id(0);
        running.wait_until(time, || find_rank(launcher, 1).is_some_and(|pid| Some(pid) != last));
        // The second attempt begins its metrics anew, which removes what the first left.
        let _ = fs::remove_file(&metrics);
        last = Some(kill_rank(running, 1, time, || fs::metadata(&metrics).is_ok_and(|file| file.len() > 0)));
    }
}

#[test]
fn a_run_that_fails_twice_without_a_checkpoint_is_given_up() {
    let setting = Setting::new();
    let mut running =
        supervised(&setting, "run", &["--max-restarts", "9", "--save-frequency", "0", "--epochs", "40"]);
    kill_twice_without_progress(&setting, &mut running);
    let finished = running.wait().remove(0).assert_code(137);
    finished.assert_says(&[
        "starting 2 ranks again from the start, in 0 s (restart 1 of 9)",
        "giving up, since no checkpoint was written between this failure and the one before",
    ]);
}

#[test]
fn a_rank_that_fails_again_and_again_is_left_out() {
    let setting = Setting::new();
    succeed(setting.alone("whole"));
    let flags = ["--max-restarts", "9", "--min-ranks", "1", "--save-frequency", "0"];
    let mut running = supervised(&setting, "run", &flags);
    kill_twice_without_progress(&setting, &mut running);
    let finished = running.wait().remove(0).assert_code(0);
    finished.assert_says(&["going on without it, on 1 of 2 ranks", "starting 1 ranks again from the start"]);
    assert_close(&setting.curve("run", "loss"), &setting.curve("whole", "loss"));
}

#[test]
fn an_input_that_is_refused_is_not_tried_again() {
    let setting = Setting::new();
    let running = supervised(&setting, "run", &["--max-restarts", "9", "--val-data", "nowhere"]);
    let finished = running.wait().remove(0);
    assert!(!finished.stderr.contains("again"), "{finished}");
}

#[test]
fn torchrun_starts_killed_ranks_again_from_their_checkpoint() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    let mut running = Ranks::new(1).start(|_| {
        let mut command: Command = fastclip_testkit::Python::with_torch().command();
        command.args(["-m", "torch.distributed.run", "--no-python", "--nproc-per-node", "2"]);
        // Behind `--`, as `--logs` looks like an option of torchrun's own.
        command.args(["--standalone", "--max-restarts", "1", "--", env!("CARGO_BIN_EXE_train"), "run"]);
        command.args(setting.flags("torchrun", 2)).args(["--save-every-steps", "1"]);
        command.current_dir(setting.path(""));
        command
    });
    let checkpoint = setting.of_run("torchrun", "checkpoints/step_00000004");
    kill_rank(&mut running, 1, "the checkpoint", || checkpoint.exists());
    running.wait().remove(0).assert_code(0).assert_says(&["continuing after step "]);
    assert_same_run(&setting, "whole", "torchrun");
}
