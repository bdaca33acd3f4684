//! Runs that are killed, stopped and continued.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fastclip_testkit::{Ranks, run};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::setting::{
    ENDLESS, Setting, assert_close, assert_same_progress, assert_same_run, newest_steps, stop_at, succeed,
    wait_for_checkpoint,
};

/// Kills in the test of random moments.
const NUM_KILLS: usize = 30;

/// A rank of an endless run on two, as a launcher would start it.
fn rank(setting: &Setting) -> Command {
    let mut command = setting.train("run");
    command.args(setting.flags("killed", 2)).args(ENDLESS).args(["--save-every-steps", "1"]);
    command
}

/// Lets the run that was killed go on, and another, of the same flags, come as far without being disturbed.
#[track_caller]
fn assert_goes_on_like_one_left_alone(setting: &Setting, with_flags: impl Fn(Command) -> Command) {
    // More than an epoch further, so that an evaluation is among what is compared, where there are any.
    let steps = newest_steps(&setting.of_run("killed", "checkpoints")) + 6;
    for name in ["killed", "whole"] {
        stop_at(with_flags(setting.endless(name)), steps);
    }
    assert_same_progress(setting, "whole", "killed");
}

#[test]
fn killed_ranks_continue_to_the_same_metrics_and_weights_bit_by_bit() {
    let setting = Setting::new();
    let checkpoints = setting.of_run("killed", "checkpoints");
    // Killed again and again, each time in another epoch, at whatever moment the checkpoint of a step has just appeared.
    for num_steps in [2, 5, 5] {
        let before = newest_steps(&checkpoints);
        let mut ranks = Ranks::new(2).start(|_| rank(&setting));
        wait_for_checkpoint(&mut ranks, &checkpoints, before + num_steps);
        ranks.kill_all();
        ranks.wait();
    }
    assert_goes_on_like_one_left_alone(&setting, |command| command);
}

