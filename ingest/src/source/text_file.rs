use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::SourceError;

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
pub(super) fn open(path: &Path) -> Result<TextFile, SourceError> {
    let failed = |source| SourceError::read(path, source);
    let file = File::open(path).map_err(failed)?;
    let file: Box<dyn Read + Send> = match Packing::of(path) {
        None => Box::new(file),
        Some(Packing::Gzip) => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file))),
        Some(Packing::Zstd) => Box::new(zstd::Decoder::new(file).map_err(failed)?),
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}
