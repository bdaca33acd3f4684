use std::io::BufRead;
use std::path::Path;

use fastclip_schemas::foreign_json;
use serde_json::{Map, Value};

use super::SourceError;
use super::record::{Record, Records};
use super::text_file::TextFile;

/// Names of the columns and number of rows of a file with one JSON object a line. The columns are those of the first
/// line that is an object, since there is no header.
pub(super) fn survey(path: &Path, file: TextFile) -> Result<(Vec<String>, u64), SourceError> {
    let mut names = Vec::new();
    let mut num_rows = 0;
    for line in lines(path, file) {
        let line = line?;
        num_rows += 1;
        if names.is_empty()
            && let Ok(record) = parse(&line)
        {
            names = record.columns.keys().cloned().collect();
        }
    }
    Ok((names, num_rows))
}

/// Cells keep their JSON types.
pub(super) fn records(path: &Path, file: TextFile) -> Records {
    Box::new(lines(path, file).map(|line| Ok(parse(&line?))))
}

type Line = Result<Vec<u8>, SourceError>;

/// Lines that are not blank.
pub(super) fn lines(path: &Path, file: TextFile) -> impl Iterator<Item = Line> + Send + use<> {
    let lines = file.split(b'\n');
    let path = path.to_owned();
    let lines = lines.map(move |line| line.map_err(|source| SourceError::read(&path, source)));
    lines.filter(|line| line.as_ref().map_or(true, |line| !line.trim_ascii().is_empty()))
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let is_utf8 = std::str::from_utf8(line).is_ok();
    let text = String::from_utf8_lossy(line);
    let columns: Map<String, Value> =
        foreign_json(text.as_bytes()).map_err(|error| format!("it is no JSON object: {error}"))?;
    let mut record = Record { columns, ..Record::default() };
    if !is_utf8 {
        let is_damaged = |value: &Value| value.as_str().is_some_and(|text| text.contains('\u{fffd}'));
        let damaged = record.columns.iter().filter(|(_, value)| is_damaged(value));
        record.not_utf8 = damaged.map(|(name, _)| name.clone()).collect();
        if record.not_utf8.is_empty() {
            return Err("it is not UTF-8".to_owned());
        }
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_traced_to_their_column() {
        let record = parse(b"{\"image\": \"a.jpg\", \"caption\": \"caf\xe9\"}").unwrap();
        assert_eq!(record.not_utf8, ["caption"]);
        assert_eq!(record.columns["image"], "a.jpg");
        assert_eq!(parse(b"{\"im\xe9\": 1}").unwrap_err(), "it is not UTF-8");
    }

    #[test]
    fn numbers_that_are_none_are_null_as_python_writes_them() {
        let record = parse(br#"{"image": "a.jpg", "similarity": NaN}"#).unwrap();
        assert_eq!(record.columns["similarity"], Value::Null);
    }

    #[test]
    fn lines_that_are_no_objects_say_what_is_wrong() {
        for line in [&b"[1]"[..], b"{\"a\": 1", b"null"] {
            let message = parse(line).unwrap_err();
            assert!(message.starts_with("it is no JSON object: "), "{message}");
        }
    }
}
