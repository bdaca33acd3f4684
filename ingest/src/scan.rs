use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastclip_schemas::Digest;
use fastclip_shards::tar::{Entry, Salvaged, Salvager, StreamScanner, TarError, split_name};
use fastclip_shards::{Compression, SampleGrouper, SampleSpan, Store, StoreError, StoreErrorKind};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

/// Damaged shards above this are not searched for what follows the damage, since that takes them into memory.
const MAX_SALVAGED_BYTES: u64 = 4 << 30;

/// JSON members above this are not looked into.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// Members that hold the image of a sample, as readers of shards look for them.
pub(crate) const IMAGE_MEMBERS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// What a tar holds, found by reading all of it once.
#[derive(Debug)]
pub(crate) struct ScannedShard {
    /// Size of the file.
    pub(crate) num_bytes: u64,
    /// Size of the tar in it, which is another one where it is compressed.
    pub(crate) tar_bytes: u64,
    pub(crate) digest: Digest,
    /// Samples that are whole, on both sides of any damage.
    pub(crate) samples: Vec<ScannedSample>,
    pub(crate) damage: Option<Damage>,
}

/// Where a tar can not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// What is wrong, in the first place.
    pub(crate) cause: TarError,
    /// Whole samples before that.
    pub(crate) num_before: usize,
    /// Whole samples after it.
    pub(crate) num_after: usize,
}

/// One sample of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScannedSample {
    pub(crate) span: SampleSpan,
    /// The number in the `key` field of its JSON member, or why there is none. `None` without such a member.
    pub(crate) json_key: Option<Result<u64, String>>,
}

impl ScannedSample {
    fn members(&self) -> BTreeSet<String> {
        self.span.extensions.iter().cloned().collect()
    }

    pub(crate) fn has_image(&self) -> bool {
        self.span.extensions.iter().any(|extension| IMAGE_MEMBERS.contains(&extension.as_str()))
    }

    /// Whether there is something to learn or to judge by: a caption or a class.
    pub(crate) fn has_text_or_class(&self) -> bool {
        self.span.extensions.iter().any(|extension| extension == "txt" || extension == "cls")
    }
}

/// Reads a tar from its first byte to its last, damaged or not: the digest is of all of it. A damaged one is read again.
pub(crate) async fn scan(store: Store, name: String) -> Result<ScannedShard, StoreError> {
    let compression = Compression::of(&name);
    let file = Arc::new(Mutex::new(File::default()));
    let taker = Arc::clone(&file);
    let pieces = store.stream(&name).await?.inspect_ok(move |piece| locked(&taker).take(piece)).boxed();
    let mut pieces = match compression {
        None => pieces,
        Some(compression) => compression.decompress(pieces),
    };
    let mut tar_bytes = 0;
    let mut scanner = StreamScanner::new();
    let mut samples = Samples::default();
    let mut damage = None;
    loop {
        let piece = match pieces.try_next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) if error.kind() == StoreErrorKind::Damaged => {
                let reason = error.to_string();
                damage = damage.or(Some(TarError::Compression { offset: tar_bytes, reason }));
                // What lies behind was not looked at.
                *locked(&file) = File::read(&store, &name).await?;
                break;
            }
            Err(error) => return Err(error),
        };
        tar_bytes += piece.len() as u64;
        if damage.is_none() {
            damage = scanner.push(&piece, is_small_json, |entry, data| samples.add(entry, data)).err();
        }
    }
    let damage = damage.or_else(|| scanner.finish().err());
    let File { digest, num_bytes } = std::mem::take(&mut *locked(&file));
    let digest = Digest(*digest.finalize().as_bytes());
    let Some(cause) = damage else {
        let samples = samples.finish();
        return Ok(ScannedShard { num_bytes, tar_bytes, digest, samples, damage: None });
    };
    samples.interrupt();
    let before = samples.finish();
    let num_before = before.len();
    let samples = match compression {
        None if num_bytes <= MAX_SALVAGED_BYTES => salvage(&store.get(&name).await?),
        _ => before,
    };
    let damage = Damage { cause, num_before, num_after: samples.len().saturating_sub(num_before) };
    Ok(ScannedShard { num_bytes, tar_bytes, digest, samples, damage: Some(damage) })
}

/// A file as it lies in the store.
#[derive(Default)]
struct File {
    digest: blake3::Hasher,
    num_bytes: u64,
}

impl File {
    fn take(&mut self, piece: &[u8]) {
        self.digest.update(piece);
        self.num_bytes += piece.len() as u64;
    }

    async fn read(store: &Store, name: &str) -> Result<Self, StoreError> {
        let mut file = Self::default();
        let mut pieces = store.stream(name).await?;
        while let Some(piece) = pieces.try_next().await? {
            file.take(&piece);
        }
        Ok(file)
    }
}

fn locked(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All whole samples of a damaged tar.
fn salvage(tar: &[u8]) -> Vec<ScannedSample> {
    let mut samples = Samples::default();
    for item in Salvager::new(tar) {
        match item {
            Salvaged::Member(entry) => {
                let data = || &tar[entry.data_start as usize..][..entry.num_bytes as usize];
                samples.add(&entry, is_small_json(&entry).then(data));
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
struct Samples {
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
    fn add(&mut self, entry: &Entry, json: Option<&[u8]>) {
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

    fn interrupt(&mut self) {
        self.is_beside_damage = true;
        if let Some(span) = self.grouper.interrupt() {
            self.close(span);
        }
        self.json_key = None;
    }

    fn finish(mut self) -> Vec<ScannedSample> {
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

fn is_small_json(entry: &Entry) -> bool {
    let is_json = split_name(&entry.name).is_some_and(|(_, extension)| extension == "json");
    entry.is_file && is_json && entry.num_bytes <= MAX_JSON_BYTES
}

/// The whole number in field `key`, which is often text with leading zeros.
fn key_of(json: &[u8]) -> Result<u64, String> {
    let object: Value =
        serde_json::from_slice(json).map_err(|error| format!("its JSON is unreadable: {error}"))?;
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
