use url::Url;

/// What was typed, fit for a shell and without secrets, less these options and their values.
pub(super) fn without(options: &[&str]) -> String {
    shown(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()), options)
}

fn shown(arguments: impl Iterator<Item = String>, options: &[&str]) -> String {
    let mut words = vec!["ingest".to_owned()];
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument.as_str(), None),
        };
        if options.contains(&name) {
            if value.is_none() {
                arguments.next();
            }
            continue;
        }
        words.push(match value {
            Some(value) if name.starts_with("--") => format!("{name}={}", quoted(&without_secrets(value))),
            _ => quoted(&without_secrets(&argument)),
        });
    }
    words.join(" ")
}

/// A URL without user, password and query, which may carry a signature. Everything else as it is.
fn without_secrets(text: &str) -> String {
    let Some(mut url) = Url::parse(text).ok().filter(Url::has_host) else { return text.to_owned() };
    if url.username().is_empty() && url.password().is_none() && url.query().is_none() {
        return text.to_owned();
    }
    url.set_query(None);
    // Refused for URLs that cannot have any.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "-_./:,=+@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_command_can_be_typed_again() {
        let words = [
            "download",
            "--input",
            "my list.csv",
            "--part",
            "3/8",
            "--output=s3://user:pw@bucket/a?key=secret",
        ];
        let more = ["--part=1/2", "--caption-col", "it's", "--retries=2", ""];
        let arguments = words.into_iter().chain(more).map(str::to_owned);
        assert_eq!(
            shown(arguments, &["--part"]),
            r"ingest download --input 'my list.csv' --output=s3://bucket/a --caption-col 'it'\''s' --retries=2 ''"
        );
    }
}
