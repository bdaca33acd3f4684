use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fastclip_schemas::Digest;
use serde::Serialize;
use url::{Host, Url};

use crate::rejection::Reason;

/// Which rows are worth a request. A row that is not is in the table beside its shard, with the rule that it broke.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RowFilters {
    /// Least characters of a caption; white space around it does not count.
    pub min_caption_chars: usize,
    /// Most characters of a caption.
    pub max_caption_chars: Option<usize>,
    /// Least share of a caption's characters, white space left out, that are letters of any alphabet. From 0 to 1.
    pub min_caption_letters: f64,
    /// Only these hosts are asked.
    pub allow_hosts: Option<HostList>,
    /// These hosts are not asked. A host redirected to is not looked up here.
    pub deny_hosts: Option<HostList>,
}

impl RowFilters {
    /// The rule that a row breaks, the cheapest first.
    pub(crate) fn check(&self, url: &str, caption: Option<&str>) -> Option<(Reason, String)> {
        self.check_caption(caption.unwrap_or_default().trim()).or_else(|| self.check_host(url))
    }

    /// The same for a sample whose image is there already. Which host it is of is known by its URL alone.
    pub(crate) fn check_stored(&self, url: Option<&str>, caption: Option<&str>) -> Option<(Reason, String)> {
        self.check(url.unwrap_or_default(), caption).or_else(|| {
            let has_host = || url.and_then(|url| Url::parse(url).ok()).is_some_and(|url| url.has_host());
            (self.allow_hosts.is_some() && !has_host())
                .then(|| (Reason::HostNotAllowed, "no URL says which host it is of".to_owned()))
        })
    }

    fn check_caption(&self, caption: &str) -> Option<(Reason, String)> {
        let num_chars = caption.chars().count();
        if num_chars < self.min_caption_chars {
            let message =
                format!("the caption has {num_chars} characters, at least {}", self.min_caption_chars);
            return Some((Reason::CaptionTooShort, message));
        }
        if let Some(most) = self.max_caption_chars
            && num_chars > most
        {
            let message = format!("the caption has {num_chars} characters, at most {most}");
            return Some((Reason::CaptionTooLong, message));
        }
        let visible = caption.chars().filter(|char| !char.is_whitespace());
        let num_letters = visible.clone().filter(|char| char.is_alphabetic()).count();
        let share = num_letters as f64 / visible.count().max(1) as f64;
        (share < self.min_caption_letters).then(|| {
            let message =
                format!("{share:.2} of the caption are letters, at least {}", self.min_caption_letters);
            (Reason::CaptionFewLetters, message)
        })
    }

    fn check_host(&self, url: &str) -> Option<(Reason, String)> {
        if self.allow_hosts.is_none() && self.deny_hosts.is_none() {
            return None;
        }
        // What is no URL fails as such when it is asked for.
        let url = Url::parse(url).ok()?;
        let host = url.host_str()?;
        if let Some(denied) = self.deny_hosts.as_ref().and_then(|hosts| hosts.find(host)) {
            return Some((Reason::HostDenied, format!("`{host}` is denied as `{denied}`")));
        }
        let is_allowed = self.allow_hosts.as_ref().is_none_or(|hosts| hosts.find(host).is_some());
        (!is_allowed).then(|| (Reason::HostNotAllowed, format!("`{host}` is not among the allowed hosts")))
    }
}

/// Hosts, each with all below it: `example.org` stands for `images.example.org`, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostList {
    #[serde(skip)]
    hosts: BTreeSet<String>,
    /// Of the names in order, so that a run is continued with the same hosts only.
    digest: Digest,
}

/// A list of hosts that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostListError {
    /// The operating system refused.
    #[error("could not read `{}`: {source}", path.display())]
    Read {
        /// Path of the list.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A line that names no host.
    #[error("line {line} of `{}` is no host: `{text}`", path.display())]
    Line {
        /// Path of the list.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
    },
}

