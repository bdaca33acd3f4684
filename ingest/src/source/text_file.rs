use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fastclip_schemas::Digest;
use flate2::read::MultiGzDecoder;

use super::SourceError;
use super::place::Place;

/// Bytes asked for at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// A file that is read from its beginning, unpacked on the way.
pub(super) type TextFile = BufReader<Box<dyn Read + Send>>;

/// How a file is packed, by its last extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    pub(super) fn of(path: &Path) -> Option<Self> {
        match extension(path).as_str() {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The last extension in lower case, empty where there is none.
pub(super) fn extension(path: &Path) -> String {
    path.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase()
}

/// Opens a file of text. Several packed files in one, as parallel compressors write them, are read one after another.
pub(super) fn open(place: &Place) -> Result<TextFile, SourceError> {
    unpack(place, place.open()?)
}

/// Opens a file whose digest is known when all of it has been read.
pub(super) fn open_digested(place: &Place) -> Result<(TextFile, RunningDigest), SourceError> {
    let digest = RunningDigest::default();
    let file = Digested { file: place.open()?, digest: digest.clone() };
    Ok((unpack(place, Box::new(file))?, digest))
}

fn unpack(place: &Place, file: Box<dyn Read + Send>) -> Result<TextFile, SourceError> {
    let path = place.path();
    let file: Box<dyn Read + Send> = match Packing::of(path) {
        None => file,
        Some(Packing::Gzip) => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file))),
        Some(Packing::Zstd) => {
            Box::new(zstd::Decoder::new(file).map_err(|source| SourceError::read(path, source))?)
        }
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

/// Digest of the bytes that were read so far, as they lie in the file.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningDigest(Arc<Mutex<blake3::Hasher>>);

impl RunningDigest {
    fn update(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(*self.0.lock().unwrap_or_else(PoisonError::into_inner).finalize().as_bytes())
    }
}

struct Digested {
    file: Box<dyn Read + Send>,
    digest: RunningDigest,
}

impl Read for Digested {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_bytes = self.file.read(buffer)?;
        self.digest.update(&buffer[..num_bytes]);
        Ok(num_bytes)
    }
}
