use reqwest::header::HeaderMap;

use super::{FetchFailure, FetchOptions, FetchReason};

/// Directives that have a value behind a colon, as the token of a program has its directives.
const WITH_VALUE: [&str; 4] = ["unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"];

/// Refuses an answer whose `X-Robots-Tag` forbids what the image is for. A tag may address one program by its token,
/// `token: noai`, and then does not concern others; img2dataset reads it so, too.
pub(super) fn check(headers: &HeaderMap, options: &FetchOptions) -> Result<(), FetchFailure> {
    let tags = headers.get_all("x-robots-tag").iter().filter_map(|tag| tag.to_str().ok());
    for tag in tags {
        let (token, directives) = match tag.split_once(':') {
            Some((token, directives)) if is_token(token.trim()) => (Some(token.trim()), directives),
            _ => (None, tag),
        };
        let concerns_us = token.is_none_or(|token| {
            options.user_agent_token.as_ref().is_some_and(|ours| ours.eq_ignore_ascii_case(token))
        });
        let mut directives = directives.split(',').map(str::trim);
        let forbids = |directive: &str| {
            options.disallowed_directives.iter().any(|disallowed| disallowed.eq_ignore_ascii_case(directive))
        };
        if concerns_us && directives.any(forbids) {
            return Err(FetchFailure::new(FetchReason::OptedOut, format!("X-Robots-Tag: {tag}")));
        }
    }
    Ok(())
}

/// Whether this, before a colon, names a program.
fn is_token(text: &str) -> bool {
    !text.contains(',') && !WITH_VALUE.iter().any(|directive| directive.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(tags: &[&str], token: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for tag in tags {
            headers.append("x-robots-tag", tag.parse().unwrap());
        }
        let user_agent_token = token.map(str::to_owned);
        check(&headers, &FetchOptions { user_agent_token, ..FetchOptions::default() }).is_err()
    }

    #[test]
    fn wishes_of_the_host_are_heard() {
        assert!(is_refused(&["noai"], None));
        assert!(is_refused(&["all", "nofollow, NoImageAI"], None));
        assert!(!is_refused(&["all", "nofollow"], None));
        assert!(!is_refused(&[], None));
    }

    #[test]
    fn a_directive_with_a_value_is_no_program() {
        assert!(is_refused(&["noindex, max-image-preview:none"], None));
        assert!(is_refused(&["Max-Snippet: 20, noimageai"], None));
        assert!(is_refused(&["unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT, noai"], None));
        assert!(!is_refused(&["max-image-preview: large, max-video-preview: -1"], None));
        assert!(!is_refused(&["otherbot: max-snippet:0, noindex"], Some("fastclip")));
        assert!(is_refused(&["fastclip: max-snippet:0, noindex"], Some("fastclip")));
    }

    #[test]
    fn a_tag_for_another_program_does_not_count() {
        assert!(!is_refused(&["otherbot: noai"], None));
        assert!(!is_refused(&["otherbot: noai"], Some("fastclip")));
        assert!(is_refused(&["FastClip: noindex, noai"], Some("fastclip")));
    }
}
