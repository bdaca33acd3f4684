//! Runs that nothing disturbs.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;

use fastclip_shards::{DatasetWriter, Store, StoreOptions, WriterOptions};
use fastclip_testkit::Pair;
use serde_json::Value;

use crate::setting::{GLOBAL_BATCH, NUM_SAMPLES, Setting, assert_close, assert_same_run, succeed};

#[test]
fn a_run_in_one_process_needs_no_launcher() {
    let setting = Setting::new();
    succeed(setting.alone("alone")).assert_says(&["Train Epoch: 0", "Eval Epoch: 3", "the run is complete"]);
    let losses = setting.curve("alone", "contrastive_loss");
    assert_eq!(losses.len(), 15);
    assert!(losses[14] < losses[0], "{losses:?}");
    let summary = setting.summary("alone");
    assert_eq!(summary["objective"], "fastclip-v3");
    assert_eq!(summary["samples_seen"], 15 * GLOBAL_BATCH);
    assert_eq!(summary["zero_shot_chance"], 0.25);
    for file in ["config.toml", "out.log", "predictions.json", "run.json"] {
        assert!(setting.of_run("alone", file).is_file(), "{file}");
    }
}

/// Writes a dataset whose captions are in its JSON members only.
fn write_without_txt(location: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::create(location, &StoreOptions::default()).unwrap();
        let samples_per_shard = NonZeroU32::new(10).unwrap();
        let mut writer =
            DatasetWriter::new(store, WriterOptions { samples_per_shard, ..WriterOptions::default() });
        for pair in (0..NUM_SAMPLES).map(|number| Pair::new(number, 32)) {
            let (class, json) = (pair.class_text(), pair.json());
            let members = [("jpg", &pair.jpeg[..]), ("cls", class.as_bytes()), ("json", json.as_bytes())];
            writer.append(&members).await.unwrap();
        }
        writer.finish(BTreeMap::new()).await.unwrap();
    });
}

#[test]
fn captions_that_are_trained_on_are_those_that_are_evaluated_and_embedded() {
    let setting = Setting::new();
    let data = setting.path("json-only").to_str().unwrap().to_owned();
    write_without_txt(&data);
    let captions = ["--captions", "json:caption"];
    let mut command = setting.alone("run");
    command.args(["--train-data", &data, "--val-data", &data]).args(captions);
    succeed(command);
    let checkpoint = setting.of_run("run", "checkpoints/step_00000015");
    let encode = |command: &str, data: &str, more: &[&str]| {
        let mut command = setting.train(command);
        command.args(["--checkpoint", checkpoint.to_str().unwrap(), "--batch-size", "8", "--threads", "1"]);
        command.args([if more.contains(&"--out") { "--data" } else { "--val-data" }, data]).args(more);
        succeed(command).stdout
    };
    // The same images with the same captions in `txt`.
    let usual = setting.data.location();
    let recall = |found: String| {
        let found: Value = serde_json::from_str(&found).unwrap();
        found["retrieval"]["image_to_text"]["r1"].as_f64().unwrap()
    };
    let expected = recall(encode("eval", usual, &[]));
    assert_eq!(recall(encode("eval", &data, &captions)), expected);
    assert_eq!(setting.summary("run")["retrieval_image_to_text_r1"], expected);
    encode("embed", usual, &["--out", "usual"]);
    encode("embed", &data, &["--out", "other", "--captions", "json:caption"]);
    let rows = |folder: &str| fs::read(setting.path(folder).join("text_embeddings.npy")).unwrap();
    assert!(rows("usual") == rows("other"));
}

#[test]
fn a_finished_run_started_again_says_so_and_leaves_everything_as_it_is() {
    let setting = Setting::new();
    succeed(setting.alone("done"));
    let files = ["summary.json", "metrics.jsonl", "predictions.json", "checkpoints/latest"];
    let read = || files.map(|file| fs::read(setting.of_run("done", file)).unwrap());
    let before = read();
    succeed(setting.alone("done")).assert_says(&["was complete already"]);
    assert!(before == read());
}

