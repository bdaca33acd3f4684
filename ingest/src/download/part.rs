use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::str::FromStr;

/// A part of a list that a process of its own fetches: some shards in a row, as many as any other part or one more.
///
/// Shards have the numbers and keys that they have in one run, so that it does not show in the dataset how it was divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    number: NonZeroU32,
    num_parts: NonZeroU32,
}

/// Words that name no part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// Not of the form `I/N`.
    #[error("expected I/N, for example 3/8")]
    Form,
    /// Beyond the number of parts, or 0.
    #[error("there is no part {number} of {num_parts}: parts are counted from 1")]
    Number {
        /// The part asked for.
        number: u32,
        /// Parts of the list.
        num_parts: u32,
    },
}

impl Part {
    /// Part `number` of `num_parts`, counted from 1.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn new(number: u32, num_parts: u32) -> Result<Self, PartError> {
        match (NonZeroU32::new(number), NonZeroU32::new(num_parts)) {
            (Some(number), Some(num_parts)) if number <= num_parts => Ok(Self { number, num_parts }),
            _ => Err(PartError::Number { number, num_parts }),
        }
    }

    /// Its number, from 1.
    pub fn number(self) -> u32 {
        self.number.get()
    }

    /// How many there are.
    pub fn num_parts(self) -> u32 {
        self.num_parts.get()
    }

    /// Its shards, of so many in all. A part is empty where there are fewer shards than parts.
    pub(super) fn shards(self, num_shards: u64) -> Range<u64> {
        let start_of = |part: u32| {
            // Without overflow for any number of shards.
            (u128::from(num_shards) * u128::from(part) / u128::from(self.num_parts.get())) as u64
        };
        start_of(self.number.get() - 1)..start_of(self.number.get())
    }

    /// The part, of so many, that a shard belongs to.
    pub(super) fn of_shard(shard: u64, num_shards: u64, num_parts: NonZeroU32) -> Self {
        // The last part that starts at this shard or before: empty ones start where the next one does.
        let number = (u128::from(shard) + 1) * u128::from(num_parts.get());
        let number = number.div_ceil(u128::from(num_shards.max(1)));
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new).unwrap_or(num_parts);
        Self { number: number.min(num_parts), num_parts }
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.num_parts)
    }
}

impl FromStr for Part {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, num_parts) = text.split_once('/').ok_or(PartError::Form)?;
        let number_of = |text: &str| text.trim().parse().map_err(|_| PartError::Form);
        Self::new(number_of(number)?, number_of(num_parts)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_counted_from_1() {
        assert_eq!("3/8".parse::<Part>().unwrap().to_string(), "3/8");
        let message = |text: &str| text.parse::<Part>().unwrap_err().to_string();
        assert_eq!(message("0/8"), "there is no part 0 of 8: parts are counted from 1");
        assert_eq!(message("9/8"), "there is no part 9 of 8: parts are counted from 1");
        for text in ["", "3", "3/", "/8", "a/8", "3/8/9", "-1/8", "3/0x8"] {
            assert_eq!(text.parse::<Part>(), Err(PartError::Form), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_shard_belongs_to_one_part(num_shards in 0..300_u64, num_parts in 1..40_u32) {
            let mut next = 0;
            for number in 1..=num_parts {
                let part = Part::new(number, num_parts).unwrap();
                let shards = part.shards(num_shards);
                prop_assert_eq!(shards.start, next);
                let least = num_shards / u64::from(num_parts);
                prop_assert!((least..=least + 1).contains(&(shards.end - shards.start)));
                for shard in shards.clone() {
                    prop_assert_eq!(Part::of_shard(shard, num_shards, part.num_parts), part);
                }
                next = shards.end;
            }
            prop_assert_eq!(next, num_shards);
        }
    }
}
