//! What we write, the Python tools read: `tarfile`, `webdataset` and OpenCLIP's pipeline give the same keys, bytes and captions.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;

use fastclip_loader::decode_rgb;
use fastclip_testkit::{Pair, Python, TinyDataset, WebAnswer, WebServer, run};
use fastclip_tests::{StoredSample, ToyWorld, ingest, read_all};
use serde::Deserialize;
use tempfile::TempDir;

/// A sample as a Python script prints it: bytes as hexadecimal digits.
#[derive(Debug, Deserialize)]
struct Seen {
    key: String,
    members: BTreeMap<String, String>,
}

const WITH_TARFILE: &str = r#"
import json, sys, tarfile
samples = []
for path in sys.argv[1:]:
    with tarfile.open(path) as tar:
        for member in tar:
            assert member.isreg() and member.mtime == 0 and member.mode == 0o644, member.get_info()
            assert not member.pax_headers, "plain ustar needs no extended headers"
            key, extension = member.name.split(".", 1)
            if not samples or samples[-1]["key"] != key:
                samples.append({"key": key, "members": {}})
            samples[-1]["members"][extension] = tar.extractfile(member).read().hex()
print(json.dumps(samples))
"#;

const WITH_WEBDATASET: &str = r#"
import json, sys, webdataset
samples = []
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
    members = {name: data.hex() for name, data in sample.items() if not name.startswith("__")}
    samples.append({"key": sample["__key__"], "members": members})
print(json.dumps(samples))
"#;

/// Decodes as the usual training code does: image by PIL, caption as text, class as a number.
const DECODED: &str = r#"
import json, sys, webdataset
dataset = webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("pil").to_tuple("jpg", "txt", "cls", "json")
print(json.dumps([[image.size, caption, cls, row["shape"]] for image, caption, cls, row in dataset]))
"#;

/// Reads shards as OpenCLIP's `--train-data` and `--val-data` do, from tars to batches. In place of transform and tokenizer, which
/// are not about shards, pixels and characters stay what they are.
const WITH_OPEN_CLIP: &str = r#"
import json, sys
import numpy, torch
from argparse import Namespace
from open_clip_train.data import get_wds_dataset

def pixels(image):
    return torch.from_numpy(numpy.asarray(image).copy())

def characters(caption):
    return torch.tensor([[ord(character) for character in caption.ljust(80)]])

shards = "::".join(sys.argv[1:])
args = Namespace(train_data=shards, val_data=shards, train_num_samples=None, val_num_samples=0, batch_size=3,
                 train_data_upsampling_factors=None, seed=0, workers=0, world_size=1)
read = {}
for is_train in (True, False):
    data = get_wds_dataset(args, pixels, is_train, tokenizer=characters)
    data.set_epoch(0)
    read["train" if is_train else "val"] = samples = []
    for images, texts in data.dataloader:
        for image, text in zip(images, texts):
            caption = "".join(chr(number) for number in text.tolist()).rstrip()
            samples.append([caption, image.numpy().tobytes().hex()])
    if is_train:
        read["num_samples"] = data.dataloader.num_samples
print(json.dumps(read))
"#;

/// What OpenCLIP's pipeline gave: captions, and pixels as hexadecimal digits.
#[derive(Debug, Deserialize)]
struct Fed {
    num_samples: usize,
    train: Vec<(String, String)>,
    val: Vec<(String, String)>,
}

/// Has the script read all shards of a dataset and compares with what our reader finds.
fn assert_reads_the_same(script: &str, location: &str) {
    let ours = read_all(location);
    let seen: Vec<Seen> = serde_json::from_str(&Python::new().run(script, &shards(location, &ours))).unwrap();
    assert_eq!(seen.len(), ours.len());
    for (seen, ours) in seen.iter().zip(&ours) {
        assert_eq!(seen.key, ours.key);
        assert!(seen.members.keys().eq(ours.members.keys()), "{seen:?} and {ours:?}");
        for (extension, data) in &ours.members {
            assert_eq!(seen.members[extension], hex(data), "member `{extension}` of `{}`", ours.key);
        }
    }
}

