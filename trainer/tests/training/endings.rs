//! Sessions that end before their run does.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastclip_testkit::{Ranks, run};

use crate::setting::{Setting, assert_same_run, succeed};

/// Exit code of a session that stopped with a checkpoint.
const STOPPED: i32 = 75;

/// Waits for a file that a process is expected to write; the time bounds a test that has failed.
fn wait_for(setting: &Setting, name: &str, file: &str) {
    let started = Instant::now();
    while !setting.of_run(name, file).exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "`{file}` was not written");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_to_the_launcher_ends_all_ranks_with_a_checkpoint_and_the_run_continues() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    for signal in ["TERM", "INT", "USR1"] {
        let name = format!("stopped-by-{signal}");
        let mut stopped = setting.launched(&name, 2);
        let child = stopped.stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&setting, &name, "metrics.jsonl");
        let mut kill = Command::new("kill");
        assert!(kill.args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(STOPPED), "{text}");
        assert!(text.contains(&format!("as SIG{signal} asked; the same command continues from")), "{text}");
        assert!(setting.of_run(&name, "checkpoints/latest").exists());
        succeed(setting.launched(&name, 2));
        assert_same_run(&setting, "whole", &name);
    }
}

#[test]
fn a_signal_to_one_rank_ends_all_after_the_same_step() {
    let setting = Setting::new();
    let mut ranks = Ranks::new(2).start(|_| {
        let mut command = setting.train("run");
        command.args(setting.flags("run", 2));
        command
    });
    let metrics = setting.of_run("run", "metrics.jsonl");
    ranks.wait_until("a step", || fs::metadata(&metrics).is_ok_and(|metrics| metrics.len() > 0));
    ranks.signal(1, "USR1");
    for finished in ranks.wait() {
        finished.assert_code(STOPPED);
    }
    assert!(setting.of_run("run", "checkpoints/latest").exists());
}

#[test]
fn sessions_of_one_epoch_each_come_to_the_same_end() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    let session = |code: i32| {
        let mut command = setting.launched("chained", 2);
        command.args(["--stop-after", "1epoch"]);
        run(&mut command).assert_code(code)
    };
    session(STOPPED).assert_says(&["stopped after step 5, as --stop-after asked"]);
    session(STOPPED).assert_says(&["continuing after step 5 from", "stopped after step 10"]);
    session(0).assert_says(&["the run is complete"]);
    assert_same_run(&setting, "whole", "chained");
}

#[test]
fn a_time_limit_ends_a_session_with_a_checkpoint_of_the_step_that_passed_it() {
    let setting = Setting::new();
    let mut command = setting.launched("run", 2);
    command.args(["--time-limit", "1ms"]);
    run(&mut command).assert_code(STOPPED).assert_says(&["as --time-limit asked"]);
    assert!(setting.of_run("run", "checkpoints/step_00000001/checkpoint.json").exists());
}

#[test]
fn a_step_count_that_ends_the_run_is_its_end() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    command.args(["--stop-after", "3epochs"]);
    run(&mut command).assert_code(0).assert_says(&["the run is complete"]);
}
