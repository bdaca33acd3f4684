//! Stopping changes nothing: two ranks that are killed in the middle and started again with the same command
//! end with the same metrics and the same weights, bit by bit, as two that were left alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastclip_testkit::{Ranks, RunningRanks};
use fastclip_tests::{ToyWorld, train};
use serde_json::Value;

/// 48 pictures in global batches of 8, so 6 steps of each of 5 epochs: enough to be killed long before the last.
const LAST_CHECKPOINT: &str = "checkpoints/step_00000030";

fn start(world: &ToyWorld, name: &str) -> RunningRanks {
    let (data, held_out, logs) = (world.train(), world.held_out(), world.path("logs"));
    let ranks = Ranks::new(2).deadline(Duration::from_secs(480));
    ranks.start(|_| {
        let mut command =
            train(["run", "--model", "toy", "--batch-size", "4", "--epochs", "5", "--warmup", "4"]);
        command.args(["--train-data", &data, "--val-data", &held_out, "--logs", &logs, "--name", name]);
        command.args(["--log-every-n-steps", "1", "--save-every-steps", "2", "--val-frequency", "0"]);
        command.args(["--device", "cpu", "--threads", "1", "--workers", "1"]);
        command
    })
}

fn finish(running: RunningRanks) {
    for rank in running.wait() {
        rank.assert_code(0);
    }
}

/// The lines of the journal without what a clock says.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("timing");
        line.to_string()
    });
    lines.collect()
}

fn summary(run: &Path) -> Value {
    let mut summary: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    for clocked in ["seconds", "images_per_second"] {
        assert!(summary.as_object_mut().unwrap().remove(clocked).is_some(), "{summary}");
    }
    summary
}

#[test]
fn two_killed_ranks_go_on_to_the_very_same_end() {
    let world = ToyWorld::new(48, 20);
    let run = |name: &str| -> PathBuf { world.folder().join("logs").join(name) };
    finish(start(&world, "whole"));

    let mut running = start(&world, "killed");
    // After some checkpoints and before the last: the next epoch has begun, and steps after the
    // checkpoint are lost.
    let (newest, journal) = (run("killed").join("checkpoints/latest"), run("killed").join("metrics.jsonl"));
    running.wait_until("step 9", || {
        fs::read_to_string(&newest).is_ok_and(|name| name.as_str() >= "step_00000008")
            && fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"step\":9,"))
    });
    running.kill_all();
    for rank in running.wait() {
        assert_eq!(rank.status.code(), None, "it ended before it was killed\n{rank}");
    }
    assert!(!run("killed").join(LAST_CHECKPOINT).exists(), "it was killed too late to show anything");
    finish(start(&world, "killed"));

    let (whole, killed) = (metrics(&run("whole")), metrics(&run("killed")));
    assert_eq!(whole.iter().filter(|line| line.contains("\"kind\":\"train\"")).count(), 30, "{whole:#?}");
    assert_eq!(whole, killed);
    assert_eq!(summary(&run("whole")), summary(&run("killed")));
    for file in ["open_clip_model.safetensors", "optimizer.safetensors"] {
        let read = |name: &str| fs::read(run(name).join(LAST_CHECKPOINT).join(file)).unwrap();
        assert!(read("whole") == read("killed"), "`{file}` differs");
    }
}
