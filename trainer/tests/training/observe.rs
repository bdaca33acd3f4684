//! What a run shows while it runs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use fastclip_testkit::free_port;

use crate::setting::{Setting, succeed};

/// Asks for a page, or nothing if nobody answers.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

#[test]
fn a_prometheus_server_finds_the_figures_of_every_rank_while_the_run_goes_on() {
    let setting = Setting::new();
    let port = free_port();
    let mut command = setting.alone("watched");
    command.args(["--epochs", "100000", "--val-frequency", "0", "--save-frequency", "0"]);
    command.args(["--prometheus", &format!("127.0.0.1:{port}")]);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !page(port).is_some_and(|page| page.contains("fastclip_train_steps_total{")) {
        if let Some(status) = run.try_wait().unwrap() {
            panic!("the run ended with {status}");
        }
        std::thread::yield_now();
    }
    // A page is written while figures change, and a step counted after all its figures: the next page has them.
    let found = page(port).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    for name in [
        "fastclip_train_loss{rank=\"0\"}",
        "fastclip_train_data_wait_seconds{rank=\"0\"}",
        "fastclip_train_step_received_bytes{rank=\"0\",collective=\"all_reduce\"}",
        "fastclip_loader_samples_total{rank=\"0\"}",
    ] {
        assert!(found.contains(name), "{name} is not in\n{found}");
    }
}

#[test]
fn an_evaluation_comes_every_so_many_steps_and_changes_nothing_that_is_trained() {
    let setting = Setting::new();
    succeed(setting.launched("rare", 2));
    let mut command = setting.launched("often", 2);
    command.args(["--val-every-steps", "4"]);
    succeed(command);
    let steps = |name: &str| -> Vec<u64> {
        let records = setting.metrics(name);
        records
            .iter()
            .filter(|record| record["kind"] == "eval")
            .map(|record| record["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(steps("rare"), [5, 10, 15]);
    assert_eq!(steps("often"), [4, 5, 8, 10, 12, 15]);
    assert_eq!(setting.curve("rare", "loss"), setting.curve("often", "loss"));
    let weights = |name| setting.newest(name, "open_clip_model.safetensors");
    assert!(weights("rare") == weights("often"));

    let events = fs::read_dir(setting.of_run("often", "tensorboard")).unwrap().next().unwrap().unwrap();
    let events = fs::read(events.path()).unwrap();
    let has = |tag: &str| events.windows(tag.len()).any(|window| window == tag.as_bytes());
    for tag in [
        "estimators/log_u_image",
        "estimators/log_u_text",
        "retrieval/0000",
        "train/received_bytes/all_gather",
    ] {
        assert!(has(tag), "TensorBoard gets no `{tag}`");
    }
}

#[test]
fn several_runs_are_compared_on_one_page() {
    let setting = Setting::new();
    for (name, rate) in [("slow", "1e-3"), ("fast", "1e-2")] {
        let mut command = setting.alone(name);
        command.args(["--lr", rate]);
        succeed(command);
    }
    let mut command = setting.train("report");
    command.args(["runs/slow", "runs/fast", "--out", "both.html"]);
    assert_eq!(succeed(command).stdout, "both.html\n");
    let page = fs::read_to_string(setting.path("both.html")).unwrap();
    for words in ["2 runs compared", "<code>lr</code>", "<td>0.001</td><td>0.01</td>", "samples seen"] {
        assert!(page.contains(words), "{words}");
    }
    for forbidden in ["<script", "href=", "src=", "http:", "NaN", "<code>seed</code>"] {
        assert!(!page.contains(forbidden), "the page holds `{forbidden}`");
    }
    let mut command = setting.train("report");
    command.args(["runs/slow"; 9]);
    fastclip_testkit::run(&mut command).assert_code(1).assert_says(&["9 runs cannot be told apart"]);
}
