//! Runs that compute in bf16, and figures of steps.

use std::fs;
use std::process::Command;

use fastclip_testkit::run;
use serde_json::Value;

use crate::setting::{Setting, succeed};

fn command(setting: &Setting, arguments: &[&str]) -> Command {
    let mut command = setting.train("bench");
    let fixed = ["--model", "tiny.json", "--batch-size", "8", "--device", "cpu", "--steps", "1"];
    command.args(fixed).args(["--warmup", "2", "--lr", "1e-3", "--threads", "1"]).args(arguments);
    command
}

/// Figures of some steps over made batches.
fn bench(setting: &Setting, arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(command(setting, arguments)).stdout).unwrap()
}

fn numbers(figures: &Value, key: &str) -> Vec<f64> {
    figures[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn steps_in_bf16_follow_those_in_fp32() {
    let setting = Setting::new();
    let figures = |precision| bench(&setting, &["--warm-up", "12", "--precision", precision]);
    let (full, mixed) = (figures("fp32"), figures("amp_bf16"));
    // What is rounded is divided by τ = 0.07, which gradients feel more than losses.
    for (key, bound) in [("losses", 0.01), ("grad_norms", 0.1)] {
        let (full, mixed) = (numbers(&full, key), numbers(&mixed, key));
        assert_eq!((full.len(), mixed.len()), (12, 12));
        for (step, (full, mixed)) in full.iter().zip(&mixed).enumerate() {
            let difference = (full - mixed).abs();
            assert!(difference <= bound * full.abs(), "{key} of step {step}: {full}, {mixed}");
        }
        assert_ne!(full, mixed, "bf16 rounds something");
    }
}

#[test]
fn a_bench_counts_what_it_does() {
    let setting = Setting::new();
    let figures = bench(&setting, &["--warm-up", "1", "--steps", "3", "--caption-length", "9"]);
    assert_eq!((figures["batch"].as_u64(), figures["caption_length"].as_u64()), (Some(8), Some(9)));
    let (rate, step) = (figures["samples_per_second"].as_f64(), figures["step_milliseconds"].as_f64());
    assert!((rate.unwrap() * step.unwrap() / 8e3 - 1.0).abs() < 1e-9);
    assert_eq!(numbers(&figures, "losses").len(), 1);
    // Parameters, gradients and moments are there from the first step on.
    let (peak, estimate) = (figures["peak_allocated_bytes"].as_u64(), figures["estimated_bytes"].as_u64());
    assert!(peak > Some(4 * 4 * 10_000) && estimate > Some(4 * 4 * 10_000), "{peak:?} {estimate:?}");
}

#[test]
fn steps_take_the_memory_that_was_expected() {
    let setting = Setting::new();
    for flags in [
        &["--model", "toy", "--batch-size", "64"][..],
        &["--model", "toy", "--batch-size", "64", "--precision", "amp_bf16"],
        &["--model", "toy", "--batch-size", "128", "--grad-checkpointing"],
        &["--model", "toy", "--batch-size", "32", "--optimizer", "sgd"],
        &["--model", "RN50", "--batch-size", "4"],
        // Similarities of 2048 samples with each other, which are most of what is taken.
        &["--image-size", "8", "--batch-size", "64", "--accum-freq", "32"],
        &["--image-size", "8", "--batch-size", "64", "--accum-freq", "32", "--objective", "siglip"],
        &["--image-size", "8", "--batch-size", "64", "--accum-freq", "32", "--loss-block-mib", "8"],
    ] {
        let figures = bench(&setting, &[&["--warm-up", "1", "--threads", "2"], flags].concat());
        let ratio =
            figures["estimated_bytes"].as_f64().unwrap() / figures["peak_allocated_bytes"].as_f64().unwrap();
        println!("{flags:?}: {ratio:.3} of what is taken");
        assert!((ratio - 1.0).abs() <= 0.15, "{flags:?}: {ratio} {figures}");
    }
}

#[test]
fn a_trace_names_the_operations_of_three_steps() {
    let setting = Setting::new();
    let trace = setting.path("trace.json");
    bench(&setting, &["--warm-up", "1", "--steps", "1", "--trace", trace.to_str().unwrap()]);
    let trace: Value = serde_json::from_slice(&fs::read(&trace).unwrap()).unwrap();
    let count = |name: &str| {
        let events = trace["traceEvents"].as_array().unwrap().iter();
        events.filter(|event| event["ph"] == "X" && event["name"] == name).count()
    };
    // A block in each tower.
    assert_eq!(count("aten::scaled_dot_product_attention"), 3 * 2);
    assert_eq!(count("aten::_scaled_dot_product_flash_attention_for_cpu_backward"), 3 * 2);
    assert!(count("aten::_fused_adamw_").is_multiple_of(3) && count("aten::_fused_adamw_") > 0);

    let nowhere = "/no/such/folder/trace.json";
    run(&mut command(&setting, &["--trace", nowhere])).assert_code(1).assert_says(&[nowhere]);
}

#[test]
fn a_run_in_bf16_is_resumed_exactly_and_saves_fp32() {
    let setting = Setting::new();
    let train = |name: &str, more: &[&str]| {
        let mut command = setting.alone(name);
        command.args(["--precision", "amp_bf16"]).args(more);
        succeed(command);
    };
    train("whole", &["--save-every-steps", "7", "--keep-last", "9"]);
    let middle = setting.of_run("whole", "checkpoints/step_00000007");
    train("resumed", &["--resume", middle.to_str().unwrap()]);
    for file in ["open_clip_model.safetensors", "optimizer.safetensors"] {
        let [whole, resumed] = ["whole", "resumed"].map(|name| setting.newest(name, file));
        assert!(whole == resumed, "{file} differs");
        let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8_lossy(&whole[8..8 + length]);
        assert!(header.contains("F32") && !header.contains("BF16"), "{header}");
    }
}

#[test]
fn what_needs_a_gpu_is_said_where_there_is_none() {
    if tch::Cuda::is_available() {
        eprintln!("skipped: this machine has a GPU");
        return;
    }
    let setting = Setting::new();
    let mut command = setting.train("bench");
    command.args(["--model", "tiny.json", "--device", "cuda"]);
    let words = run(&mut command).assert_code(1).stderr;
    let cause =
        if fastclip_torch_ext::HAS_CUDA { "no NVIDIA driver" } else { "built without the feature `cuda`" };
    assert!(words.contains("cannot use a GPU") && words.contains(cause), "{words}");
}