impl HostList {
    /// Reads a file with one host a line. Blank lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is no host, for example because it is a URL.
    pub fn read(path: &Path) -> Result<Self, HostListError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| HostListError::Read { path: path.to_owned(), source })?;
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let hosts = lines.map(|(line, text)| match Host::parse(text) {
            Ok(host) => Ok(without_root(&host.to_string()).to_owned()),
            Err(_) => Err(HostListError::Line { path: path.to_owned(), line, text: text.to_owned() }),
        });
        let hosts = hosts.collect::<Result<BTreeSet<_>, _>>()?;
        let mut hasher = blake3::Hasher::new();
        for host in &hosts {
            hasher.update(host.as_bytes()).update(b"\n");
        }
        Ok(Self { hosts, digest: Digest(*hasher.finalize().as_bytes()) })
    }

    /// The entry that a host falls under.
    fn find(&self, host: &str) -> Option<&str> {
        let host = without_root(host);
        let parents = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        std::iter::once(host).chain(parents).find_map(|name| self.hosts.get(name)).map(String::as_str)
    }
}

/// A host without the dot that may stand at its end: `example.org.` is `example.org`.
pub(crate) fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Result<HostList, HostListError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        HostList::read(file.path())
    }

    fn reason(filters: &RowFilters, url: &str, caption: &str) -> Option<String> {
        filters.check(url, Some(caption)).map(|(reason, _)| reason.identifier())
    }

    #[test]
    fn captions_are_measured_in_characters_and_letters() {
        let filters = RowFilters {
            min_caption_chars: 3,
            max_caption_chars: Some(8),
            min_caption_letters: 0.5,
            ..RowFilters::default()
        };
        let cases = [
            ("  ab  ", Some("caption_too_short")),
            ("", Some("caption_too_short")),
            ("äöü", None),
            ("三只黑猫", None),
            ("nine chars", Some("caption_too_long")),
            ("12 ab", None),
            ("123 ab", Some("caption_few_letters")),
            ("!!!", Some("caption_few_letters")),
        ];
        for (caption, expected) in cases {
            assert_eq!(reason(&filters, "http://a/b", caption).as_deref(), expected, "{caption}");
        }
        assert_eq!(RowFilters::default().check("http://a/b", None), None, "no rule, no loss");
    }

    #[test]
    fn a_host_stands_for_all_below_it_and_for_nothing_else() {
        let list = hosts("# shops\nExample.ORG\n\n 192.0.2.7 \nbücher.de\nexample.net.\n").unwrap();
        let denied = RowFilters { deny_hosts: Some(list.clone()), ..RowFilters::default() };
        let allowed = RowFilters { allow_hosts: Some(list), ..RowFilters::default() };
        for (url, is_listed) in [
            ("https://example.org/a.jpg", true),
            ("https://IMG.a.example.org:8080/a.jpg", true),
            ("https://notexample.org/a.jpg", false),
            ("https://example.org.evil.com/a.jpg", false),
            ("http://192.0.2.7/", true),
            ("http://xn--bcher-kva.de/", true),
            ("https://example.org./a.jpg", true),
            ("https://img.example.net/a.jpg", true),
            ("https://notexample.org./a.jpg", false),
        ] {
            let (deny, allow) = (reason(&denied, url, ""), reason(&allowed, url, ""));
            assert_eq!(deny.as_deref(), is_listed.then_some("host_denied"), "{url}");
            assert_eq!(allow.as_deref(), (!is_listed).then_some("host_not_allowed"), "{url}");
        }
        assert_eq!(reason(&allowed, "no url", ""), None, "is refused for what it is later");
        // Of a sample that is there, nothing else will be asked.
        for url in [None, Some("no url"), Some("data:image/png,")] {
            let stored = |filters: &RowFilters| filters.check_stored(url, None).map(|(reason, _)| reason);
            assert_eq!(stored(&allowed), Some(Reason::HostNotAllowed), "{url:?}");
            assert_eq!(stored(&denied), None, "{url:?}");
        }
        assert_eq!(allowed.check_stored(Some("https://example.org/a.jpg"), None), None);
    }

    #[test]
    fn a_line_that_is_no_host_is_named() {
        let error = hosts("example.org\nhttps://example.org/\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2 of ") && error.ends_with("`https://example.org/`"), "{error}");
    }
}
