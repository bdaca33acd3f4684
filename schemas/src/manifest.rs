use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SampleId;

/// Name of the manifest inside a dataset's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Version of the manifest that this crate writes.
pub const MANIFEST_FORMAT_VERSION: u32 = 1;

/// What a dataset consists of.
///
/// It is written after every shard and index that it names, so a dataset with a manifest is complete. Names are relative
/// to the folder of the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format; a reader refuses versions it does not know.
    pub format_version: u32,
    /// Program and version that wrote the dataset.
    pub created_by: String,
    /// Samples in all shards.
    pub num_samples: u64,
    /// One more than the largest [`SampleId`]: the rows that a table over the dataset needs. At least `num_samples`.
    pub num_sample_ids: u64,
    /// Shards in order of their first sample.
    pub shards: Vec<ShardEntry>,
    /// Free facts about where the data came from, for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source: BTreeMap<String, serde_json::Value>,
}

/// One shard as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name of the tar, relative to the manifest.
    pub name: String,
    /// File name of its index, relative to the manifest.
    pub index: String,
    /// Samples in it.
    pub num_samples: u32,
    /// Size of the tar.
    pub num_bytes: u64,
    /// Digest of the tar.
    pub digest: Digest,
    /// Digest of the index.
    pub index_digest: Digest,
    /// Smallest id in the shard. Where ids are dense the others follow one by one; the index has them all.
    pub first_sample_id: SampleId,
}

/// A BLAKE3 digest, written as `blake3:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub [u8; 32]);

const DIGEST_PREFIX: &str = "blake3:";

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DIGEST_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = ManifestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Digest {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ManifestError::Digest { text: text.to_owned() };
        let hex = text.strip_prefix(DIGEST_PREFIX).ok_or_else(malformed)?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }
}

/// What a manifest says that cannot be true.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The text is not JSON of this format.
    #[error("the manifest is not valid JSON of format version {MANIFEST_FORMAT_VERSION}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer or unknown program.
    #[error("the manifest has format version {found}, this program reads version {MANIFEST_FORMAT_VERSION}")]
    Version {
        /// Version found in the file.
        found: u32,
    },
    /// Not a digest.
    #[error("`{text}` is not a digest: expected `blake3:` and 64 hexadecimal digits")]
    Digest {
        /// What stands there.
        text: String,
    },
    /// Totals and shards disagree.
    #[error("the manifest says {field} = {said}, its shards say {counted}")]
    Total {
        /// Field of the manifest.
        field: &'static str,
        /// Its value.
        said: u64,
        /// The value that follows from the shards.
        counted: u64,
    },
    /// Two shards share a name.
    #[error("the manifest names shard `{name}` twice")]
    DuplicateShard {
        /// The name.
        name: String,
    },
}

impl Manifest {
    /// The manifest of these shards, whose ids end with the last shard's.
    pub fn of_shards(
        created_by: String,
        shards: Vec<ShardEntry>,
        source: BTreeMap<String, serde_json::Value>,
    ) -> Self {
        Self {
            format_version: MANIFEST_FORMAT_VERSION,
            created_by,
            num_samples: num_samples(&shards),
            num_sample_ids: least_num_sample_ids(&shards),
            shards,
            source,
        }
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When the text is not a manifest of a known version, or contradicts itself. Whether the shards are there is for
    /// `ingest verify` to find out.
    pub fn from_json(text: &[u8]) -> Result<Self, ManifestError> {
        // The version first: a newer format may have keys that the full parse would report as unknown instead.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_slice(text)?;
        if format_version != MANIFEST_FORMAT_VERSION {
            return Err(ManifestError::Version { found: format_version });
        }
        let manifest: Self = serde_json::from_slice(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes the manifest as readable JSON that ends in a line feed. Equal manifests give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest holds nothing that JSON cannot");
        text.push(b'\n');
        text
    }

    /// Checks that totals, names and ids agree with the shards.
    ///
    /// # Errors
    /// The first disagreement.
    pub fn check(&self) -> Result<(), ManifestError> {
        let counted = num_samples(&self.shards);
        if counted != self.num_samples {
            return Err(ManifestError::Total { field: "num_samples", said: self.num_samples, counted });
        }
        let least = least_num_sample_ids(&self.shards);
        if least > self.num_sample_ids {
            return Err(ManifestError::Total {
                field: "num_sample_ids",
                said: self.num_sample_ids,
                counted: least,
            });
        }
        let mut names = BTreeSet::new();
        match self.shards.iter().find(|shard| !names.insert(&shard.name)) {
            Some(shard) => Err(ManifestError::DuplicateShard { name: shard.name.clone() }),
            None => Ok(()),
        }
    }
}

fn num_samples(shards: &[ShardEntry]) -> u64 {
    shards.iter().map(|shard| u64::from(shard.num_samples)).sum()
}

/// Ids inside a shard are distinct, so a shard reaches at least as far as its samples from its first id.
fn least_num_sample_ids(shards: &[ShardEntry]) -> u64 {
    let ends =
        shards.iter().map(|shard| shard.first_sample_id.0.saturating_add(u64::from(shard.num_samples)));
    ends.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format_version: MANIFEST_FORMAT_VERSION,
            created_by: "test".to_owned(),
            num_samples: 7,
            num_sample_ids: 9,
            shards: [(0, 4), (5, 3)]
                .map(|(first, num_samples)| ShardEntry {
                    name: format!("{first:05}.tar"),
                    index: format!("{first:05}.idx"),
                    num_samples,
                    num_bytes: 10_240,
                    digest: Digest([first as u8; 32]),
                    index_digest: Digest([0xab; 32]),
                    first_sample_id: SampleId(first),
                })
                .to_vec(),
            source: BTreeMap::new(),
        }
    }

    #[test]
    fn a_manifest_survives_writing_and_reading() {
        assert_eq!(Manifest::from_json(&manifest().to_json()).unwrap(), manifest());
    }

    #[test]
    fn a_manifest_that_contradicts_its_shards_is_refused_with_both_values() {
        let wrong = Manifest { num_samples: 8, ..manifest() };
        let message = Manifest::from_json(&wrong.to_json()).unwrap_err().to_string();
        assert_eq!(message, "the manifest says num_samples = 8, its shards say 7");
        let wrong = Manifest { num_sample_ids: 7, ..manifest() };
        let message = Manifest::from_json(&wrong.to_json()).unwrap_err().to_string();
        assert_eq!(message, "the manifest says num_sample_ids = 7, its shards say 8");
    }

    #[test]
    fn a_shard_named_twice_is_refused() {
        let mut wrong = manifest();
        wrong.shards[1].name = wrong.shards[0].name.clone();
        let message = Manifest::from_json(&wrong.to_json()).unwrap_err().to_string();
        assert!(message.contains("00000.tar"), "{message}");
    }

    #[test]
    fn an_unknown_version_is_named_even_when_the_rest_is_unreadable() {
        let message = Manifest::from_json(br#"{"format_version": 2, "novel": 1}"#).unwrap_err().to_string();
        assert!(message.contains("version 2"), "{message}");
    }

    #[test]
    fn unknown_keys_are_errors() {
        let text = String::from_utf8(manifest().to_json()).unwrap();
        let text = text.replacen("num_samples", "num_sample", 1);
        assert!(matches!(Manifest::from_json(text.as_bytes()), Err(ManifestError::Json(_))));
    }

    #[test]
    fn a_digest_that_is_not_hexadecimal_is_refused() {
        for text in ["", "blake3:", "sha256:00", &format!("blake3:{}", "g".repeat(64))] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let digest = Digest([0x0f; 32]);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }
}
