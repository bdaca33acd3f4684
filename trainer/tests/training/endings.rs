//! Sessions that end before their run does.

use std::fs;

use fastclip_testkit::{Ranks, run};

use crate::setting::{
    ENDLESS, STOPPED, Setting, assert_same_progress, assert_same_run, newest_steps, stop_at, succeed,
};

#[test]
fn a_signal_to_the_launcher_ends_all_ranks_with_a_checkpoint_and_the_run_continues() {
    let setting = Setting::new();
    let mut steps = 0;
    let stopped = ["TERM", "INT", "USR1"].map(|signal| {
        let name = format!("stopped-by-{signal}");
        let mut launcher = Ranks::new(1).start(|_| setting.endless(&name));
        let metrics = setting.of_run(&name, "metrics.jsonl");
        launcher.wait_until("the metrics", || metrics.exists());
        launcher.signal(0, signal);
        let finished = launcher.wait().remove(0).assert_code(STOPPED);
        finished.assert_says(&[&format!("as SIG{signal} asked; the same command continues from")]);
        let reached = newest_steps(&setting.of_run(&name, "checkpoints"));
        assert!(reached > 0, "{name} has no checkpoint");
        steps = steps.max(reached + 4);
        name
    });
    stop_at(setting.endless("whole"), steps);
    for name in stopped {
        stop_at(setting.endless(&name), steps);
        assert_same_progress(&setting, "whole", &name);
    }
}

#[test]
fn a_signal_to_one_rank_ends_all_after_the_same_step() {
    let setting = Setting::new();
    let mut ranks = Ranks::new(2).start(|_| {
        let mut command = setting.train("run");
        command.args(setting.flags("run", 2)).args(ENDLESS);
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
