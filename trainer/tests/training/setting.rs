//! A folder with a tiny dataset, a tiny model and the runs over them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastclip_testkit::{Finished, RunningRanks, TinyDataset, free_port, run};
use fastclip_trainer::distributed::LAUNCHER_PID_VARIABLE;
use serde_json::Value;
use tempfile::TempDir;

/// Samples of the dataset: 5 steps of 8 an epoch, and a tail that is left out.
pub(crate) const NUM_SAMPLES: u32 = 43;

/// Samples of all ranks in a step.
pub(crate) const GLOBAL_BATCH: usize = 8;

/// Flags of a run that cannot end before its test has done to it what it wants to do, however late the test comes to
/// that. [`stop_at`] takes it to a step at which it can be compared.
pub(crate) const ENDLESS: [&str; 2] = ["--epochs", "100000"];

/// Exit code of a session that stopped with a checkpoint.
pub(crate) const STOPPED: i32 = 75;

const MODEL: &str = r#"{
  "embed_dim": 16,
  "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
  "text_cfg": {"width": 16, "heads": 2, "layers": 1}
}"#;

/// A model whose batch norms gather statistics.
const RESNET: &str = r#"{
  "embed_dim": 16,
  "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": null},
  "text_cfg": {"width": 16, "heads": 2, "layers": 1}
}"#;

pub(crate) struct Setting {
    folder: TempDir,
    pub(crate) data: TinyDataset,
}

impl Setting {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.json"), MODEL).unwrap();
        fs::write(folder.path().join("resnet.json"), RESNET).unwrap();
        Self { folder, data: TinyDataset::new(NUM_SAMPLES, 10) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of `train`, without what the test's own environment says about ranks.
    pub(crate) fn train(&self, command: &str) -> Command {
        self.command(Path::new(env!("CARGO_BIN_EXE_train")), command)
    }

    /// The same of a copy of the program.
    pub(crate) fn command(&self, program: &Path, command: &str) -> Command {
        let mut train = Command::new(program);
        forget_launchers(&mut train);
        train.arg(command).current_dir(self.folder.path());
        train
    }

    /// The flags of a run on so many ranks, three epochs of five steps. Gamma falls in the first two, however many epochs a
    /// test asks for: near 1 a wrong estimate would change nothing that is compared.
    pub(crate) fn flags(&self, name: &str, num_ranks: usize) -> Vec<String> {
        let data = self.data.location();
        let batch_size = GLOBAL_BATCH / num_ranks;
        let text = format!(
            "--train-data {data} --val-data {data} --model tiny.json --batch-size {batch_size} --workers 1 --epochs 3 \
             --lr 1e-2 --warmup 3 --gamma 0.5 --gamma-decay-epochs 2 --logs runs --name {name} --threads 1 --log-every-n-steps 1 --seed 3 \
             --device cpu --dist-timeout 60"
        );
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// A run in one process.
    pub(crate) fn alone(&self, name: &str) -> Command {
        let mut command = self.train("run");
        command.args(self.flags(name, 1));
        command
    }

    /// A run on ranks.
    pub(crate) fn launched(&self, name: &str, num_ranks: usize) -> Command {
        let mut command = self.train("launch");
        // One that the launcher finds free by itself, as it does in its own tests, can be taken by another test before rank
        // 0 listens on it.
        command.args(["--port", &free_port().to_string()]);
        command.args(["--ranks", &num_ranks.to_string()]).args(self.flags(name, num_ranks));
        command
    }

    /// A run on two ranks that does not end by itself.
    pub(crate) fn endless(&self, name: &str) -> Command {
        let mut command = self.launched(name, 2);
        command.args(ENDLESS);
        command
    }

    /// A file of a run.
    pub(crate) fn of_run(&self, name: &str, file: &str) -> PathBuf {
        self.path("runs").join(name).join(file)
    }

    pub(crate) fn summary(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.of_run(name, "summary.json")).unwrap()).unwrap()
    }

