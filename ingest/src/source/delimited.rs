use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::SourceError;
use super::record::{Record, Records};
use super::text_file::TextFile;

/// Names of the columns and number of rows of a table with delimiters.
pub(super) fn survey(path: &Path, file: TextFile, delimiter: u8) -> Result<(Vec<String>, u64), SourceError> {
    let mut reader = open(file, delimiter);
    let names = names(path, &mut reader)?;
    let mut record = ByteRecord::new();
    let mut num_rows = 0;
    while reader.read_byte_record(&mut record).map_err(|error| failed(path, error))? {
        num_rows += 1;
    }
    Ok((names, num_rows))
}

/// Every cell becomes text: what a number means is for the reader of the JSON member to decide.
pub(super) fn records(path: &Path, file: TextFile, delimiter: u8) -> Result<Records, SourceError> {
    let mut reader = open(file, delimiter);
    let names = names(path, &mut reader)?;
    let path = path.to_owned();
    let records = reader.into_byte_records().map(move |record| {
        let record = record.map_err(|error| failed(&path, error))?;
        Ok(parse(&names, &record))
    });
    Ok(Box::new(records))
}

fn open(file: TextFile, delimiter: u8) -> Reader<TextFile> {
    // Rows with too few or too many cells are our rows to count, not the end of the table.
    ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file)
}

fn names(path: &Path, reader: &mut Reader<TextFile>) -> Result<Vec<String>, SourceError> {
    let header = reader.byte_headers().map_err(|error| failed(path, error))?;
    Ok(header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn parse(names: &[String], record: &ByteRecord) -> Result<Record, String> {
    if record.len() != names.len() {
        return Err(format!("it has {} cells, the header has {}", record.len(), names.len()));
    }
    let mut parsed = Record::default();
    for (name, cell) in names.iter().zip(record) {
        if std::str::from_utf8(cell).is_err() {
            parsed.not_utf8.push(name.clone());
        }
        parsed.columns.insert(name.clone(), Value::String(String::from_utf8_lossy(cell).into_owned()));
    }
    Ok(parsed)
}

fn failed(path: &Path, error: csv::Error) -> SourceError {
    // With byte records of any length, reading the file is all that can fail.
    let error = match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => std::io::Error::other(format!("{kind:?}")),
    };
    SourceError::read(path, error)
}
