use std::path::Path;

use fastclip_schemas::Digest;

use super::place::Place;
use super::record::Records;
use super::text_file::{self, Packing, TextFile, extension};
use super::{SourceError, delimited, json_array, json_lines, parquet, urls};

/// A file of rows with named columns. Its name says of which kind it is.
#[derive(Debug, Clone)]
pub(super) struct TableFile {
    pub(super) place: Place,
    kind: Kind,
}

/// What is known of a table before its rows are read.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) names: Vec<String>,
    pub(super) num_rows: u64,
    /// Of the bytes of a text file. Of parquet, of the size and the footer, which has the place, size and range of every
    /// piece of a column.
    pub(super) digest: Digest,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text(TextKind),
    Parquet,
}

#[derive(Debug, Clone, Copy)]
enum TextKind {
    Delimited { delimiter: u8 },
    JsonArray,
    JsonLines,
    Urls,
}

/// The extension of a table, without that of its packing; nothing if it is none.
pub(super) fn extension_of_table(path: &Path) -> Option<&'static str> {
    kind_of(path).map(|(extension, _)| extension)
}

fn kind_of(path: &Path) -> Option<(&'static str, Kind)> {
    let packing = Packing::of(path);
    let unpacked = if packing.is_some() { path.with_extension("") } else { path.to_owned() };
    Some(match extension(&unpacked).as_str() {
        "csv" => (".csv", Kind::Text(TextKind::Delimited { delimiter: b',' })),
        "tsv" => (".tsv", Kind::Text(TextKind::Delimited { delimiter: b'\t' })),
        "json" => (".json", Kind::Text(TextKind::JsonArray)),
        "jsonl" => (".jsonl", Kind::Text(TextKind::JsonLines)),
        "ndjson" => (".ndjson", Kind::Text(TextKind::JsonLines)),
        "txt" => (".txt", Kind::Text(TextKind::Urls)),
        // Parquet is read from its end, and packs its columns by itself.
        "parquet" if packing.is_none() => (".parquet", Kind::Parquet),
        _ => return None,
    })
}

impl TableFile {
    /// Recognises the kind of a table. Nothing is read.
    pub(super) fn new(place: Place) -> Result<Self, SourceError> {
        match kind_of(place.path()) {
            Some((_, kind)) => Ok(Self { place, kind }),
            None if place.is_missing() => Err(SourceError::NotFound { path: place.path().to_owned() }),
            None => Err(SourceError::UnknownKind { path: place.path().to_owned() }),
        }
    }

    /// Names of the columns, number of rows and digest. Text has to be read for it, once; of parquet the footer is enough.
    pub(super) fn survey(&self) -> Result<Survey, SourceError> {
        let kind = match self.kind {
            Kind::Text(kind) => kind,
            Kind::Parquet if self.place.is_stored() => {
                return parquet::survey(self.place.path(), self.place.open_stored(1)?);
            }
            Kind::Parquet => return parquet::survey(self.place.path(), self.place.open_local()?),
        };
        let path = self.place.path();
        let (file, digest) = text_file::open_digested(&self.place)?;
        let (names, num_rows) = match kind {
            TextKind::Delimited { delimiter } => delimited::survey(path, file, delimiter),
            TextKind::JsonArray => json_array::survey(path, file),
            TextKind::JsonLines => json_lines::survey(path, file),
            TextKind::Urls => urls::survey(path, file),
        }?;
        Ok(Survey { names, num_rows, digest: digest.finish() })
    }

    /// Reads the rows from number `first` on, and of parquet only these columns if some are named; memory does not grow with
    /// the number of rows.
    pub(super) fn records(&self, first: u64, columns: Option<&[String]>) -> Result<Records, SourceError> {
        let path = self.place.path();
        let kind = match self.kind {
            Kind::Text(kind) => kind,
            Kind::Parquet if self.place.is_stored() => {
                let num_columns = parquet::num_columns(path, self.place.open_stored(1)?, columns)?;
                return parquet::records(path, self.place.open_stored(num_columns)?, first, columns);
            }
            Kind::Parquet => return parquet::records(path, self.place.open_local()?, first, columns),
        };
        let records = text_records(path, text_file::open(&self.place)?, kind)?;
        // An error is passed on wherever it is.
        Ok(Box::new(
            (0..)
                .zip(records)
                .filter_map(move |(row, record)| (row >= first || record.is_err()).then_some(record)),
        ))
    }
}

fn text_records(path: &Path, file: TextFile, kind: TextKind) -> Result<Records, SourceError> {
    match kind {
        TextKind::Delimited { delimiter } => delimited::records(path, file, delimiter),
        TextKind::JsonArray => Ok(json_array::records(path, file)),
        TextKind::JsonLines => Ok(json_lines::records(path, file)),
        TextKind::Urls => Ok(urls::records(path, file)),
    }
}
