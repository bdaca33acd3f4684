use std::collections::HashMap;
use std::hash::Hash;

/// How often each of any number of things was seen, in memory for so many of them.
///
/// When there are more, the rarer half is forgotten. So what is frequent is there with about its true number, and what
/// is rare may be missing; the total is right.
#[derive(Debug, Clone)]
pub(crate) struct Tally<K> {
    counts: HashMap<K, Counts>,
    max_kept: usize,
    is_exact: bool,
}

/// How often something was seen, and how often that was a success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) seen: u64,
    pub(crate) successes: u64,
}

impl<K: Hash + Eq + Ord + Clone> Tally<K> {
    /// Keeps at least half of `max_kept` things.
    pub(crate) fn new(max_kept: usize) -> Self {
        Self { counts: HashMap::new(), max_kept, is_exact: true }
    }

    pub(crate) fn add(&mut self, thing: K, counts: Counts) {
        let kept = self.counts.entry(thing).or_default();
        kept.seen += counts.seen;
        kept.successes += counts.successes;
        if self.counts.len() > self.max_kept {
            self.forget_rare();
        }
    }

    /// Counts a thing once, and takes it only if it is new.
    pub(crate) fn add_one<Q: ?Sized + Hash + Eq + ToOwned<Owned = K>>(&mut self, thing: &Q, is_success: bool)
    where
        K: std::borrow::Borrow<Q>,
    {
        let counts = Counts { seen: 1, successes: u64::from(is_success) };
        match self.counts.get_mut(thing) {
            Some(kept) => {
                kept.seen += counts.seen;
                kept.successes += counts.successes;
            }
            None => self.add(thing.to_owned(), counts),
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.is_exact &= other.is_exact;
        for (thing, counts) in other.counts {
            self.add(thing, counts);
        }
    }

    /// Whether nothing was forgotten.
    pub(crate) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Different things that are kept.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// The most frequent ones, the first of them first; equally frequent ones in their own order.
    pub(crate) fn most_frequent(&self, num: usize) -> Vec<(K, Counts)> {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts
            .sort_unstable_by(|left, right| right.1.seen.cmp(&left.1.seen).then_with(|| left.0.cmp(right.0)));
        counts.into_iter().take(num).map(|(thing, counts)| (thing.clone(), *counts)).collect()
    }

    fn forget_rare(&mut self) {
        self.is_exact = false;
        let kept = self.most_frequent(self.max_kept / 2);
        self.counts = kept.into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_is_kept_among_any_number_of_rare_things() {
        let mut tally = Tally::new(100);
        for number in 0..10_000_u64 {
            tally.add_one(format!("rare {number}").as_str(), false);
            if number % 10 == 0 {
                tally.add_one("frequent", number % 20 == 0);
            }
        }
        assert!(tally.len() <= 100 && !tally.is_exact());
        let frequent = Counts { seen: 1000, successes: 500 };
        assert_eq!(tally.most_frequent(1), [("frequent".to_owned(), frequent)]);
    }

    #[test]
    fn equally_frequent_things_come_in_their_own_order() {
        let mut left = Tally::new(10);
        let mut right = Tally::new(10);
        for (tally, things) in [(&mut left, ["c", "a"]), (&mut right, ["b", "c"])] {
            things.iter().for_each(|thing| tally.add_one(*thing, true));
        }
        left.merge(right);
        let things: Vec<_> =
            left.most_frequent(9).into_iter().map(|(thing, counts)| (thing, counts.seen)).collect();
        assert_eq!(things, [("c".to_owned(), 2), ("a".to_owned(), 1), ("b".to_owned(), 1)]);
        assert!(left.is_exact());
    }
}
