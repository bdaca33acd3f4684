//! Where checkpoints are, which are kept, and what is not taken for one.

use std::fs;
use std::path::Path;
use std::process::Command;

use fastclip_testkit::{CloudServer, Ranks, S3Server, run};

use crate::setting::{
    ENDLESS, STOPPED, Setting, assert_same_metrics, assert_same_result, newest_steps, stop_at, succeed,
    wait_for_checkpoint,
};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_file_is_named_and_not_used() {
    let setting = Setting::new();
    let session = |more: &[&str]| {
        let mut command = setting.alone("run");
        command.args(more);
        run(&mut command)
    };
    session(&["--stop-after", "5"]).assert_code(75);
    let folder = setting.of_run("run", "checkpoints/step_00000005");
    for name in [
        "open_clip_model.safetensors",
        "optimizer.safetensors",
        "estimators-rank0-of-1.safetensors",
        "trainer.json",
    ] {
        let path = folder.join(name);
        let sound = fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let named = format!("`runs/run/checkpoints/step_00000005/{name}` is damaged: its digest is ");
        session(&[]).assert_code(1).assert_says(&[&named, "hint: "]);
        fs::write(&path, &sound[1..]).unwrap();
        let sizes = format!("is damaged: it has {} bytes, {} were written", sound.len() - 1, sound.len());
        session(&[]).assert_code(1).assert_says(&[&sizes]);
        fs::write(&path, &sound).unwrap();
    }
    session(&[]).assert_code(0).assert_says(&["continuing after step 5 from"]);
}

#[test]
fn what_is_no_complete_checkpoint_is_refused() {
    let setting = Setting::new();
    let resumed = |location: &str| {
        let mut command = setting.alone("run");
        command.args(["--resume", location]);
        run(&mut command).assert_code(1)
    };
    resumed("nowhere")
        .assert_says(&["could not keep checkpoints in `nowhere`", "there is no folder `nowhere`"]);
    fs::create_dir(setting.path("empty")).unwrap();
    resumed("empty").assert_says(&["`empty` is no complete checkpoint: it has no `checkpoint.json`"]);
}

#[test]
fn the_last_and_every_so_many_are_kept() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    command.args(["--save-every-steps", "2", "--keep-last", "2", "--keep-every", "1epoch"]);
    succeed(command);
    let expected = ["latest", "step_00000005", "step_00000010", "step_00000014", "step_00000015"];
    assert_eq!(names(&setting.of_run("run", "checkpoints")), expected);
    // Its own state, in full.
    let files = names(&setting.of_run("run", "checkpoints/step_00000015"));
    let expected = [
        "checkpoint.json",
        "config.toml",
        "estimators-rank0-of-1.safetensors",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "optimizer.safetensors",
        "trainer.json",
    ];
    assert_eq!(files, expected);
}

#[test]
fn a_run_that_goes_back_keeps_what_is_ahead_and_replaces_it_when_it_comes_there() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    command.args(["--save-every-steps", "1", "--keep-last", "20"]);
    succeed(command);
    let folder = setting.of_run("run", "checkpoints");
    let before = fs::read(folder.join("step_00000015/open_clip_model.safetensors")).unwrap();
    let again = |more: &[&str]| {
        let mut command = setting.alone("run");
        run(command.args(["--keep-last", "2"]).args(more))
    };
    again(&["--resume", &folder.join("step_00000003").to_string_lossy(), "--stop-after", "5"])
        .assert_code(75);
    let found = names(&folder);
    assert!(found.contains(&"step_00000012".to_owned()), "{found:?}");
    assert_eq!(fs::read_to_string(folder.join("latest")).unwrap(), "step_00000005\n");
    again(&[]).assert_code(0);
    assert!(fs::read(folder.join("step_00000015/open_clip_model.safetensors")).unwrap() == before);
    assert_eq!(fs::read_to_string(folder.join("latest")).unwrap(), "step_00000015\n");
}

/// An endless run on two ranks whose checkpoints are in a bucket.
fn in_bucket(setting: &Setting, server: &S3Server, name: &str) -> Command {
    let mut command = setting.train("run");
    command.args(setting.flags(name, 2)).args(ENDLESS).args(["--save-every-steps", "1"]);
    command.args(["--checkpoint-dir", &server.location("checkpoints")]).envs(server.environment());
    command
}

#[test]
fn killed_ranks_continue_from_a_bucket_to_the_same_end() {
    let (setting, server) = (Setting::new(), S3Server::start());
    let checkpoints = server.file("checkpoints/killed");
    for num_steps in [3, 6] {
        let before = newest_steps(&checkpoints);
        let mut ranks = Ranks::new(2).start(|_| in_bucket(&setting, &server, "killed"));
        wait_for_checkpoint(&mut ranks, &checkpoints, before + num_steps);
        ranks.kill_all();
        ranks.wait();
    }
    // More than an epoch further, so that an evaluation is among what is compared.
    let steps = newest_steps(&checkpoints) + 6;
    let continued = Ranks::new(2).start(|_| {
        let mut command = in_bucket(&setting, &server, "killed");
        command.args(["--stop-after", &steps.to_string()]);
        command
    });
    for finished in continued.wait() {
        finished.assert_code(STOPPED);
    }
    stop_at(setting.endless("whole"), steps);
    assert_same_metrics(&setting, "whole", "killed");
    let last = checkpoints.join(format!("step_{steps:08}"));
    let tensors = ["open_clip_model", "optimizer", "estimators-rank0-of-2", "estimators-rank1-of-2"];
    for file in tensors.map(|name| format!("{name}.safetensors")) {
        assert!(fs::read(last.join(&file)).unwrap() == setting.newest("whole", &file), "{file} differs");
    }
    let is_complete = |name: &String| checkpoints.join(name).join("checkpoint.json").exists();
    assert_eq!(names(&checkpoints).iter().filter(|name| is_complete(name)).count(), 2);
    assert!(!setting.of_run("killed", "checkpoints").exists(), "nothing is written beside");

    // By its own URL, and by that of all of them.
    let named = |steps: u64| server.location(&format!("checkpoints/killed/step_{steps:08}"));
    for (name, location, from) in
        [("one", named(steps - 1), steps - 1), ("all", server.location("checkpoints/killed"), steps)]
    {
        let mut command = setting.endless(name);
        command.args(["--resume", &location]).envs(server.environment());
        let finished = stop_at(command, steps + 1);
        finished.assert_says(&[&format!("continuing after step {from} from {}", named(from))]);
    }
}

#[test]
fn sessions_whose_checkpoints_are_in_azures_storage_come_to_the_same_end() {
    let (setting, server) = (Setting::new(), CloudServer::azure());
    let session = |more: &[&str]| {
        let mut command = setting.launched("remote", 2);
        command.args(["--save-every-steps", "3", "--checkpoint-dir", &server.location("checkpoints")]);
        run(command.args(more).envs(server.environment()))
    };
    session(&["--stop-after", "7"]).assert_code(STOPPED);
    session(&[])
        .assert_code(0)
        .assert_says(&["continuing after step 7 from az://bucket/checkpoints/remote/"]);
    succeed(setting.launched("whole", 2));
    let is_the_same = || {
        assert_same_metrics(&setting, "whole", "remote");
        assert_same_result(&setting, "whole", "remote");
    };
    is_the_same();
    session(&[]).assert_code(0).assert_says(&["was complete already"]);
    is_the_same();
}
