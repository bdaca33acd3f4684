//! Locations of several datasets in one text, as OpenCLIP writes them.

use crate::compression::Compression;
use crate::store::StoreError;

/// Most names that the braces of one location may stand for; larger datasets have a manifest.
const MAX_NAMES: usize = 1 << 20;

/// A dataset, whole or some of its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Folder or manifest.
    pub(crate) location: String,
    /// Names of the shards that were asked for.
    pub(crate) shards: Option<Vec<String>>,
}

/// Takes a location apart: first at each `::`, then by its braces. The shards of one folder come together.
pub(crate) fn sources(location: &str) -> Result<Vec<Vec<Source>>, StoreError> {
    split(location).into_iter().map(expand_source).collect()
}

/// Splits at `::`, except within the brackets of an address like `http://[::1]:9000/data`.
fn split(location: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut is_address) = (0, 0, false);
    let bytes = location.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'[' => is_address = true,
            b']' => is_address = false,
            b':' if !is_address && bytes.get(at + 1) == Some(&b':') => {
                parts.push(&location[start..at]);
                start = at + 2;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&location[start..]);
    parts
}

fn expand_source(text: &str) -> Result<Vec<Source>, StoreError> {
    let mut sources: Vec<Source> = Vec::new();
    for name in expand_braces(text)? {
        if !Compression::is_shard_name(&name) {
            sources.push(Source { location: name, shards: None });
            continue;
        }
        let (folder, shard) = name.rsplit_once('/').unwrap_or((".", &name));
        let folder = if folder.is_empty() { "/" } else { folder };
        match sources.last_mut() {
            Some(Source { location, shards: Some(shards) }) if location == folder => {
                shards.push(shard.to_owned())
            }
            _ => sources.push(Source { location: folder.to_owned(), shards: Some(vec![shard.to_owned()]) }),
        }
    }
    Ok(sources)
}

/// Expands `{00000..00331}`, `{a..f}`, `{0..100..10}` and `{a,b}`, any number of them and within one another. Other braces
/// stand for themselves.
///
/// # Errors
/// When they stand for more than a million names.
pub fn expand_braces(text: &str) -> Result<Vec<String>, StoreError> {
    let Some((before, inner, after)) = first_braces(text) else { return Ok(vec![text.to_owned()]) };
    let too_many =
        || StoreError::location(format!("the braces of `{text}` stand for more than {MAX_NAMES} names"));
    let middles = match range(inner) {
        Some(range) if range.len() >= MAX_NAMES as u64 => return Err(too_many()),
        Some(range) => range.names(),
        None => {
            let mut middles = Vec::new();
            for alternative in alternatives(inner) {
                middles.extend(expand_braces(alternative)?);
            }
            middles
        }
    };
    let ends = expand_braces(after)?;
    if middles.len().saturating_mul(ends.len()) > MAX_NAMES {
        return Err(too_many());
    }
    let name =
        |middle: &String| ends.iter().map(move |end| format!("{before}{middle}{end}")).collect::<Vec<_>>();
    Ok(middles.iter().flat_map(name).collect())
}

/// What stands before, within and after the first braces that are to be expanded.
fn first_braces(text: &str) -> Option<(&str, &str, &str)> {
    for (open, _) in text.match_indices('{') {
        let mut depth = 0;
        for (at, byte) in text.bytes().enumerate().skip(open) {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            if depth > 0 {
                continue;
            }
            let inner = &text[open + 1..at];
            if range(inner).is_some() || alternatives(inner).len() > 1 {
                return Some((&text[..open], inner, &text[at + 1..]));
            }
            break;
        }
    }
    None
}

/// Parts between commas that are in no braces of their own.
fn alternatives(inner: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts
}

/// What two dots stand between.
struct Range {
    /// The first and the last, as numbers.
    first: u64,
    last: u64,
    step: u64,
    show: Show,
}

#[derive(Clone, Copy)]
enum Show {
    Letter,
    /// With so many digits at least.
    Number(usize),
}

impl Range {
    fn len(&self) -> u64 {
        self.first.abs_diff(self.last) / self.step
    }

    fn names(&self) -> Vec<String> {
        let item = |i: u64| match self.first <= self.last {
            true => self.first + i * self.step,
            false => self.first - i * self.step,
        };
        let name = |item: u64| match self.show {
            Show::Letter => char::from(item as u8).to_string(),
            Show::Number(width) => format!("{item:0width$}"),
        };
        (0..=self.len()).map(|i| name(item(i))).collect()
    }
}

/// Reads `00..11`, `a..f` or, with a step, `0..100..10`.
fn range(inner: &str) -> Option<Range> {
    let parts: Vec<&str> = inner.split("..").collect();
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return None,
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let step = number(step).filter(|&step| step > 0)?;
    if let ([first], [last]) = (first.as_bytes(), last.as_bytes())
        && first.is_ascii_alphabetic()
        && last.is_ascii_alphabetic()
    {
        return Some(Range { first: u64::from(*first), last: u64::from(*last), step, show: Show::Letter });
    }
    let is_filled = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if is_filled { first.len().max(last.len()) } else { 0 };
    Some(Range { first: number(first)?, last: number(last)?, step, show: Show::Number(width) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Vec<String> {
        expand_braces(text).unwrap()
    }

    #[test]
    fn braces_expand_as_in_a_shell() {
        assert_eq!(expanded("a{08..11}.tar"), ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]);
        assert_eq!(expanded("{9..11}"), ["9", "10", "11"]);
        assert_eq!(expanded("{2..0}"), ["2", "1", "0"]);
        assert_eq!(expanded("{c..a}"), ["c", "b", "a"]);
        assert_eq!(expanded("{00..10..5}"), ["00", "05", "10"]);
        assert_eq!(expanded("{7..0..3}"), ["7", "4", "1"]);
        assert_eq!(expanded("{a,b}/{0..1}"), ["a/0", "a/1", "b/0", "b/1"]);
        assert_eq!(expanded("x{a,b{0..1}}"), ["xa", "xb0", "xb1"]);
    }

    #[test]
    fn other_braces_stand_for_themselves() {
        for text in
            ["a{b}c", "{", "}{", "{a..bc}", "{a..3}", "{-1..2}", "{1..2..0}", "{1..2..3..4}", "plain", "{}"]
        {
            assert_eq!(expanded(text), [text]);
        }
        assert_eq!(expanded("{x}{1,2}"), ["{x}1", "{x}2"]);
    }

    #[test]
    fn absurd_ranges_are_refused_before_they_fill_memory() {
        for text in ["{0..99999999999}", "{0..9999}{0..9999}", "{0..18446744073709551615}"] {
            let message = expand_braces(text).unwrap_err().to_string();
            assert!(message.contains("stand for more than"), "{message}");
        }
    }

    #[test]
    fn sources_are_split_at_double_colons_and_shards_gathered_by_folder() {
        let found =
            sources("d/cc3m/{00000..00002}.tar::s3://b/cc12m::http://[::1]:90/x/manifest.json").unwrap();
        let names = ["00000.tar", "00001.tar", "00002.tar"].map(str::to_owned).to_vec();
        let whole = |location: &str| vec![Source { location: location.to_owned(), shards: None }];
        assert_eq!(
            found,
            [
                vec![Source { location: "d/cc3m".to_owned(), shards: Some(names) }],
                whole("s3://b/cc12m"),
                whole("http://[::1]:90/x/manifest.json"),
            ]
        );
        assert_eq!(sources("d/{a,b}").unwrap()[0].len(), 2);
        assert_eq!(sources("x.tar").unwrap()[0][0].location, ".");
    }
}
