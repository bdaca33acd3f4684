use std::fmt;

use serde::{Deserialize, Serialize};

/// Raised whenever the same settings give other pictures or captions than before.
const WORLD_VERSION: u32 = 1;

/// All that the content of a world depends on; kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Which version of this generator drew the pictures.
    world_version: u32,
    pub(super) train: u64,
    pub(super) held_out: u64,
    pub(super) image_size: u32,
    pub(super) seed: u64,
    pub(super) quality: u8,
}

impl Settings {
    pub(super) fn new(train: u64, held_out: u64, image_size: u32, seed: u64, quality: u8) -> Self {
        Self { world_version: WORLD_VERSION, train, held_out, image_size, seed, quality }
    }

    /// Every setting in which `wanted` differs, with both values.
    pub(super) fn differences(&self, wanted: &Settings) -> Vec<Difference> {
        let pairs = [
            ("world_version", u64::from(self.world_version), u64::from(wanted.world_version)),
            ("train", self.train, wanted.train),
            ("held_out", self.held_out, wanted.held_out),
            ("image_size", self.image_size.into(), wanted.image_size.into()),
            ("seed", self.seed, wanted.seed),
            ("quality", self.quality.into(), wanted.quality.into()),
        ];
        let differing = pairs.into_iter().filter(|(_, present, wanted)| present != wanted);
        differing.map(|(name, present, wanted)| Difference { name, present, wanted }).collect()
    }
}

/// A setting that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    name: &'static str,
    present: u64,
    wanted: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {} there and {} here", self.name, self.present, self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_both_values() {
        let there = Settings::new(10, 5, 64, 0, 92);
        let here = Settings { seed: 3, train: 12, ..there.clone() };
        let found: Vec<String> = there.differences(&here).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["`train` is 10 there and 12 here", "`seed` is 0 there and 3 here"]);
        assert!(there.differences(&there).is_empty());
    }
}
