use std::fmt::Write;

use fastclip_schemas::Digest;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Begins every entry; the digit is the version of the format.
const MAGIC: &[u8; 8] = b"FCENTRY1";
/// Magic and checksum.
pub(super) const HEADER_BYTES: u64 = 16;

/// Names what an entry holds: a block of the tar in the shard with this digest, or the whole index with this digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryKey {
    pub(crate) digest: Digest,
    /// Number of the block; 0 for an index.
    pub(crate) number: u64,
}

impl EntryKey {
    /// Name of the folder that holds the entry, one of 256.
    pub(super) fn folder_name(&self) -> String {
        format!("{:02x}", self.digest.0[0])
    }

    /// Name of its file.
    pub(super) fn file_name(&self) -> String {
        let mut name = String::with_capacity(80);
        for byte in self.digest.0 {
            write!(name, "{byte:02x}").expect("a string takes what is written to it");
        }
        write!(name, "-{:x}", self.number).expect("a string takes what is written to it");
        name
    }

    /// Header of an entry with this content. The checksum covers the name, so that an entry under another one is noticed.
    pub(super) fn header(&self, content: &[u8]) -> [u8; HEADER_BYTES as usize] {
        let mut name = [0; 40];
        name[..32].copy_from_slice(&self.digest.0);
        name[32..].copy_from_slice(&self.number.to_le_bytes());
        let checksum = xxh3_64_with_seed(content, xxh3_64(&name));
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&checksum.to_le_bytes());
        header
    }
}

/// Whether a file of this name is an entry, or was to become one.
pub(super) fn is_entry(name: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let Some((digest, rest)) = name.split_once('-') else { return false };
    // What follows a dot is the number of a process and of a file of it.
    digest.len() == 64
        && is_hex(digest)
        && rest.split(['.', '-']).all(|part| !part.is_empty() && is_hex(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries_are_known_again_and_others_are_not() {
        let key = EntryKey { digest: Digest([0xa7; 32]), number: 300 };
        let name = key.file_name();
        assert_eq!((key.folder_name().as_str(), &name[64..]), ("a7", "-12c"));
        assert!(is_entry(&name) && is_entry(&format!("{name}.4711-3")));
        for other in ["", "a7", "holiday.jpg", &name[1..], &format!("{name}.jpg"), &format!("{name}.")] {
            assert!(!is_entry(other), "{other}");
        }
    }

    #[test]
    fn the_header_depends_on_content_and_name() {
        let key = |first, number| EntryKey { digest: Digest([first; 32]), number };
        let headers = [
            key(1, 0).header(b"content"),
            key(1, 1).header(b"content"),
            key(2, 0).header(b"content"),
            key(1, 0).header(b"contents"),
        ];
        for (i, header) in headers.iter().enumerate() {
            assert!(!headers[..i].contains(header), "{headers:?}");
        }
    }
}
