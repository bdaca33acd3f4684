use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use super::outcome::{ImageFacts, Report};
use crate::hash::HashKind;
use crate::source::text;

/// Rows that are held until they are encoded.
const BATCH_ROWS: usize = 1000;

/// Columns behind those of the list, as img2dataset names them.
const TEXTS: [&str; 6] = ["caption", "url", "key", "status", "error_message", "exif"];
const NUMBERS: [&str; 4] = ["width", "height", "original_width", "original_height"];

/// Key in the file's metadata for the columns, as a JSON array, whose cells are JSON and were no text in the list: numbers, flags, lists.
const JSON_COLUMNS: &str = "fastclip.json_columns";

/// What is said of a row, in the JSON member and the table alike. The hash of its image is of this kind.
pub(super) fn fields(report: &Report, key: &str, hash: Option<HashKind>) -> Map<String, Value> {
    let mut fields = report.additional.clone();
    let error = report.failure.as_ref().map(|(reason, message)| format!("{reason}: {message}"));
    let image = report.image.as_ref();
    let number = |of: fn(&ImageFacts) -> u32| image.map_or(Value::Null, |image| of(image).into());
    for (name, value) in [
        ("caption", report.caption.as_deref().map_or(Value::Null, Value::from)),
        ("url", report.url.as_str().into()),
        ("key", key.into()),
        ("status", report.status.name().into()),
        ("error_message", error.map_or(Value::Null, Value::from)),
        ("width", number(|image| image.width)),
        ("height", number(|image| image.height)),
        ("original_width", number(|image| image.original_width)),
        ("original_height", number(|image| image.original_height)),
        ("exif", image.and_then(|image| image.exif.clone()).map_or(Value::Null, Value::from)),
    ] {
        fields.insert(name.to_owned(), value);
    }
    if let Some(kind) = hash {
        let hash = image.and_then(|image| image.hash.clone()).map(Value::from);
        // Without an image, what the list says stays: who fetches the row once more compares with it.
        let hash = hash.or_else(|| fields.get(kind.name()).cloned());
        fields.insert(kind.name().to_owned(), hash.unwrap_or(Value::Null));
    }
    fields
}

/// The table beside a shard, with one row for each of the list.
pub(super) struct MetadataTable {
    texts: Vec<(String, StringBuilder)>,
    numbers: Vec<(&'static str, Int32Builder)>,
    schema: Arc<Schema>,
    writer: ArrowWriter<Vec<u8>>,
    num_waiting: usize,
    /// Columns of the list by whether all their cells are something else than text. Those without any are not here.
    are_json: BTreeMap<String, bool>,
}

impl MetadataTable {
    /// An empty table with these columns of the list.
    pub(super) fn new(additional: &[String], hash: Option<HashKind>) -> Result<Self, ParquetError> {
        let hash = hash.map(HashKind::name);
        let known = TEXTS.into_iter().chain(hash).map(str::to_owned);
        // A column of the list may be named like one of ours, which then stands for both.
        let is_known = |name: &str| TEXTS.contains(&name) || NUMBERS.contains(&name) || hash == Some(name);
        let own = additional.iter().filter(|name| !is_known(name));
        let texts: Vec<_> = own.cloned().chain(known).map(|name| (name, StringBuilder::new())).collect();
        let numbers: Vec<_> = NUMBERS.into_iter().map(|name| (name, Int32Builder::new())).collect();
        let fields = texts.iter().map(|(name, _)| Field::new(name, DataType::Utf8, true));
        let fields = fields.chain(numbers.iter().map(|(name, _)| Field::new(*name, DataType::Int32, true)));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        Ok(Self { texts, numbers, schema, writer, num_waiting: 0, are_json: BTreeMap::new() })
    }