fn shards(location: &str, samples: &[StoredSample]) -> Vec<String> {
    let mut names: Vec<&str> = samples.iter().map(|sample| sample.shard.as_str()).collect();
    names.dedup();
    assert!(names.len() > 1, "one shard would not show that all are read");
    names.into_iter().map(|name| format!("{location}/{name}")).collect()
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tarfile_finds_the_same_keys_and_bytes() {
    let tiny = TinyDataset::new(23, 10);
    assert_reads_the_same(WITH_TARFILE, tiny.location());
}

#[test]
fn webdataset_finds_the_same_keys_and_bytes() {
    let tiny = TinyDataset::new(23, 10);
    assert_reads_the_same(WITH_WEBDATASET, tiny.location());
}

#[test]
fn a_packed_toy_world_decodes_in_python() {
    let world = ToyWorld::new(90, 10);
    assert_reads_the_same(WITH_TARFILE, &world.train());
    assert_reads_the_same(WITH_WEBDATASET, &world.train());
    let ours = read_all(&world.train());
    let printed = Python::new().run(DECODED, &shards(&world.train(), &ours));
    let decoded: Vec<((u32, u32), String, i64, String)> = serde_json::from_str(&printed).unwrap();
    assert_eq!(decoded.len(), 90);
    for ((size, caption, class, shape), sample) in decoded.into_iter().zip(&ours) {
        assert_eq!(size, (32, 32));
        assert_eq!(caption, sample.text("txt"));
        assert_eq!(class.to_string(), sample.text("cls"));
        assert!(sample.text("json").contains(&shape), "{sample:?}");
    }
}

/// 24 images of a real download, in shards of eight rows, of which the second and the third lack some.
fn downloaded(folder: &TempDir) -> String {
    let server = WebServer::start();
    let mut list = "url,caption\n".to_owned();
    for row in 0..30 {
        let path = format!("/{row}.jpg");
        let pair = Pair::new(row, 24);
        if !(10..16).contains(&row) {
            server.answer(&path, WebAnswer::Body(pair.jpeg));
        }
        list += &format!("{},\"größer, {}\"\n", server.url(&path), pair.caption);
    }
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("list.csv"), list).unwrap();
    let (list, output) = (path("list.csv"), path("out"));
    let command = ["download", "--input", &list, "--output", &output, "--image-size", "16"];
    let rules = ["--resize-mode", "keep_ratio", "--number-sample-per-shard", "8", "--allow-private-hosts"];
    run(&mut ingest([&command[..], &rules].concat())).assert_code(0);
    output
}

#[test]
fn what_was_downloaded_reads_the_same_in_python() {
    let folder = TempDir::new().unwrap();
    let output = downloaded(&folder);
    assert_reads_the_same(WITH_TARFILE, &output);
    assert_reads_the_same(WITH_WEBDATASET, &output);
}

#[test]
fn open_clips_pipeline_is_fed_by_what_was_downloaded() {
    let folder = TempDir::new().unwrap();
    let output = downloaded(&folder);
    let ours = read_all(&output);
    assert_eq!(ours.len(), 24);
    let mut expected: Vec<_> = ours
        .iter()
        .map(|sample| {
            let pixels = hex(&decode_rgb(&sample.members["jpg"]).unwrap().pixels);
            (sample.text("txt").to_owned(), pixels)
        })
        .collect();
    let printed = Python::with_open_clip_pipeline().run(WITH_OPEN_CLIP, &shards(&output, &ours));
    let mut fed: Fed = serde_json::from_str(&printed).unwrap();
    assert_eq!(fed.num_samples, 24, "OpenCLIP finds the number of samples in sizes.json");
    assert_eq!(fed.val, expected, "evaluation reads in order");
    assert_ne!(fed.train, expected, "training shuffles");
    fed.train.sort();
    expected.sort();
    assert_eq!(fed.train, expected, "training has every sample once");
}
