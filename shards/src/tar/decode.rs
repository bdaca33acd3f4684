use super::header::{Header, until_nul};
use super::{BLOCK_BYTES, TarError, padded, pax};

/// Longest extension record that is read. Real ones hold a path; the bound keeps a damaged size from filling memory.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// One member of a tar and where it lies. Offsets count from the start of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Full name.
    pub name: String,
    /// Whether it is a regular file, the only kind that belongs to samples.
    pub is_file: bool,
    /// Where its first header starts, extension records included.
    pub start: u64,
    /// Where its data starts.
    pub data_start: u64,
    /// Length of its data.
    pub num_bytes: u64,
    /// Where the next member starts: after the padding.
    pub end: u64,
}

/// Turns headers into entries. It sees blocks, never whole tars, so scanners over slices and over streams share it.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Where the first extension record of the coming member started.
    start: Option<u64>,
    path: Option<String>,
    num_bytes: Option<u64>,
}

/// What a header block announces.
#[derive(Debug)]
pub(super) enum Block {
    /// The end mark.
    End,
    /// A record about members to come; its data goes to [`Decoder::take_extension`].
    Extension(Extension),
    /// A member.
    Member(Entry),
}

/// A record about members to come.
#[derive(Debug)]
pub(super) struct Extension {
    kind: ExtensionKind,
    pub(super) offset: u64,
    pub(super) num_bytes: u64,
}

impl Extension {
    /// Length of its data with padding.
    pub(super) fn padded_bytes(&self) -> u64 {
        padded(self.num_bytes).expect("the decoder admits no extension above 1 MiB")
    }
}

#[derive(Debug)]
enum ExtensionKind {
    Pax,
    PaxGlobal,
    LongName,
    /// Says where a link points, which samples do not care about.
    LongLink,
}

impl Decoder {
    /// Whether extension records wait for their member.
    pub(super) fn is_waiting(&self) -> Option<u64> {
        self.start
    }

    /// Takes the header block at `offset`.
    pub(super) fn take_header(&mut self, offset: u64, block: &[u8; BLOCK_BYTES]) -> Result<Block, TarError> {
        let Some(header) = Header::parse(block, offset)? else {
            return match self.start {
                Some(offset) => Err(TarError::Extension { offset, reason: "no member follows it" }),
                None => Ok(Block::End),
            };
        };
        let extension = match header.kind() {
            b'x' => ExtensionKind::Pax,
            b'g' => ExtensionKind::PaxGlobal,
            b'L' => ExtensionKind::LongName,
            b'K' => ExtensionKind::LongLink,
            b'S' => return Err(TarError::Unsupported { offset, what: "a sparse file" }),
            kind => return self.member(&header, kind, offset).map(Block::Member),
        };
        let num_bytes = header.size()?;
        if num_bytes > MAX_EXTENSION_BYTES {
            return Err(TarError::Extension { offset, reason: "it is longer than 1 MiB" });
        }
        Ok(Block::Extension(Extension { kind: extension, offset, num_bytes }))
    }

    /// Takes the data of an extension record, without padding.
    pub(super) fn take_extension(&mut self, extension: &Extension, data: &[u8]) -> Result<(), TarError> {
        let offset = extension.offset;
        let fail = |reason| TarError::Extension { offset, reason };
        match extension.kind {
            ExtensionKind::Pax => {
                for record in pax::records(data) {
                    let (key, value) = record.map_err(fail)?;
                    match key {
                        "path" => self.path = Some(String::from_utf8_lossy(value).into_owned()),
                        "size" => self.num_bytes = Some(pax::number(value).ok_or(TarError::Size { offset })?),
                        _ if key.starts_with("GNU.sparse.") => {
                            return Err(TarError::Unsupported { offset, what: "a sparse file" });
                        }
                        _ => {}
                    }
                }
            }
            // Applies to every member after it. A sample is later read alone, without what stood before it, so nothing
            // that places members may come from here. Programs use it for comments.
            ExtensionKind::PaxGlobal => {
                for record in pax::records(data) {
                    if let ("path" | "size", _) = record.map_err(fail)? {
                        return Err(fail("it sets path or size for all members"));
                    }
                }
                return Ok(());
            }
            ExtensionKind::LongName => {
                self.path = Some(String::from_utf8_lossy(until_nul(data)).into_owned());
            }
            ExtensionKind::LongLink => {}
        }
        self.start.get_or_insert(offset);
        Ok(())
    }

    fn member(&mut self, header: &Header<'_>, kind: u8, offset: u64) -> Result<Entry, TarError> {
        let Self { start, path, num_bytes } = std::mem::take(self);
        let name = path.unwrap_or_else(|| header.name());
        // Before POSIX a folder was a file whose name ends in a slash.
        let is_file = matches!(kind, b'0' | b'7' | 0) && !name.ends_with('/');
        let num_bytes = match kind {
            // Links, devices, folders and pipes have no data, whatever their size says.
            b'1'..=b'6' => 0,
            _ => num_bytes.map_or_else(|| header.size(), Ok)?,
        };
        let data_start = offset + BLOCK_BYTES as u64;
        let end = padded(num_bytes).and_then(|padded| data_start.checked_add(padded));
        let end = end.ok_or(TarError::Size { offset })?;
        Ok(Entry { name, is_file, start: start.unwrap_or(offset), data_start, num_bytes, end })
    }
}
