use std::path::Path;

use super::SourceError;
use super::json_lines::lines;
use super::record::{Record, Records};
use super::text_file::TextFile;

/// The only column of a plain list.
const COLUMN: &str = "url";

/// The column and the number of lines that are not blank.
pub(super) fn survey(path: &Path, file: TextFile) -> Result<(Vec<String>, u64), SourceError> {
    let num_rows = lines(path, file).try_fold(0, |count, line| line.map(|_| count + 1))?;
    Ok((vec![COLUMN.to_owned()], num_rows))
}

/// One URL a line.
pub(super) fn records(path: &Path, file: TextFile) -> Records {
    Box::new(lines(path, file).map(|line| Ok(parse(&line?))))
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let url = std::str::from_utf8(line.trim_ascii()).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut record = Record::default();
    record.columns.insert(COLUMN.to_owned(), url.into());
    Ok(record)
}
