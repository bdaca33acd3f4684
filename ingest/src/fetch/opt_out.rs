use reqwest::header::HeaderMap;

use super::{FetchFailure, FetchOptions, FetchReason};

/// Refuses an answer whose `X-Robots-Tag` forbids what the image is for. A tag may address one program by its token,
/// `token: noai`, and then does not concern others; img2dataset reads it so, too.
pub(super) fn check(headers: &HeaderMap, options: &FetchOptions) -> Result<(), FetchFailure> {
    let tags = headers.get_all("x-robots-tag").iter().filter_map(|tag| tag.to_str().ok());
    for tag in tags {
        let (token, directives) = match tag.split_once(':') {
            Some((token, directives)) => (Some(token.trim()), directives),
            None => (None, tag),
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
    fn a_tag_for_another_program_does_not_count() {
        assert!(!is_refused(&["otherbot: noai"], None));
        assert!(!is_refused(&["otherbot: noai"], Some("fastclip")));
        assert!(is_refused(&["FastClip: noindex, noai"], Some("fastclip")));
    }
}
