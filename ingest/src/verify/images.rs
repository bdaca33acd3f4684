use std::fmt;
use std::str::FromStr;

use fastclip_images::{DecodeError, DecoderError, ImageDecoder};
use fastclip_shards::tar::{Entry, split_name};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::scan::{IMAGE_MEMBERS, Onlooker};

/// Images of a shard that are named; further ones are counted.
const NUM_NAMED: usize = 3;

/// Larger members are not taken into memory.
const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// Which images are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeCheck {
    /// None: digests find what changed after it was written.
    None,
    /// About so many of the dataset. By a hash of the member's name, so they are the same ones every time.
    Sample(u64),
    /// All of them.
    All,
}

impl FromStr for DecodeCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("sample:")) {
            ("none", _) => Ok(Self::None),
            ("all", _) => Ok(Self::All),
            (_, Some(number)) => {
                number.parse().map(Self::Sample).map_err(|error| format!("`{number}`: {error}"))
            }
            _ => Err("expected none, all, or sample:N".to_owned()),
        }
    }
}

impl fmt::Display for DecodeCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Sample(number) => write!(f, "sample:{number}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl DecodeCheck {
    /// The largest hash of a name that is decoded, of a dataset of so many samples.
    fn limit(self, num_samples: u64) -> Option<u64> {
        match self {
            Self::None | Self::Sample(0) => None,
            Self::Sample(wanted) if wanted < num_samples => {
                Some((u128::from(u64::MAX) * u128::from(wanted) / u128::from(num_samples)) as u64)
            }
            Self::Sample(_) | Self::All => Some(u64::MAX),
        }
    }
}

/// Hashes and decodes images while a shard is scanned.
pub(super) struct ImageOnlooker {
    decoder: ImageDecoder,
    limit: Option<u64>,
    /// Where the data of each image starts, and a hash of it.
    pub(super) hashes: Vec<(u64, u128)>,
    pub(super) num_decoded: u64,
    pub(super) num_undecodable: u64,
    /// The first of them, with what is wrong.
    pub(super) undecodable: Vec<String>,
}

impl ImageOnlooker {
    pub(super) fn new(check: DecodeCheck, num_samples: u64) -> Result<Self, DecoderError> {
        Ok(Self {
            decoder: ImageDecoder::new()?,
            limit: check.limit(num_samples),
            hashes: Vec::new(),
            num_decoded: 0,
            num_undecodable: 0,
            undecodable: Vec::new(),
        })
    }
}

impl Onlooker for ImageOnlooker {
    fn wants(&self, entry: &Entry) -> bool {
        let is_image =
            split_name(&entry.name).is_some_and(|(_, extension)| IMAGE_MEMBERS.contains(&extension.as_str()));
        entry.is_file && is_image && entry.num_bytes <= MAX_IMAGE_BYTES
    }

    fn see(&mut self, entry: &Entry, data: &[u8]) {
        self.hashes.push((entry.data_start, xxh3_128(data)));
        if self.limit.is_none_or(|limit| xxh3_64(entry.name.as_bytes()) > limit) {
            return;
        }
        self.num_decoded += 1;
        let decoded: Result<_, DecodeError> = self.decoder.decode(data);
        if let Err(error) = decoded {
            self.num_undecodable += 1;
            if self.undecodable.len() < NUM_NAMED {
                self.undecodable.push(format!("`{}`: {error}", entry.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_survives_writing_and_reading() {
        for check in [DecodeCheck::None, DecodeCheck::All, DecodeCheck::Sample(12)] {
            assert_eq!(check.to_string().parse(), Ok(check));
        }
        for text in ["", "some", "sample:", "sample:-1"] {
            assert!(text.parse::<DecodeCheck>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sample_of_more_than_there_is_is_all() {
        assert_eq!(DecodeCheck::Sample(10).limit(10), Some(u64::MAX));
        assert_eq!(DecodeCheck::Sample(1).limit(2), Some(u64::MAX / 2));
        assert_eq!(DecodeCheck::Sample(0).limit(2), None);
    }
}
