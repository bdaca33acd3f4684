use std::fmt;

use serde::Serialize;

use crate::terminal::one_line;

/// Files that belong to nothing and are named.
const NUM_NAMED: usize = 10;

/// What was found in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardVerdict {
    /// Name of the shard.
    pub name: String,
    /// What is wrong with it; nothing if it is as the manifest says.
    pub problems: Vec<String>,
    /// The command that makes it whole, where something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<String>,
    /// Samples without an image member.
    pub num_without_image: u64,
    /// Samples with neither caption nor class.
    pub num_without_text: u64,
    /// Images that were decoded.
    pub num_decoded: u64,
    /// Images that cannot be decoded, of those.
    pub num_undecodable: u64,
    /// The first of them, with what is wrong.
    pub undecodable: Vec<String>,
}

/// What was found in a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Where it lies, without credentials.
    pub location: String,
    /// Samples that the manifest counts.
    pub num_samples: u64,
    /// What is wrong with files that belong to no shard.
    pub problems: Vec<String>,
    /// Samples that have the key of an earlier one.
    pub num_repeated_keys: u64,
    /// Some of them.
    pub repeated_keys: Vec<String>,
    /// Images that are those of an earlier sample, byte for byte.
    pub num_repeated_images: u64,
    /// Some of them.
    pub repeated_images: Vec<String>,
    /// Files beside the shards that belong to nothing.
    pub unknown_files: Vec<String>,
    /// One for each shard, in the order of the manifest.
    pub shards: Vec<ShardVerdict>,
}

impl VerifyReport {
    /// Shards to rebuild.
    pub fn broken(&self) -> impl Iterator<Item = &ShardVerdict> {
        self.shards.iter().filter(|shard| !shard.problems.is_empty())
    }

    /// Turns what is wrong into an error. Images that cannot be decoded and what is repeated are not: readers cope with them, and the
    /// dataset is what its maker made.
    ///
    /// # Errors
    /// When a shard has to be rebuilt, or a file beside the shards disagrees with them.
    pub fn check(&self) -> Result<(), VerifyError> {
        let location = self.location.clone();
        match (self.broken().count(), self.problems.len()) {
            (0, 0) => Ok(()),
            (0, num_problems) => Err(VerifyError::SideFiles { location, num_problems }),
            (num_broken, _) => {
                Err(VerifyError::Broken { location, num_broken, num_shards: self.shards.len() })
            }
        }
    }

    /// The report as a file that other programs read.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a report is text and numbers")
    }

    fn sum(&self, of: fn(&ShardVerdict) -> u64) -> u64 {
        self.shards.iter().map(of).sum()
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, keys and messages may be of whoever made the dataset.
        let shown = |text: &str| one_line(text, usize::MAX);
        for ShardVerdict { name, problems, rebuild, .. } in self.broken() {
            for problem in problems {
                writeln!(f, "{}: {}", shown(name), shown(problem))?;
            }
            if let Some(rebuild) = rebuild {
                writeln!(f, "  to rebuild it: {}", shown(rebuild))?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "{}", shown(problem))?;
        }
        for (count, what) in [
            (self.sum(|shard| shard.num_without_image), "have no image"),
            (self.sum(|shard| shard.num_without_text), "have neither caption nor class"),
        ] {
            if count > 0 {
                writeln!(f, "{count} samples {what}")?;
            }
        }
        if self.num_repeated_keys > 0 {
            writeln!(f, "{} samples have the key of another sample:", self.num_repeated_keys)?;
        }
        for repeated in &self.repeated_keys {
            writeln!(f, "  {}", shown(repeated))?;
        }
        if self.num_repeated_images > 0 {
            writeln!(f, "{} images are those of an earlier sample:", self.num_repeated_images)?;
        }
        for repeated in &self.repeated_images {
            writeln!(f, "  {}", shown(repeated))?;
        }
        let (decoded, undecodable) =
            (self.sum(|shard| shard.num_decoded), self.sum(|shard| shard.num_undecodable));
        if undecodable > 0 {
            writeln!(f, "{undecodable} of {decoded} images that were decoded cannot be:")?;
        }
        let damaged =
            self.shards.iter().flat_map(|shard| shard.undecodable.iter().map(|image| (&shard.name, image)));
        for (shard, image) in damaged.take(NUM_NAMED) {
            writeln!(f, "  {}: {}", shown(shard), shown(image))?;
        }
        if !self.unknown_files.is_empty() {
            let named: Vec<_> = self.unknown_files.iter().take(NUM_NAMED).map(|name| shown(name)).collect();
            let more = if self.unknown_files.len() > NUM_NAMED { ", …" } else { "" };
            writeln!(f, "{} files belong to nothing: {}{more}", self.unknown_files.len(), named.join(", "))?;
        }
        let num_whole = self.shards.len() - self.broken().count();
        let (num_shards, num_samples) = (self.shards.len(), self.num_samples);
        write!(f, "{num_whole} of {num_shards} shards are whole; the manifest counts {num_samples} samples")
    }
}

/// Why a dataset is not, or could not be found, sound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Some shards are not what the manifest says.
    #[error("{num_broken} of {num_shards} shards of `{location}` must be rebuilt")]
    Broken {
        /// The location without credentials.
        location: String,
        /// Shards to rebuild.
        num_broken: usize,
        /// All shards.
        num_shards: usize,
    },
    /// Files beside the shards are not what the manifest says.
    #[error("{num_problems} files beside the shards of `{location}` disagree with them")]
    SideFiles {
        /// The location without credentials.
        location: String,
        /// Such files.
        num_problems: usize,
    },
    /// A file beside the shards cannot be read.
    #[error("could not read what lies beside the shards")]
    Store(#[from] fastclip_shards::StoreError),
    /// No decoder could be set up.
    #[error("could not read images")]
    Decoder(#[from] fastclip_images::DecoderError),
    /// Keys cannot be sorted in the folder for temporary files.
    #[error("could not sort the keys in temporary files")]
    Sort(#[source] std::io::Error),
    /// No runtime could be started.
    #[error("could not start a runtime")]
    Start(#[source] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {num_shards} shards, all of which are whole")]
    Stopped {
        /// Shards that were verified by then.
        num_shards: usize,
    },
}

impl VerifyError {
    /// Whether the dataset is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::SideFiles { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dataset_says_cannot_command_a_terminal() {
        let hostile = |name: &str| format!("{name}\u{1b}[2J\u{202e}");
        let texts = |name: &str| vec![hostile(name)];
        let shard = ShardVerdict {
            name: hostile("shard"),
            problems: texts("problem"),
            rebuild: Some(hostile("rebuild")),
            num_without_image: 0,
            num_without_text: 0,
            num_decoded: 1,
            num_undecodable: 1,
            undecodable: texts("image"),
        };
        let report = VerifyReport {
            location: "out".to_owned(),
            num_samples: 1,
            problems: texts("sizes"),
            num_repeated_keys: 1,
            repeated_keys: texts("key"),
            num_repeated_images: 1,
            repeated_images: texts("copy"),
            unknown_files: texts("file"),
            shards: vec![shard],
        };
        let printed = report.to_string();
        for name in ["shard", "problem", "rebuild", "image", "sizes", "key", "copy", "file"] {
            assert!(printed.contains(&format!("{name}\u{fffd}[2J\u{fffd}")), "{name}: {printed:?}");
        }
        assert!(!printed.contains(['\u{1b}', '\u{202e}']), "{printed:?}");
    }
}
