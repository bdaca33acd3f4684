use fastclip_schemas::foreign_json;
use fastclip_shards::tar::{Entry, Salvaged, Salvager, split_name};
use fastclip_shards::{SampleGrouper, SampleSpan};
use serde_json::Value;

use super::{JsonKeys, ScannedSample};

/// JSON members above this are not looked into.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// All whole samples of a damaged tar.
pub(super) fn salvage(tar: &[u8], json_keys: JsonKeys) -> Vec<ScannedSample> {
    let mut samples = Samples::default();
    for item in Salvager::new(tar) {
        match item {
            Salvaged::Member(entry) => {
                let data = || &tar[entry.data_start as usize..][..entry.num_bytes as usize];
                let has_key = json_keys == JsonKeys::Read && is_small_json(&entry);
                samples.add(&entry, has_key.then(data));
            }
            Salvaged::Damage { .. } => samples.interrupt(),
        }
    }
    samples.finish()
}

/// Samples as their members arrive.
///
/// One beside damage may lack members, and nothing in it says so. It counts as whole if it has those that the first
/// undisturbed sample of the shard has.
#[derive(Default)]
pub(super) struct Samples {
    done: Vec<Neighbour>,
    grouper: SampleGrouper,
    json_key: Option<Result<u64, String>>,
    is_beside_damage: bool,
}

struct Neighbour {
    sample: ScannedSample,
    is_beside_damage: bool,
}

impl Samples {
    pub(super) fn add(&mut self, entry: &Entry, json: Option<&[u8]>) {
        if let Some(span) = self.grouper.add(entry) {
            self.close(span);
            self.is_beside_damage = false;
        }
        if let Some(json) = json {
            self.json_key = Some(key_of(json));
        }
    }

    fn close(&mut self, span: SampleSpan) {
        let sample = ScannedSample { span, json_key: self.json_key.take() };
        self.done.push(Neighbour { sample, is_beside_damage: self.is_beside_damage });
    }

    pub(super) fn interrupt(&mut self) {
        self.is_beside_damage = true;
        if let Some(span) = self.grouper.interrupt() {
            self.close(span);
        }
        self.json_key = None;
    }

    pub(super) fn finish(mut self) -> Vec<ScannedSample> {
        if let Some(span) = self.grouper.interrupt() {
            self.close(span);
        }
        let usual = self.done.iter().find(|neighbour| !neighbour.is_beside_damage);
        let usual = usual.map(|neighbour| neighbour.sample.members());
        let whole = self
            .done
            .into_iter()
            .filter(|neighbour| !neighbour.is_beside_damage || Some(neighbour.sample.members()) == usual);
        whole.map(|neighbour| neighbour.sample).collect()
    }
}

pub(super) fn is_small_json(entry: &Entry) -> bool {
    let is_json = split_name(&entry.name).is_some_and(|(_, extension)| extension == "json");
    entry.is_file && is_json && entry.num_bytes <= MAX_JSON_BYTES
}

/// The whole number in field `key`, which is often text with leading zeros.
fn key_of(json: &[u8]) -> Result<u64, String> {
    let object: Value = foreign_json(json).map_err(|error| format!("its JSON is unreadable: {error}"))?;
    let key = object.get("key").ok_or("its JSON has no `key`")?;
    let number = match key {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    number.ok_or_else(|| format!("its `key` is {key}, which is no whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_numbers_with_or_without_zeros() {
        assert_eq!(key_of(br#"{"key": "000010005"}"#), Ok(10_005));
        assert_eq!(key_of(br#"{"key": 7}"#), Ok(7));
        for (json, message) in [
            (&br#"{"key": "a1"}"#[..], "its `key` is \"a1\", which is no whole number"),
            (br#"{"key": -1}"#, "its `key` is -1, which is no whole number"),
            (br#"{"url": 1}"#, "its JSON has no `key`"),
        ] {
            assert_eq!(key_of(json).unwrap_err(), message);
        }
    }
}
