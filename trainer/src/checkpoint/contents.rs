//! What a checkpoint consists of.

use serde::{Deserialize, Serialize};

use super::CheckpointError;

/// The file that makes a checkpoint complete. It is written last.
pub(super) const CONTENTS_FILE: &str = "checkpoint.json";

const FORMAT_VERSION: u32 = 2;

/// A file of a checkpoint, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRecord {
    pub(super) name: String,
    pub(super) num_bytes: u64,
    pub(super) blake3: String,
}

impl FileRecord {
    /// Checks that `bytes` are those that were written.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let found = bytes.len() as u64;
        if found != self.num_bytes {
            return Err(format!("it has {found} bytes, {} were written", self.num_bytes));
        }
        let digest = blake3::hash(bytes).to_hex();
        if *digest != *self.blake3 {
            return Err(format!("its digest is {digest}, that of what was written is {}", self.blake3));
        }
        Ok(())
    }
}

/// All files of a checkpoint but the one that holds this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    format_version: u32,
    pub(super) files: Vec<FileRecord>,
}

impl Contents {
    pub(super) fn new(files: Vec<FileRecord>) -> Self {
        Self { format_version: FORMAT_VERSION, files }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec_pretty(self).expect("names, sizes and digests can be written as JSON");
        text.push(b'\n');
        text
    }

    /// Reads them back; `file` is for messages.
    pub(super) fn parse(file: &str, text: &[u8]) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let json = |source| CheckpointError::Json { file: file.to_owned(), source };
        let Version { format_version: found } = serde_json::from_slice(text).map_err(json)?;
        if found != FORMAT_VERSION {
            return Err(CheckpointError::Version { file: file.to_owned(), found, expected: FORMAT_VERSION });
        }
        serde_json::from_slice(text).map_err(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8]) -> FileRecord {
        let blake3 = blake3::hash(bytes).to_hex().to_string();
        FileRecord { name: "a".to_owned(), num_bytes: bytes.len() as u64, blake3 }
    }

    #[test]
    fn a_file_that_changed_says_how() {
        let record = record(b"12345");
        assert_eq!(record.check(b"12345"), Ok(()));
        assert_eq!(record.check(b"1234").unwrap_err(), "it has 4 bytes, 5 were written");
        assert!(record.check(b"12344").unwrap_err().starts_with("its digest is "));
    }

    #[test]
    fn contents_survive_writing_and_reading_and_another_version_is_refused() {
        let contents = Contents::new(vec![record(b"1")]);
        let text = contents.to_bytes();
        assert_eq!(Contents::parse("x", &text).unwrap(), contents);
        let other =
            String::from_utf8(text).unwrap().replace("\"format_version\": 2", "\"format_version\": 3");
        let error = Contents::parse("run/step_1/checkpoint.json", other.as_bytes()).unwrap_err();
        let expected = "`run/step_1/checkpoint.json` has format version 3, this program reads version 2";
        assert_eq!(error.to_string(), expected);
    }
}
