use std::path::PathBuf;

use url::Url;

use super::StoreError;

/// The folder that a location names, or `None` for a remote one.
pub(super) fn local_folder(location: &str) -> Result<Option<PathBuf>, StoreError> {
    if location.is_empty() {
        return Err(StoreError::location("the location is empty"));
    }
    if !location.contains("://") {
        return Ok(Some(PathBuf::from(location)));
    }
    let url = parse_url(location)?;
    if url.scheme() != "file" {
        return Ok(None);
    }
    let no_path = |()| StoreError::location(format!("`{}` names no local folder", shown_url(&url)));
    url.to_file_path().map(Some).map_err(no_path)
}

pub(super) fn parse_url(location: &str) -> Result<Url, StoreError> {
    let malformed =
        |error| StoreError::location(format!("`{}` is no URL: {error}", without_secrets(location)));
    Url::parse(location).map_err(malformed)
}

/// The URL without user, password, query and fragment.
///
/// A user name stays in Azure's `az://container@account`, where it is the container.
pub(super) fn shown_url(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Fails for URLs that cannot have a password, which is what is wanted.
    let _ = shown.set_password(None);
    if matches!(url.scheme(), "http" | "https" | "s3" | "s3a" | "gs") {
        let _ = shown.set_username("");
    }
    String::from(shown).trim_end_matches('/').to_owned()
}

/// Text with the query, user and password of every URL in it taken out.
pub fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme_end) = rest.find("://") {
        let (before, url) = rest.split_at(scheme_end + 3);
        shown.push_str(before);
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | '>' | ',');
        let (url, after) = url.split_at(url.find(is_end).unwrap_or(url.len()));
        let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
        let authority_end = url.find('/').unwrap_or(url.len());
        let host = url[..authority_end].rfind('@').map_or(0, |at| at + 1);
        shown.push_str(&url[host..]);
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_no_query_and_no_password() {
        let text =
            "GET https://me:pw@host/a/b?X-Amz-Signature=secret failed (https://h/x?sig=1), then `az://k?q`";
        let shown = "GET https://host/a/b failed (https://h/x), then `az://k`";
        assert_eq!(without_secrets(text), shown);
    }
}
