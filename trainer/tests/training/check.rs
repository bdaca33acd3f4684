//! What a run is said to take, against what it takes.

use serde_json::Value;

use crate::setting::{GLOBAL_BATCH, NUM_SAMPLES, Setting, succeed};

fn check(setting: &Setting, arguments: &[&str]) -> Value {
    let mut command = setting.train("check");
    command.args(arguments).arg("--json");
    serde_json::from_str(&succeed(command).stdout).unwrap()
}

#[test]
fn a_check_counts_the_steps_and_bytes_that_the_run_then_has() {
    for objective in ["fastclip-v3", "fastclip-v2", "openclip", "siglip"] {
        let setting = Setting::new();
        let mut run = setting.launched("run", 2);
        succeed({
            run.args(["--objective", objective]);
            run
        });
        let flags = setting.flags("run", 2);
        let mut arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
        arguments.extend(["--objective", objective, "--ranks", "2"]);
        let check = check(&setting, &arguments);
        let metrics = setting.metrics("run");
        let steps: Vec<&Value> = metrics.iter().filter(|record| record["kind"] == "train").collect();
        assert_eq!(check["total_steps"], steps.len());
        assert_eq!(check["steps_per_epoch"], NUM_SAMPLES as usize / GLOBAL_BATCH);
        for collective in ["all_gather", "all_reduce"] {
            let found = steps[0]["collectives"][collective]["bytes"].as_u64().unwrap();
            let expected = check["traffic"][collective].as_u64().unwrap();
            // Every call is rounded down to whole bytes.
            assert!(found.abs_diff(expected) <= 4, "{objective}, {collective}: {found}, {expected}");
        }
    }
}

#[test]
fn sets_that_are_mixed_by_factors_have_longer_epochs_and_no_more_pairs() {
    let setting = Setting::new();
    let data = setting.data.location();
    let both = format!("{data}::{data}");
    let flags = ["--train-data", &both, "--train-data-upsampling-factors", "1::2", "--model", "tiny.json"];
    let check = check(&setting, &[&flags[..], &["--batch-size", "8"]].concat());
    let num_pairs = 2 * u64::from(NUM_SAMPLES);
    assert_eq!(check["num_samples"], num_pairs);
    assert_eq!(check["steps_per_epoch"], 3 * u64::from(NUM_SAMPLES) / 8);
    // Two estimates of four bytes.
    assert_eq!(check["memory"]["estimators"], num_pairs * 8);
}

#[test]
fn the_largest_recipe_is_as_large_as_the_specification_says() {
    let setting = Setting::new();
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/laion400m/fastclip-v3.toml");
    let check = check(
        &setting,
        &["--config", recipe, "--ranks", "16", "--samples", "315658316", "--samples-per-second", "10000"],
    );
    assert_eq!(check["parameters"], 149_620_737);
    assert_eq!(check["global_batch"], 5120);
    assert_eq!(check["steps_per_epoch"], 315_658_316 / 5120);
    assert_eq!(check["total_steps"], 30 * (315_658_316 / 5120));
    assert_eq!(check["memory"]["features"], 2 * 512 * 5120 * 4);
    // Logits and weights of both modalities, and a product.
    assert_eq!(check["memory"]["similarities"], 5 * 320 * 5120 * 4);
    // Two estimates of four bytes, dealt over the ranks.
    assert_eq!(check["memory"]["estimators"], 315_658_316u64.div_ceil(16) * 8);
    // 2·b·d·(K-1) numbers of features, and b·(K-1) ids.
    assert_eq!(check["traffic"]["all_gather"], 15 * 320 * (2 * 512 * 4 + 8));
    let all_reduce = check["traffic"]["all_reduce"].as_f64().unwrap();
    assert!((1.1e9..1.14e9).contains(&all_reduce), "{all_reduce}");
    let hours = check["hours"].as_f64().unwrap();
    assert!((hours - 30.0 * 61_652.0 * 5120.0 / 10_000.0 / 3600.0).abs() < 0.1, "{hours}");
}
