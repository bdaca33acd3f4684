use crate::tables::Tally;

/// Captions that are told apart before rare ones are forgotten.
const MAX_CAPTIONS: usize = 200_000;

/// Characters of a caption that are compared and shown.
const MAX_CHARS: usize = 300;

/// How many of the most common ones are reported.
const NUM_REPORTED: usize = 15;

/// Which captions occur more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionStats {
    /// Captions that were compared, by their first 300 characters.
    pub num_captions: u64,
    /// Different ones. Nothing if there were too many to tell.
    pub num_distinct: Option<u64>,
    /// The most common ones that occur more than once, with their number.
    pub most_common: Vec<(String, u64)>,
}

impl CaptionStats {
    /// The share of captions that another one equals, the first of each not counted.
    pub fn repeated_share(&self) -> Option<f64> {
        let repeated = self.num_captions - self.num_distinct?;
        (self.num_captions > 0).then(|| repeated as f64 / self.num_captions as f64)
    }
}

pub(super) struct CaptionCounter {
    num_captions: u64,
    captions: Tally<String>,
}

impl CaptionCounter {
    pub(super) fn new() -> Self {
        Self { num_captions: 0, captions: Tally::new(MAX_CAPTIONS) }
    }

    pub(super) fn add(&mut self, caption: &str) {
        let caption = caption.trim();
        let end = caption.char_indices().nth(MAX_CHARS).map_or(caption.len(), |(at, _)| at);
        self.num_captions += 1;
        self.captions.add_one(&caption[..end], true);
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.num_captions += other.num_captions;
        self.captions.merge(other.captions);
    }

    pub(super) fn finish(self) -> CaptionStats {
        let most_common = self.captions.most_frequent(NUM_REPORTED).into_iter();
        CaptionStats {
            num_captions: self.num_captions,
            num_distinct: self.captions.is_exact().then(|| self.captions.len() as u64),
            most_common: most_common
                .map(|(caption, counts)| (caption, counts.seen))
                .filter(|(_, count)| *count > 1)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_that_occur_again_are_counted() {
        let mut captions = CaptionCounter::new();
        for caption in ["a cat", "a dog", " a cat\n", "a bird", "a cat"] {
            captions.add(caption);
        }
        let stats = captions.finish();
        assert_eq!(stats.most_common, [("a cat".to_owned(), 3)]);
        assert_eq!(stats.repeated_share(), Some(0.4));
        assert_eq!(CaptionCounter::new().finish().repeated_share(), None);
    }
}
