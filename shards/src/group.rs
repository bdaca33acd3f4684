use crate::tar::{self, Entry};

/// The members of one sample and the bytes they span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleSpan {
    /// Name that the members share, without extension.
    pub key: String,
    /// Lower-case extensions, in the order of the members.
    pub extensions: Vec<String>,
    /// Where the first header of the first member starts.
    pub start: u64,
    /// Where the padding of the last member ends.
    pub end: u64,
}

/// Joins members into samples by the rules of webdataset.
///
/// Members of a sample are neighbours with one key. A second member of the same extension starts a new sample. Members
/// that belong to none (folders, links, names without a dot, `__x__`) are passed over. A grouper serves one shard:
/// samples never reach across shards, although some datasets repeat the last key of one in the next.
#[derive(Debug, Default)]
pub struct SampleGrouper {
    open: Option<SampleSpan>,
}

impl SampleGrouper {
    /// Takes the next member, and returns the sample before it if that is thereby complete.
    pub fn add(&mut self, entry: &Entry) -> Option<SampleSpan> {
        if !entry.is_file {
            return None;
        }
        let (key, extension) = tar::split_name(&entry.name)?;
        if let Some(open) = &mut self.open
            && open.key == key
            && !open.extensions.contains(&extension)
        {
            open.extensions.push(extension);
            open.end = entry.end;
            return None;
        }
        let extensions = vec![extension];
        self.open.replace(SampleSpan { key: key.to_owned(), extensions, start: entry.start, end: entry.end })
    }

    /// Returns the sample before damage, which may lack members. So may the first one after it.
    pub fn interrupt(&mut self) -> Option<SampleSpan> {
        self.open.take()
    }

    /// Returns the last sample once the shard has ended. Where it ended by damage, the last sample may lack members.
    pub fn finish(self) -> Option<SampleSpan> {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(names: &[&str]) -> Vec<(String, String)> {
        let mut tar = Vec::new();
        for name in names {
            tar::append_member(&mut tar, name, b"x").unwrap();
        }
        let mut grouper = SampleGrouper::default();
        let mut spans: Vec<_> =
            tar::Scanner::new(&tar).filter_map(|entry| grouper.add(&entry.unwrap())).collect();
        spans.extend(grouper.finish());
        spans.into_iter().map(|span| (span.key, span.extensions.join(" "))).collect()
    }

    fn expect(names: &[&str], expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(key, ext)| (key.to_string(), ext.to_string())).collect();
        assert_eq!(samples(names), expected, "{names:?}");
    }

    #[test]
    fn neighbours_with_one_key_are_a_sample() {
        expect(&["a.jpg", "a.TXT", "b.jpg"], &[("a", "jpg txt"), ("b", "jpg")]);
        expect(&["d/a.jpg", "e/a.txt"], &[("d/a", "jpg"), ("e/a", "txt")]);
    }

    #[test]
    fn a_repeated_field_starts_a_new_sample() {
        expect(&["a.jpg", "a.txt", "a.jpg", "a.txt"], &[("a", "jpg txt"), ("a", "jpg txt")]);
        expect(&["a.jpg", "b.jpg", "a.txt"], &[("a", "jpg"), ("b", "jpg"), ("a", "txt")]);
    }

    #[test]
    fn members_of_no_sample_neither_count_nor_separate() {
        expect(&["__x__/i.json", "README", "a.jpg", "README", "a.txt"], &[("a", "jpg txt")]);
    }
}
