use std::fmt;

use md5::Md5;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha512};

use crate::source::text;

/// How the bytes that a host sent are told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKind {
    /// What older lists, LAION's among them, come with. Safe against chance, not against intent.
    Md5,
    /// The default.
    Sha256,
    /// The longest.
    Sha512,
}

/// A column of a list with the hash that each image must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashColumn {
    /// Its name. It holds hexadecimal digits.
    pub name: String,
    /// Of which kind they are.
    pub kind: HashKind,
}

impl HashColumn {
    /// What it says of a row, empty where it says nothing.
    pub(crate) fn of(&self, columns: &Map<String, Value>) -> (HashKind, String) {
        let digits = text(columns.get(&self.name).cloned()).unwrap_or_default();
        (self.kind, digits.trim().to_lowercase())
    }
}

impl HashKind {
    /// The column that holds it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Hexadecimal digits, in lower case.
    pub(crate) fn of(self, bytes: &[u8]) -> String {
        match self {
            Self::Md5 => digits(&Md5::digest(bytes)),
            Self::Sha256 => digits(&Sha256::digest(bytes)),
            Self::Sha512 => digits(&Sha512::digest(bytes)),
        }
    }
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn digits(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_programs_of_their_names() {
        let bytes = b"a dog\n";
        assert_eq!(HashKind::Md5.of(bytes), "368ab08fd848d3e937262c8ee0101711");
        assert_eq!(
            HashKind::Sha256.of(bytes),
            "c7929c8af32293b3b95214a5640e7077ca455a2b626344b69e0ced77ceed9742"
        );
        assert_eq!(
            HashKind::Sha512.of(bytes),
            "1ba789a9cb95e36f3b46c384b4f500b3d48f8fb5f0bafe6e3d66becf71019910\
             f0a0aab4946f21635337f35f1e7c60c2000025cd859e41a58d1737973411f297"
        );
    }
}