/// Everything that lies in the folder of a run, and how large: it changes with each line of metrics, and several times
/// while a checkpoint is written.
fn traces(setting: &Setting, name: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![setting.of_run(name, "")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => found.push((entry.path(), metadata.len())),
                // It was renamed in between.
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

fn is_being_written(traces: &[(PathBuf, u64)]) -> bool {
    traces.iter().any(|(path, _)| path.to_string_lossy().contains(".partial"))
}

#[test]
fn thirty_kills_at_random_moments_change_no_bit_of_the_result() {
    let setting = Setting::new();
    let with_flags = |mut command: Command| {
        command.args(["--val-frequency", "0", "--keep-last", "1"]);
        command
    };
    let seed = 20_261_126;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut num_while_writing = 0;
    for kill in 0..NUM_KILLS {
        let mut ranks = Ranks::new(2).start(|_| with_flags(rank(&setting)));
        // Moments are counted in changes of the folder, and not in time; every second kill waits for a checkpoint that is
        // half written.
        let mut num_changes = random.random_range(1..60);
        let mut last = traces(&setting, "killed");
        ranks.wait_until("a random moment", || {
            let now = traces(&setting, "killed");
            num_changes -= i32::from(now != last);
            last = now;
            num_changes <= 0 && (kill % 2 == 0 || is_being_written(&last))
        });
        if kill % 5 == 4 {
            ranks.kill(kill % 2);
        } else {
            ranks.kill_all();
        }
        ranks.wait();
        num_while_writing += usize::from(is_being_written(&traces(&setting, "killed")));
    }
    assert!(
        num_while_writing >= NUM_KILLS / 4,
        "seed {seed}: {num_while_writing} kills left a checkpoint half written"
    );
    assert_goes_on_like_one_left_alone(&setting, with_flags);
}

#[test]
fn a_killed_resnet_continues_with_what_its_batch_norms_gathered() {
    let setting = Setting::new();
    let with_resnet = |mut command: Command| {
        command.args([
            "--model",
            "resnet.json",
            "--batch-size",
            "2",
            "--accum-freq",
            "2",
            "--save-every-steps",
            "3",
        ]);
        command
    };
    let mut ranks = Ranks::new(2).start(|_| with_resnet(rank(&setting)));
    wait_for_checkpoint(&mut ranks, &setting.of_run("killed", "checkpoints"), 6);
    ranks.kill_all();
    ranks.wait();
    assert_goes_on_like_one_left_alone(&setting, with_resnet);
}

#[test]
fn a_resnet_that_stops_between_checkpoints_continues_bit_by_bit() {
    let setting = Setting::new();
    let session = |name: &str, more: &[&str], code: i32| {
        let mut command = setting.launched(name, 2);
        command.args(["--model", "resnet.json"]).args(more);
        run(&mut command).assert_code(code);
    };
    session("whole", &[], 0);
    for code in [75, 75, 0] {
        session("stopped", &["--stop-after", "7"], code);
    }
    assert_same_run(&setting, "whole", "stopped");
}

#[test]
fn a_killed_rank_is_named_by_the_other_and_the_last_checkpoint_is_whole() {
    let setting = Setting::new();
    let checkpoints = setting.of_run("killed", "checkpoints");
    for culprit in [1, 0] {
        let before = newest_steps(&checkpoints);
        let mut ranks = Ranks::new(2).start(|_| rank(&setting));
        wait_for_checkpoint(&mut ranks, &checkpoints, before + 3);
        ranks.kill(culprit);
        let other = ranks.wait().swap_remove(1 - culprit);
        other.assert_code(2).assert_says(&[&format!("rank {culprit} (process "), "(collective "]);
    }
    assert_goes_on_like_one_left_alone(&setting, |command| command);
}

#[test]
fn a_checkpoint_of_four_ranks_continues_on_two_and_on_one() {
    // With 2 and with 8 numbers to remember of each sample.
    for objective in ["fastclip-v3", "fastclip-v2"] {
        continue_on_fewer_ranks(objective);
    }
}

fn continue_on_fewer_ranks(objective: &str) {
    let setting = Setting::new();
    let of_objective = |mut command: Command| {
        command.args(["--objective", objective]);
        command
    };
    succeed(of_objective(setting.alone("whole")));
    let mut first = Ranks::new(4).start(|_| {
        let mut command = setting.train("run");
        command.args(setting.flags("moved", 4));
        of_objective(command)
    });
    let checkpoints = setting.of_run("moved", "checkpoints");
    wait_for_checkpoint(&mut first, &checkpoints, 5);
    first.kill_all();
    first.wait();
    let mut second = Ranks::new(2).start(|_| {
        let mut command = setting.train("run");
        command.args(setting.flags("moved", 2));
        of_objective(command)
    });
    wait_for_checkpoint(&mut second, &checkpoints, 10);
    second.kill_all();
    second.wait();
    succeed(of_objective(setting.alone("moved")));
    assert_close(&setting.curve("moved", "loss"), &setting.curve("whole", "loss"));
}

#[test]
fn a_checkpoint_continues_on_any_number_of_ranks_with_the_same_losses() {
    let setting = Setting::new();
    let mut whole = setting.launched("whole", 4);
    whole.args(["--keep-last", "9"]);
    succeed(whole);
    let checkpoint = setting.of_run("whole", "checkpoints/step_00000005");
    let continued = |num_ranks: usize| {
        let name = format!("on-{num_ranks}");
        let mut command = setting.launched(&name, num_ranks);
        command.args(["--resume", &checkpoint.to_string_lossy()]);
        succeed(command);
        setting.curve(&name, "loss")
    };
    let expected = &setting.curve("whole", "loss")[5..];
    assert_eq!(continued(4), expected);
    for num_ranks in [1, 2] {
        assert_close(&continued(num_ranks), expected);
    }
}

#[test]
fn a_run_that_began_with_anothers_checkpoint_goes_on_from_its_own_by_the_same_command() {
    let setting = Setting::new();
    let session = |name: &str, more: &[&str]| {
        let mut command = setting.alone(name);
        command.args(["--stop-after", "1epoch", "--keep-last", "9"]).args(more);
        run(&mut command)
    };
    session("first", &[]).assert_code(75).assert_says(&["the same command continues from"]);
    let checkpoint = setting.of_run("first", "checkpoints/step_00000005");
    let resume = ["--resume", checkpoint.to_str().unwrap()];
    session("second", &resume)
        .assert_code(75)
        .assert_says(&["continuing after step 5 from", "asked; the same command continues from"]);
    session("second", &resume)
        .assert_code(0)
        .assert_says(&["continuing after step 10 from runs/second/checkpoints/step_00000010"]);
    // An own, older one is where a person wants to go back to, and does so each time.
    let own = ["--resume", "runs/second/checkpoints/step_00000010"];
    session("second", &own).assert_code(0).assert_says(&["continuing after step 10 from"]);
    for words in [&["--resume", "none"], &["--resume", "runs/second/checkpoints/step_00000005"]] {
        let words = session("second", words).assert_code(75);
        words.assert_says(&["the same command without `--resume` continues from runs/second/checkpoints/"]);
    }
}

#[test]
fn a_job_that_slurm_queued_again_does_not_start_over() {
    let setting = Setting::new();
    let session = |restarts: &str, code: i32| {
        let mut command = setting.alone("run");
        command.args(["--stop-after", "1epoch", "--resume", "none"]).env("SLURM_RESTART_COUNT", restarts);
        run(&mut command).assert_code(code)
    };
    session("0", 75);
    session("1", 75).assert_says(&["continuing after step 5 from"]);
    session("2", 0).assert_says(&["continuing after step 10 from"]);
}

#[test]
fn a_run_that_went_back_does_not_jump_forward_when_it_is_started_again() {
    let setting = Setting::new();
    let session = |more: &[&str]| {
        let mut command = setting.alone("run");
        command.args(["--epochs", "400", "--keep-last", "9", "--val-frequency", "0"]).args(more);
        command
    };
    let mut command = session(&["--save-every-steps", "5", "--stop-after", "10"]);
    run(&mut command).assert_code(75);
    let back = ["--resume", "runs/run/checkpoints/step_00000005", "--save-frequency", "0"];
    let mut running = Ranks::new(1).start(|_| session(&back));
    let latest = setting.of_run("run", "checkpoints/latest");
    running.wait_until("the step back", || fs::read_to_string(&latest).unwrap() == "step_00000005\n");
    running.kill_all();
    running.wait();
    let mut again = session(&back);
    again.args(["--stop-after", "7"]).env("TORCHELASTIC_RESTART_COUNT", "1");
    run(&mut again).assert_code(75).assert_says(&["continuing after step 5 from"]);
}

#[test]
fn every_optimizer_and_schedule_continues_from_a_checkpoint_bit_by_bit() {
    let setting = Setting::new();
    for (name, flags) in [
        ("lamb", "--optimizer lamb --lr-scheduler const --grad-clip-norm 0.5"),
        (
            "lion",
            "--optimizer lion --lr-scheduler const-cooldown --lr-tau-scheduler const-cooldown --epochs-cooldown 2",
        ),
        ("sgd", "--optimizer sgd --nesterov --lr-tau-scheduler const"),
        // Remembers nothing: its file holds no tensor.
        ("memoryless", "--optimizer sgd --momentum 0 --lr-tau-threshold 0.08"),
    ] {
        let run = |name: &str, more: [&str; 2]| {
            let mut command = setting.alone(name);
            command.args(flags.split(' ')).args(more);
            succeed(command);
        };
        run(name, ["--keep-last", "9"]);
        let resumed = format!("{name}-resumed");
        let checkpoint = setting.of_run(name, "checkpoints/step_00000005");
        run(&resumed, ["--resume", &checkpoint.to_string_lossy()]);
        assert_eq!(setting.curve(&resumed, "loss"), setting.curve(name, "loss")[5..], "{name}");
        for file in ["open_clip_model.safetensors", "optimizer.safetensors"] {
            assert!(setting.newest(&resumed, file) == setting.newest(name, file), "{file} of {name} differs");
        }
    }
}

#[test]
fn a_run_with_other_settings_does_not_continue_this_one() {
    let setting = Setting::new();
    succeed(setting.alone("run"));
    let refused = |flags: &[&str], texts: &[&str]| {
        let mut command = setting.alone("run");
        run(command.args(flags)).assert_code(1).assert_says(texts);
    };
    refused(&["--lr", "0.02"], &["`lr` = 0.01, this run has 0.02", "hint: ", "--resume none"]);
    refused(&["--batch-size", "4"], &["`global_batch` = 8, this run has 4"]);
    refused(&["--seed", "4"], &["was trained with `"]);
    refused(
        &["--resume", "latest", "--name", "novel"],
        &["there is no checkpoint in `runs/novel/checkpoints`"],
    );
}

#[test]
fn old_checkpoints_are_removed_and_a_run_can_start_over() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    command.args(["--save-every-steps", "2", "--keep-last", "3"]);
    succeed(command);
    let names = || {
        let entries = fs::read_dir(setting.of_run("run", "checkpoints")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["latest", "step_00000012", "step_00000014", "step_00000015"]);
    let mut command = setting.alone("run");
    command.args(["--resume", "none", "--save-frequency", "0", "--lr", "0.02"]);
    succeed(command);
    assert_eq!(names(), ["latest", "step_00000015"]);
    assert_eq!(setting.curve("run", "loss").len(), 15);
}
