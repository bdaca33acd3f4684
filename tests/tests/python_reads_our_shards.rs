//! What we write, the Python tools read: `tarfile` and `webdataset` give the same keys, bytes and captions.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;

use fastclip_testkit::{Python, TinyDataset};
use fastclip_tests::{StoredSample, ToyWorld, read_all};
use serde::Deserialize;

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
