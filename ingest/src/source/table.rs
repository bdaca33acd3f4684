use std::path::{Path, PathBuf};

use super::record::{NumberedRecords, Records};
use super::text_file::{Packing, extension};
use super::{SourceError, delimited, json_array, json_lines, parquet, urls};

/// A file of rows with named columns. Its name says of which kind it is.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Delimited { delimiter: u8 },
    JsonArray,
    JsonLines,
    Parquet,
    Urls,
}

impl Table {
    /// Recognises the kind of a table. Nothing is read.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let packing = Packing::of(path);
        let unpacked = if packing.is_some() { path.with_extension("") } else { path.to_owned() };
        let kind = match extension(&unpacked).as_str() {
            "csv" => Kind::Delimited { delimiter: b',' },
            "tsv" => Kind::Delimited { delimiter: b'\t' },
            "json" => Kind::JsonArray,
            "jsonl" | "ndjson" => Kind::JsonLines,
            // Parquet is read from its end, and packs its columns by itself.
            "parquet" if packing.is_none() => Kind::Parquet,
            "txt" => Kind::Urls,
            _ => return Err(SourceError::UnknownKind { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), kind })
    }

    /// Names of the columns and number of rows. Only of parquet both are known without reading all of it.
    pub(crate) fn survey(&self) -> Result<(Vec<String>, u64), SourceError> {
        match self.kind {
            Kind::Delimited { delimiter } => delimited::survey(&self.path, delimiter),
            Kind::JsonArray => json_array::survey(&self.path),
            Kind::JsonLines => json_lines::survey(&self.path),
            Kind::Parquet => parquet::survey(&self.path),
            Kind::Urls => urls::survey(&self.path),
        }
    }

    /// Refuses a table of these columns that lacks a wanted one.
    pub(crate) fn check_columns<'a>(
        &self,
        names: &[String],
        wanted: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), SourceError> {
        match wanted.into_iter().find(|column| names.iter().all(|name| name != column)) {
            Some(column) => Err(SourceError::Column {
                path: self.path.clone(),
                column: column.to_owned(),
                found: names.join("`, `"),
            }),
            None => Ok(()),
        }
    }

    /// Reads the rows from number `first` on, each with its number; memory does not grow with theirs.
    pub(crate) fn records(&self, first: u64) -> Result<NumberedRecords, SourceError> {
        let records = (0..).zip(self.all_records()?);
        Ok(Box::new(records.skip_while(move |(number, record)| record.is_ok() && *number < first)))
    }

    fn all_records(&self) -> Result<Records, SourceError> {
        match self.kind {
            Kind::Delimited { delimiter } => delimited::records(&self.path, delimiter),
            Kind::JsonArray => json_array::records(&self.path),
            Kind::JsonLines => json_lines::records(&self.path),
            Kind::Parquet => parquet::records(&self.path),
            Kind::Urls => urls::records(&self.path),
        }
    }
}
