//! Input that is refused: exit code 1, and an error that says what and where.

use std::fs;

use fastclip_testkit::run;

use crate::setting::Setting;

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
