//! What a tar holds, found by reading all of it once.

mod samples;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastclip_schemas::Digest;
use fastclip_shards::tar::{Entry, StreamScanner, TarError};
use fastclip_shards::{Compression, SampleSpan, Store, StoreError, StoreErrorKind};
use futures::TryStreamExt;

use samples::{Samples, is_small_json, salvage};

/// Damaged shards above this are not searched for what follows the damage, since that takes them into memory.
const MAX_SALVAGED_BYTES: u64 = 4 << 30;

/// Members that hold the image of a sample, as readers of shards look for them.
pub(crate) const IMAGE_MEMBERS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// What a tar holds.
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

/// Looks at the data of members while they pass by.
pub(crate) trait Onlooker: Send + 'static {
    /// Whether the data of this member is to be shown. It is then held in memory, whole.
    fn wants(&self, entry: &Entry) -> bool;

    /// Shows it.
    fn see(&mut self, entry: &Entry, data: &[u8]);
}

/// Sees nothing.
impl Onlooker for () {
    fn wants(&self, _: &Entry) -> bool {
        false
    }

    fn see(&mut self, _: &Entry, _: &[u8]) {}
}

/// Whether the `key` fields of JSON members are looked up, which costs more than all else but the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonKeys {
    Read,
    Ignore,
}

/// Reads a tar from its first byte to its last, damaged or not: the digest is of all of it. A damaged one is read again.
pub(crate) async fn scan<O: Onlooker>(
    store: Store,
    name: String,
    json_keys: JsonKeys,
    onlooker: O,
) -> Result<(ScannedShard, O), StoreError> {
    let compression = Compression::of(&name);
    let (File { digest, num_bytes }, tar) = match compression {
        None => {
            let state = (File::default(), TarScan::new(json_keys, onlooker));
            let take = |(file, tar): &mut (File, TarScan<O>), piece: &[u8]| {
                file.take(piece);
                tar.take(piece);
            };
            store.fold(&name, state, take).await?
        }
        Some(compression) => {
            scan_compressed(&store, &name, compression, TarScan::new(json_keys, onlooker)).await?
        }
    };
    let digest = Digest(*digest.finalize().as_bytes());
    let TarScan { scanner, mut samples, damage, tar_bytes, onlooker, .. } = tar;
    let Some(cause) = damage.or_else(|| scanner.finish().err()) else {
        let samples = samples.finish();
        return Ok((ScannedShard { num_bytes, tar_bytes, digest, samples, damage: None }, onlooker));
    };
    samples.interrupt();
    let before = samples.finish();
    let num_before = before.len();
    let samples = match compression {
        None if num_bytes <= MAX_SALVAGED_BYTES => salvage(&store.get(&name).await?, json_keys),
        _ => before,
    };
    let damage = Damage { cause, num_before, num_after: samples.len().saturating_sub(num_before) };
    Ok((ScannedShard { num_bytes, tar_bytes, digest, samples, damage: Some(damage) }, onlooker))
}

async fn scan_compressed<O: Onlooker>(
    store: &Store,
    name: &str,
    compression: Compression,
    mut tar: TarScan<O>,
) -> Result<(File, TarScan<O>), StoreError> {
    let file = Arc::new(Mutex::new(File::default()));
    let taker = Arc::clone(&file);
    let pieces = store.stream(name).await?.inspect_ok(move |piece| locked(&taker).take(piece));
    let mut pieces = compression.decompress(Box::pin(pieces));
    loop {
        match pieces.try_next().await {
            Ok(Some(piece)) => tar.take(&piece),
            Ok(None) => break,
            Err(error) if error.kind() == StoreErrorKind::Damaged => {
                tar.end(error.to_string());
                // What lies behind was not looked at.
                return Ok((store.fold(name, File::default(), File::take).await?, tar));
            }
            Err(error) => return Err(error),
        }
    }
    let file = std::mem::take(&mut *locked(&file));
    Ok((file, tar))
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
}

fn locked(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tar in it, up to where it is damaged.
struct TarScan<O> {
    scanner: StreamScanner,
    samples: Samples,
    damage: Option<TarError>,
    tar_bytes: u64,
    json_keys: JsonKeys,
    onlooker: O,
}

impl<O: Onlooker> TarScan<O> {
    fn new(json_keys: JsonKeys, onlooker: O) -> Self {
        let (scanner, samples) = (StreamScanner::new(), Samples::default());
        Self { scanner, samples, damage: None, tar_bytes: 0, json_keys, onlooker }
    }

    fn take(&mut self, piece: &[u8]) {
        self.tar_bytes += piece.len() as u64;
        if self.damage.is_some() {
            return;
        }
        // Asked and shown in turn, never at once.
        let onlooker = RefCell::new(&mut self.onlooker);
        let has_key = |entry: &Entry| self.json_keys == JsonKeys::Read && is_small_json(entry);
        let wants = |entry: &Entry| has_key(entry) || onlooker.borrow().wants(entry);
        let visit = |entry: &Entry, data: Option<&[u8]>| {
            self.samples.add(entry, data.filter(|_| has_key(entry)));
            let mut onlooker = onlooker.borrow_mut();
            if let Some(data) = data.filter(|_| onlooker.wants(entry)) {
                onlooker.see(entry, data);
            }
        };
        self.damage = self.scanner.push(piece, wants, visit).err();
    }

    fn end(&mut self, reason: String) {
        let offset = self.tar_bytes;
        self.damage.get_or_insert(TarError::Compression { offset, reason });
    }
}
