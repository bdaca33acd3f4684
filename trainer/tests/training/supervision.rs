//! Runs that a launcher starts again.

use std::fs;
use std::process::Command;

use fastclip_testkit::{Ranks, RunningRanks};
use fastclip_trainer::distributed::RESTARTS_VARIABLE;
use rustix::process::{Pid, Signal, kill_process};

use crate::setting::{
    ENDLESS, STOPPED, Setting, assert_close, assert_same_progress, assert_same_run, forget_launchers,
    newest_steps, stop_at, succeed, wait_for_checkpoint,
};

/// A launcher that starts failed ranks again at once.
fn supervised(setting: &Setting, name: &str, more: &[&str]) -> RunningRanks {
    Ranks::new(1).start(|_| {
        let mut command = setting.launched(name, 2);
        command.args(["--restart-delay", "0"]).args(more);
        command
    })
}

/// Finds the process of a rank among the children of its launcher, in one of the attempts.
fn find_rank(launcher: u32, rank: usize, attempt: usize) -> Option<Pid> {
    let wanted = [format!("RANK={rank}"), format!("{RESTARTS_VARIABLE}={attempt}")];
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let has =
            |wanted: &String| environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes());
        let is_it = parent == launcher && wanted.iter().all(has);
        is_it.then(|| Pid::from_raw(pid))?
    })
}

/// Waits for a rank of an attempt. All ranks of the attempt before have ended by then.
#[track_caller]
fn wait_for_rank(running: &mut RunningRanks, rank: usize, attempt: usize) -> Pid {
    let launcher = running.id(0);
    let mut found = None;
    running.wait_until("the rank", || {
        found = find_rank(launcher, rank, attempt);
        found.is_some()
    });
    found.unwrap()
}

fn kill(rank: Pid) {
    kill_process(rank, Signal::KILL).unwrap();
}

#[test]
fn killed_ranks_are_started_again_and_no_sample_is_lost_or_repeated() {
    let setting = Setting::new();
    let flags = [&ENDLESS[..], &["--max-restarts", "3", "--save-every-steps", "1"]].concat();
    let mut running = supervised(&setting, "killed", &flags);
    let checkpoints = setting.of_run("killed", "checkpoints");
    for (attempt, rank) in [1, 0, 0].into_iter().enumerate() {
        let rank = wait_for_rank(&mut running, rank, attempt);
        // The attempt must come further than the one before, however far that came: otherwise the launcher gives up.
        let before = newest_steps(&checkpoints);
        wait_for_checkpoint(&mut running, &checkpoints, before + 3);
        match attempt {
            2 => running.signal(0, "TERM"),
            _ => kill(rank),
        }
    }
    let finished = running.wait().remove(0).assert_code(STOPPED);
    finished.assert_says(&[
        "[launch] rank 1 was ended by signal 9 (SIGKILL); starting 2 ranks again from the checkpoint of step ",
        "(restart 1 of 3)",
        "[launch] rank 0 was ended by signal 9 (SIGKILL); starting 2 ranks again",
        "(restart 2 of 3)",
    ]);
    stop_at(setting.endless("whole"), newest_steps(&checkpoints));
    assert_same_progress(&setting, "whole", "killed");
}

/// Kills rank 1 twice after a step and before any checkpoint.
fn kill_twice_without_progress(setting: &Setting, running: &mut RunningRanks) {
    let metrics = setting.of_run("run", "metrics.jsonl");
    let events = setting.of_run("run", "tensorboard");
    for attempt in 0..2 {
        let rank = wait_for_rank(running, 1, attempt);
        running.wait_until("a step of the attempt", || {
            // An attempt has emptied the metrics of the one before when it adds its file of events.
            fs::read_dir(&events).is_ok_and(|files| files.count() > attempt)
                && fs::metadata(&metrics).is_ok_and(|file| file.len() > 0)
        });
        kill(rank);
    }
}

#[test]
fn a_run_that_fails_twice_without_a_checkpoint_is_given_up() {
    let setting = Setting::new();
    let flags = [&ENDLESS[..], &["--max-restarts", "9", "--save-frequency", "0"]].concat();
    let mut running = supervised(&setting, "run", &flags);
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
    // Evaluations leave time to kill it, though not to a test that is held up for all of the run. More epochs would, too,
    // but would also let sums in another order drift apart.
    let flags =
        ["--max-restarts", "9", "--min-ranks", "1", "--save-frequency", "0", "--val-every-steps", "1"];
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
    // Not endless: torchrun takes a rank that stops before the end of its run for one that failed.
    let length = ["--epochs", "12", "--val-frequency", "6"];
    let mut whole = setting.launched("whole", 2);
    whole.args(length);
    succeed(whole);
    let mut running = Ranks::new(1).start(|_| {
        let mut command: Command = fastclip_testkit::Python::with_torch().command();
        forget_launchers(&mut command);
        command.args(["-m", "torch.distributed.run", "--no-python", "--nproc-per-node", "2"]);
        // Behind `--`, as `--logs` looks like an option of torchrun's own.
        command.args(["--standalone", "--max-restarts", "1", "--", env!("CARGO_BIN_EXE_train"), "run"]);
        command.args(setting.flags("torchrun", 2)).args(length).args(["--save-every-steps", "4"]);
        command.current_dir(setting.path(""));
        command
    });
    let rank = wait_for_rank(&mut running, 1, 0);
    wait_for_checkpoint(&mut running, &setting.of_run("torchrun", "checkpoints"), 4);
    kill(rank);
    running.wait().remove(0).assert_code(0).assert_says(&["continuing after step "]);
    assert_same_run(&setting, "whole", "torchrun");
}
