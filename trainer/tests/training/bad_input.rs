//! Input that is refused: exit code 1, and an error that says what and where.

use std::fs;
use std::path::{Path, PathBuf};

use fastclip_testkit::{Ranks, TinyDataset, run};

use crate::setting::{Setting, assert_same_run, succeed};

#[test]
fn an_unknown_key_of_the_config_file_is_named() {
    let setting = Setting::new();
    fs::write(setting.path("run.toml"), "learning_rat = 1.0\n").unwrap();
    let mut command = setting.train("run");
    run(command.args(["--config", "run.toml"]))
        .assert_code(1)
        .assert_says(&["error: `run.toml` sets `learning_rat`, which is no setting of a run", "hint: "]);
}

#[test]
fn a_launcher_reports_wrong_settings_once() {
    let setting = Setting::new();
    let mut command = setting.launched("run", 2);
    let finished = run(command.args(["--gamma", "2"])).assert_code(1);
    assert_eq!(finished.stderr, "error: `gamma` is 2, but it must lie in (0, 1]\n");
}

#[test]
fn a_batch_larger_than_the_dataset_is_refused_with_both_sizes() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    run(command.args(["--batch-size", "44"])).assert_code(1).assert_says(&[
        "43 samples",
        "global batch of 44",
        "hint: the global batch is `--batch-size` times",
    ]);
}

#[test]
fn a_dataset_that_is_not_there_is_named() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    run(command.args(["--train-data", "nowhere"]))
        .assert_code(1)
        .assert_says(&["could not open the dataset", "nowhere"]);
}

#[test]
fn a_held_out_dataset_that_cannot_be_used_is_refused_before_the_first_step() {
    let setting = Setting::new();
    let held_out = TinyDataset::new(11, 10);
    let refused = |words: &[&str]| {
        let mut command = setting.launched("run", 2);
        command.args(["--val-data", held_out.location()]);
        run(&mut command).assert_code(1).assert_says(words);
        assert!(!setting.of_run("run", "metrics.jsonl").exists());
    };
    let templates = held_out.file("zeroshot_classification_templates.txt");
    let text = fs::read(&templates).unwrap();
    fs::remove_file(&templates).unwrap();
    refused(&["`zeroshot_classification_templates.txt` is missing"]);
    fs::write(&templates, text).unwrap();
    let index = held_out.file(&held_out.manifest().shards[1].index);
    let mut bytes = fs::read(&index).unwrap();
    bytes[8] ^= 1;
    fs::write(&index, bytes).unwrap();
    refused(&["could not evaluate the model", "of shard `", "the manifest says "]);
}

#[test]
fn an_evaluation_that_fails_loses_no_step_and_is_made_up_for() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    let names = setting.data.file("classnames.txt");
    let text = fs::read(&names).unwrap();
    fs::write(&names, "red slope\ngreen slope\nblue slope\n").unwrap();
    run(&mut setting.launched("run", 2)).assert_code(1).assert_says(&["`classnames.txt` names 3 classes"]);
    fs::write(&names, text).unwrap();
    succeed(setting.launched("run", 2)).assert_says(&["continuing after step 5 from"]);
    assert_same_run(&setting, "whole", "run");
}

#[test]
fn an_operation_that_libtorch_refuses_is_told_in_one_line() {
    let setting = Setting::new();
    let mut command = setting.train("bench");
    // More bytes than a processor can address.
    command.args(["--model", "tiny.json", "--device", "cpu", "--objective", "openclip"]);
    command.args(["--batch-size", "1000000000000"]).env_remove("RUST_BACKTRACE");
    let finished = run(&mut command).assert_code(2);
    assert!(finished.stderr.starts_with("error: libtorch refused an operation: "), "{finished}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished}");
}

#[test]
fn a_run_without_data_says_which_flag_is_missing() {
    let setting = Setting::new();
    run(&mut setting.train("run")).assert_code(1).assert_says(&["`train_data` is not set", "--train-data"]);
}

#[test]
fn a_model_that_is_not_known_lists_those_that_are() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    run(command.args(["--model", "ViT-Z-1"])).assert_code(1).assert_says(&["`ViT-Z-1`", "`ViT-B-32`"]);
}

#[test]
fn a_rank_with_another_setting_is_named_with_both_values() {
    let setting = Setting::new();
    let ranks = Ranks::new(2).start(|rank| {
        let mut command = setting.train("run");
        command.args(setting.flags("run", 2)).args(["--lr", ["0.25", "0.5"][rank]]);
        command
    });
    for finished in ranks.wait() {
        let said = "has the setting `lr = 0.5`, rank 0 has `lr = 0.25`";
        finished.assert_code(1).assert_says(&["rank 1 (process ", said, "start all ranks with the same"]);
    }
}

#[test]
fn a_rank_of_another_version_is_named_with_both_versions() {
    let setting = Setting::new();
    let version = version_of(Path::new(env!("CARGO_BIN_EXE_train")));
    let (other, other_version) = program_of_another_version(&setting, &version);
    assert_eq!(version_of(&other), other_version);
    let ranks = Ranks::new(2).start(|rank| {
        let mut command = match rank {
            0 => setting.train("run"),
            _ => setting.command(&other, "run"),
        };
        command.args(setting.flags("run", 2));
        command
    });
    for finished in ranks.wait() {
        let said = format!("has the program `{other_version}`, rank 0 has `{version}`");
        finished.assert_code(1).assert_says(&["rank 1 (process ", &said, "start all ranks with the same"]);
    }
}

fn version_of(program: &Path) -> String {
    run(std::process::Command::new(program).arg("--version")).assert_code(0).stdout.trim().to_owned()
}

/// Copies the program and changes the version in the copy.
fn program_of_another_version(setting: &Setting, version: &str) -> (PathBuf, String) {
    let (head, _) = version.split_once(", libtorch").unwrap();
    let text = head.strip_prefix("train ").unwrap();
    let other_text = format!("X{}", &text[1..]);
    let mut program = fs::read(env!("CARGO_BIN_EXE_train")).unwrap();
    let places: Vec<usize> = (0..=program.len() - text.len())
        .filter(|&at| program[at] == text.as_bytes()[0] && program[at..].starts_with(text.as_bytes()))
        .collect();
    for at in places {
        program[at..at + text.len()].copy_from_slice(other_text.as_bytes());
    }
    let path = setting.path("train");
    fs::copy(env!("CARGO_BIN_EXE_train"), &path).unwrap();
    fs::write(&path, program).unwrap();
    (path, version.replacen(text, &other_text, 1))
}