    /// Lines of the run's metrics, without what depends on the clock.
    pub(crate) fn metrics(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.of_run(name, "metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| {
                let mut record: Value = serde_json::from_str(line).unwrap();
                record.as_object_mut().unwrap().remove("timing").expect("every record has a timing");
                record
            })
            .collect()
    }

    /// The values of one key, in the records that have it.
    pub(crate) fn curve(&self, name: &str, key: &str) -> Vec<f64> {
        self.metrics(name).iter().filter_map(|record| record.get(key)?.as_f64()).collect()
    }

    fn newest_checkpoint(&self, name: &str) -> PathBuf {
        let latest = fs::read_to_string(self.of_run(name, "checkpoints/latest")).unwrap();
        self.of_run(name, "checkpoints").join(latest.trim())
    }

    /// A file of the newest checkpoint.
    pub(crate) fn newest(&self, name: &str, file: &str) -> Vec<u8> {
        let path = self.newest_checkpoint(name).join(file);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Takes away what a launcher around the test says: it describes the test, and not the ranks that the test starts.
pub(crate) fn forget_launchers(command: &mut Command) {
    for variable in [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "MPI_LOCALNRANKS",
        "GLOO_SOCKET_IFNAME",
        "TORCH_CPP_LOG_LEVEL",
        "RUST_LOG",
        LAUNCHER_PID_VARIABLE,
    ] {
        command.env_remove(variable);
    }
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        if ["SLURM_", "OMPI_", "TORCHELASTIC_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&variable);
        }
    }
}

/// Steps of the checkpoint that is named the newest of a folder; 0 before the first.
pub(crate) fn newest_steps(checkpoints: &Path) -> u64 {
    let name = fs::read_to_string(checkpoints.join("latest")).unwrap_or_default();
    name.trim().strip_prefix("step_").and_then(|steps| steps.parse().ok()).unwrap_or(0)
}

/// Waits for a checkpoint of so many steps or more. One that is asked for by its name may have been removed, as too old,
/// before anybody looked.
#[track_caller]
pub(crate) fn wait_for_checkpoint(ranks: &mut RunningRanks, checkpoints: &Path, steps: u64) {
    ranks.wait_until("the checkpoint", || newest_steps(checkpoints) >= steps);
}

/// Takes an endless run to a step that it has not come to yet, and stops it there.
#[track_caller]
pub(crate) fn stop_at(mut command: Command, steps: u64) -> Finished {
    command.args(["--stop-after", &steps.to_string()]);
    run(&mut command).assert_code(STOPPED)
}

/// Runs a command that must end well.
#[track_caller]
pub(crate) fn succeed(mut command: Command) -> Finished {
    run(&mut command).assert_code(0)
}

/// Two curves are the same but for the order in which fp32 numbers were added.
#[track_caller]
pub(crate) fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-6, "place {step}: {found} {expected}");
    }
}

/// Two runs logged the same figures, bit by bit.
#[track_caller]
pub(crate) fn assert_same_metrics(setting: &Setting, left: &str, right: &str) {
    for (left, right) in setting.metrics(left).iter().zip(&setting.metrics(right)) {
        assert_eq!(left, right);
    }
    assert_eq!(setting.metrics(left).len(), setting.metrics(right).len());
}

/// Two runs stand at the same: every logged figure, the weights, the optimizer and the estimates, bit by bit.
#[track_caller]
pub(crate) fn assert_same_progress(setting: &Setting, left: &str, right: &str) {
    assert_same_metrics(setting, left, right);
    let tensors = |name| -> BTreeSet<String> {
        let files = fs::read_dir(setting.newest_checkpoint(name)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|file| file.ends_with(".safetensors")).collect()
    };
    let files = tensors(left);
    assert!(files.contains("open_clip_model.safetensors") && files.contains("optimizer.safetensors"));
    assert_eq!(files, tensors(right));
    for file in files {
        assert!(setting.newest(left, &file) == setting.newest(right, &file), "{file} differs");
    }
}

/// Two runs came to the same end: where they stand, and the result, bit by bit.
#[track_caller]
pub(crate) fn assert_same_run(setting: &Setting, left: &str, right: &str) {
    assert_same_progress(setting, left, right);
    assert_same_result(setting, left, right);
}

/// Two runs that are over have the same summary.
#[track_caller]
pub(crate) fn assert_same_result(setting: &Setting, left: &str, right: &str) {
    let result = |name| {
        let mut summary = setting.summary(name);
        for timing in ["seconds", "images_per_second"] {
            summary.as_object_mut().unwrap().remove(timing);
        }
        summary
    };
    assert_eq!(result(left), result(right));
}
