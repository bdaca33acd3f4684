use std::sync::Arc;

use arrow_array::builder::{Int32Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use super::outcome::{ImageFacts, Report};
use crate::source::text;

/// Rows that are held until they are encoded.
const BATCH_ROWS: usize = 1000;

/// Columns behind those of the list, as img2dataset names them.
const TEXTS: [&str; 7] = ["caption", "url", "key", "status", "error_message", "exif", "sha256"];
const NUMBERS: [&str; 4] = ["width", "height", "original_width", "original_height"];

/// What is said of a row, in the JSON member and the table alike.
pub(super) fn fields(report: &Report, key: &str) -> Map<String, Value> {
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
        ("sha256", image.map_or(Value::Null, |image| image.sha256.as_str().into())),
    ] {
        fields.insert(name.to_owned(), value);
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
}

impl MetadataTable {
    /// An empty table with these columns of the list.
    pub(super) fn new(additional: &[String]) -> Result<Self, ParquetError> {
        let known = TEXTS.into_iter().map(str::to_owned);
        // A column of the list may be named like one of ours, which then stands for both.
        let own = additional
            .iter()
            .filter(|name| !TEXTS.contains(&name.as_str()) && !NUMBERS.contains(&name.as_str()));
        let texts: Vec<_> = own.cloned().chain(known).map(|name| (name, StringBuilder::new())).collect();
        let numbers: Vec<_> = NUMBERS.into_iter().map(|name| (name, Int32Builder::new())).collect();
        let fields = texts.iter().map(|(name, _)| Field::new(name, DataType::Utf8, true));
        let fields = fields.chain(numbers.iter().map(|(name, _)| Field::new(*name, DataType::Int32, true)));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        Ok(Self { texts, numbers, schema, writer, num_waiting: 0 })
    }

    /// Appends what [`fields`] made.
    pub(super) fn push(&mut self, fields: &Map<String, Value>) -> Result<(), ParquetError> {
        for (name, column) in &mut self.texts {
            column.append_option(text(fields.get(name.as_str()).cloned()));
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
        self.writer.into_inner()
    }
}
