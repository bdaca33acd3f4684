//! What `train embed` and `train eval` make of a dataset, against open_clip and NumPy on the same files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt64Type};
use fastclip_shards::{Store, StoreOptions};
use fastclip_testkit::{Pair, Python, TinyDataset, run};
use fastclip_trainer::model::{Clip, ModelConfig};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tch::Device;

use super::REFERENCE;

/// A prime: no number of ranks and no batch divides it.
const NUM_PAIRS: u32 = 61;

const MODEL: &str = r#"{
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "width": 32, "heads": 2, "layers": 2}
}"#;

fn train(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    for variable in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "RUST_LOG"] {
        command.env_remove(variable);
    }
    run(command.args(arguments).args(["--batch-size", "7", "--workers", "1", "--threads", "1"]))
        .assert_code(0)
        .stdout
}

fn read(folder: &Path, file: &str) -> Vec<u8> {
    fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn embeddings_and_figures_are_those_of_open_clip_and_numpy_for_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, data) = (path("model"), path("data"));
    fs::create_dir(&model).unwrap();
    let config = ModelConfig::from_json("test", MODEL).unwrap();
    Clip::new(&config, Device::Cpu, 17).write_folder(Path::new(&model)).unwrap();
    // Larger than what the model takes, so that resizing matters.
    let pairs = (0..NUM_PAIRS).map(|number| Pair::new(number, 70));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        TinyDataset::write(Store::create(&data, &StoreOptions::default()).unwrap(), pairs, 20).await
    });

    let mut outputs = Vec::new();
    for ranks in ["1", "2", "4"] {
        let out = path(&format!("out{ranks}"));
        let common = ["--checkpoint", &model, "--ranks", ranks];
        let embed = ["embed", "--data", &data, "--out", &out, "--format", "npy,parquet"];
        assert_eq!(train(&[&embed[..], &common].concat()).split_once(' ').unwrap().0, "61");
        let found: Value =
            serde_json::from_str(&train(&[&["eval", "--val-data", &data], &common[..]].concat())).unwrap();
        outputs.push((out, found));
    }
    for (out, found) in &outputs[1..] {
        assert_eq!(found, &outputs[0].1, "figures in {out}");
        for file in ["image_embeddings.npy", "text_embeddings.npy", "samples.parquet", "embeddings.parquet"] {
            let [left, right] = [out, &outputs[0].0].map(|folder| read(Path::new(folder), file));
            assert!(left == right, "{file} of {out} differs");
        }
    }

    let (out, found) = &outputs[0];
    let printed = Python::with_torch().run(REFERENCE, &["embedded", &model, &data, out]);
    let expected: BTreeMap<String, f64> = serde_json::from_str(&printed).unwrap();
    assert!(expected["image error"] < 1e-5 && expected["text error"] < 1e-5, "{expected:?}");
    let metrics = found["metrics"].as_object().unwrap();
    assert_eq!(metrics.len(), 9);
    for (name, value) in metrics {
        let value = value.as_f64().unwrap();
        assert!((value - expected[name]).abs() < 1e-12, "{name} is {value}, NumPy finds {}", expected[name]);
    }

    let table = fs::File::open(Path::new(out).join("embeddings.parquet")).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(table).unwrap().build().unwrap();
    let (mut keys, mut ids, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches.map(Result::unwrap) {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        keys.extend(column("key").as_string::<i32>().iter().map(|key| key.unwrap().to_owned()));
        ids.extend_from_slice(column("sample_id").as_primitive::<UInt64Type>().values());
        let rows = column("image_embedding").as_fixed_size_list().values();
        images.extend_from_slice(rows.as_primitive::<Float32Type>().values());
    }
    let expected_keys: Vec<String> =
        (0..NUM_PAIRS).map(|number| format!("{:05}{:04}", number / 20, number % 20)).collect();
    assert_eq!(keys, expected_keys);
    assert_eq!(ids, (0..u64::from(NUM_PAIRS)).collect::<Vec<_>>());
    let matrix = read(Path::new(out), "image_embeddings.npy");
    let bytes: Vec<u8> = images.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(matrix.ends_with(&bytes) && matrix.len() == bytes.len() + 128);
}

#[test]
fn what_cannot_be_encoded_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
        run(command.current_dir(folder.path()).args(arguments)).assert_code(1).assert_says(words);
    };
    let embed = ["embed", "--data", "nowhere", "--out", "out", "--checkpoint"];
    refused(&[&embed[..], &["."]].concat(), &["there is no `open_clip_model.safetensors`"]);
    refused(&[&embed[..], &["weights.pt"]].concat(), &["`weights.pt` is a pickle"]);
    let config = ModelConfig::from_json("test", MODEL).unwrap();
    Clip::new(&config, Device::Cpu, 17).write_folder(folder.path()).unwrap();
    refused(
        &[&embed[..], &[".", "--model", "ViT-B-32"]].concat(),
        &["does not fit the model", "another shape"],
    );
    refused(&[&embed[..], &["."]].concat(), &["nowhere"]);
    refused(&[&embed[..], &[".", "--captions", "txt,,alt"]].concat(), &["`captions` is `txt,,alt`"]);
}