#[test]
fn one_seed_gives_one_result_on_two_ranks_with_either_objective() {
    let setting = Setting::new();
    for objective in ["fastclip-v3", "openclip"] {
        for name in ["first", "second"] {
            let mut command = setting.launched(name, 2);
            command.args(["--objective", objective, "--resume", "never"]);
            succeed(command);
        }
        assert_same_run(&setting, "first", "second");
        assert_eq!(setting.summary("first")["objective"], objective);
    }
}

#[test]
fn joined_datasets_are_weighed_and_read_through_a_cache() {
    let setting = Setting::new();
    let both = format!("{0}::{0}", setting.data.location());
    let mut command = setting.launched("run", 2);
    command.args(["--train-data", &both, "--train-data-upsampling-factors", "1::1.5", "--epochs", "2"]);
    command.args(["--data-cache", "cache", "--data-cache-gib", "1"]);
    succeed(command);
    // 43 samples once and 64 or 65 of another 43, in steps of 8.
    let steps = setting.metrics("run").iter().filter(|record| record["kind"] == "train").count();
    assert_eq!(steps, 2 * 13);
    assert!(setting.path("cache").read_dir().unwrap().count() > 1, "nothing was kept");

    let mut command = setting.launched("other", 2);
    command.args(["--train-data", &both, "--train-data-upsampling-factors", "1::1::1"]);
    let finished = fastclip_testkit::run(&mut command).assert_code(1);
    finished.assert_says(&["upsampling_factors cannot be [1.0, 1.0, 1.0]", "one for each dataset"]);
}

#[test]
fn one_two_and_four_ranks_learn_the_same_from_the_same_batches() {
    let setting = Setting::new();
    succeed(setting.alone("1"));
    let expected = setting.curve("1", "loss");
    for num_ranks in [2, 4] {
        let name = num_ranks.to_string();
        succeed(setting.launched(&name, num_ranks));
        // fp64 is in `invariance`.
        assert_close(&setting.curve(&name, "loss"), &expected);
    }
}

#[test]
fn micro_batches_learn_the_same_from_the_same_batches() {
    let setting = Setting::new();
    for objective in ["fastclip-v3", "openclip"] {
        let curve = |name: &str, num_ranks, flags: &[&str]| {
            let mut command = setting.launched(name, num_ranks);
            command.args(["--objective", objective, "--resume", "never"]).args(flags);
            succeed(command);
            setting.curve(name, "loss")
        };
        let expected = curve("at-once", 1, &[]);
        assert_close(&curve("in-parts", 2, &["--batch-size", "1", "--accum-freq", "4"]), &expected);
    }
}

#[test]
fn clipping_changes_the_run_but_not_the_norm_that_is_logged_for_its_first_step() {
    let setting = Setting::new();
    let norms = |name, more: &[&str]| {
        let mut command = setting.alone(name);
        command.args(["--optimizer", "sgd"]).args(more);
        succeed(command);
        setting.curve(name, "grad_norm")
    };
    let (free, clipped) = (norms("free", &[]), norms("clipped", &["--grad-clip-norm", "0.001"]));
    assert!(free[0] > 0.001, "{free:?}");
    assert_eq!(free[0], clipped[0]);
    assert_ne!(free[1..], clipped[1..]);
}

#[test]
fn a_checkpoint_is_evaluated_as_it_was_in_its_run_and_the_report_is_written() {
    let setting = Setting::new();
    succeed(setting.alone("alone"));
    let latest = fs::read_to_string(setting.of_run("alone", "checkpoints/latest")).unwrap();
    let mut command = setting.train("eval");
    let checkpoint = setting.of_run("alone", "checkpoints").join(latest.trim());
    command.arg("--checkpoint").arg(checkpoint).args([
        "--val-data",
        setting.data.location(),
        "--batch-size",
        "8",
    ]);
    let found: serde_json::Value = serde_json::from_str(&succeed(command).stdout).unwrap();
    let summary = setting.summary("alone");
    assert_eq!(found["zero_shot"]["top1"], summary["zero_shot_top1"]);
    assert_eq!(found["retrieval"]["image_to_text"]["r1"], summary["retrieval_image_to_text_r1"]);

    let mut command = setting.train("report");
    command.arg(setting.path("runs/alone"));
    succeed(command);
    let page = fs::read_to_string(setting.of_run("alone", "report.html")).unwrap();
    assert!(page.contains("fastclip-v3"));
}