    /// Appends what [`fields`] made.
    pub(super) fn push(&mut self, fields: &Map<String, Value>) -> Result<(), ParquetError> {
        for (name, column) in &mut self.texts {
            let field = fields.get(name.as_str());
            if let Some(field) = field.filter(|field| !field.is_null() && !TEXTS.contains(&name.as_str())) {
                *self.are_json.entry(name.clone()).or_insert(true) &= !field.is_string();
            }
            column.append_option(text(field.cloned()));
        }
        for (name, column) in &mut self.numbers {
            let number = fields.get(*name).and_then(Value::as_i64);
            column.append_option(number.and_then(|number| i32::try_from(number).ok()));
        }
        self.num_waiting += 1;
        if self.num_waiting == BATCH_ROWS { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<(), ParquetError> {
        let texts = self.texts.iter_mut().map(|(_, column)| Arc::new(column.finish()) as ArrayRef);
        let numbers = self.numbers.iter_mut().map(|(_, column)| Arc::new(column.finish()) as ArrayRef);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), texts.chain(numbers).collect())?;
        self.num_waiting = 0;
        self.writer.write(&batch)
    }

    /// The file.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        if self.num_waiting > 0 {
            self.encode()?;
        }
        let json: Vec<&String> =
            self.are_json.iter().filter(|(_, is_json)| **is_json).map(|(name, _)| name).collect();
        if !json.is_empty() {
            let names = serde_json::to_string(&json).expect("names are text");
            self.writer.append_key_value_metadata(KeyValue::new(JSON_COLUMNS.to_owned(), names));
        }
        self.writer.into_inner()
    }
}

/// Reads a table that was written here: what [`fields`] made of each row, in columns of text and these of the list.
pub(super) fn read_table(
    bytes: Bytes,
    additional: &[String],
) -> Result<Vec<Map<String, Value>>, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let json = metadata.into_iter().flatten().find(|pair| pair.key == JSON_COLUMNS);
    let json: Vec<String> =
        json.and_then(|pair| serde_json::from_str(pair.value.as_deref()?).ok()).unwrap_or_default();
    let wanted = |name: &String| TEXTS.contains(&name.as_str()) || additional.contains(name);
    let mut rows = Vec::new();
    for batch in builder.build()? {
        let batch = batch?;
        let first = rows.len();
        rows.resize_with(first + batch.num_rows(), Map::new);
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let Some(cells) = column.as_string_opt::<i32>().filter(|_| wanted(field.name())) else {
                continue;
            };
            for (cell, row) in (0..cells.len()).zip(&mut rows[first..]) {
                if cells.is_null(cell) {
                    continue;
                }
                let text = || Value::from(cells.value(cell));
                let value = match json.contains(field.name()) {
                    true => serde_json::from_str(cells.value(cell)).unwrap_or_else(|_| text()),
                    false => text(),
                };
                row.insert(field.name().clone(), value);
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::outcome::Status;
    use super::*;

    #[test]
    fn a_table_gives_back_what_the_list_had() {
        let additional = ["id", "tags", "note", "mixed", "empty"].map(str::to_owned);
        let rows = [
            json!({"id": 7, "tags": ["a"], "note": "12", "mixed": 1, "empty": null}),
            json!({"id": -0.5, "tags": null, "note": "x", "mixed": "1", "empty": null}),
        ];
        let mut table = MetadataTable::new(&additional, Some(HashKind::Sha256)).unwrap();
        for (row, columns) in (0..).zip(&rows) {
            let report = Report {
                row,
                url: format!("http://host/{row}"),
                caption: None,
                additional: columns.as_object().unwrap().clone(),
                status: Status::FailedToDownload,
                failure: Some(("timeout".to_owned(), "no: bytes".to_owned())),
                image: None,
                fingerprint: None,
            };
            table.push(&fields(&report, &format!("{row:06}"), Some(HashKind::Sha256))).unwrap();
        }
        let read = read_table(table.finish().unwrap().into(), &additional).unwrap();
        let expected = |key: &str, url: &str, columns: Value| {
            let mut row = json!({"key": key, "url": url, "status": "failed_to_download", "error_message": "timeout: no: bytes"});
            row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
            row.as_object().unwrap().clone()
        };
        let first = json!({"id": 7, "tags": ["a"], "note": "12", "mixed": "1"});
        assert_eq!(read[0], expected("000000", "http://host/0", first));
        let second = json!({"id": -0.5, "note": "x", "mixed": "1"});
        assert_eq!(read[1], expected("000001", "http://host/1", second));
    }
}
