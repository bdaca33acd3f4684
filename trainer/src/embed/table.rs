//! Embeddings as a Parquet table.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::Rows;

/// Rows of a group: few enough to be held until it is written.
const ROWS_PER_GROUP: usize = 1 << 14;

/// Writes samples as rows. The table appears under its name when it is complete.
pub(super) struct TableWriter {
    path: PathBuf,
    partial: PathBuf,
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    width: i32,
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TableWriter {
    /// `has_embeddings` decides whether rows hold them, or keys and ids only.
    pub(super) fn create(path: &Path, width: i32, has_embeddings: bool) -> Result<Self, ParquetError> {
        let mut fields =
            vec![Field::new("key", DataType::Utf8, false), Field::new("sample_id", DataType::UInt64, false)];
        if has_embeddings {
            for name in ["image_embedding", "text_embedding"] {
                fields.push(Field::new(name, DataType::FixedSizeList(element(), width), false));
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let partial = path.with_extension("parquet.partial");
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
            .build();
        let writer = ArrowWriter::try_new(File::create(&partial)?, Arc::clone(&schema), Some(properties))?;
        Ok(Self { path: path.to_owned(), partial, writer, schema, width })
    }

    pub(super) fn append(&mut self, rows: &Rows) -> Result<(), ParquetError> {
        let mut columns: Vec<arrow_array::ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(&rows.keys)),
            Arc::new(UInt64Array::from_iter_values(rows.ids.iter().copied())),
        ];
        if self.schema.fields().len() > columns.len() {
            for values in [&rows.images, &rows.texts] {
                let values = Arc::new(Float32Array::from(values.clone()));
                columns.push(Arc::new(FixedSizeListArray::try_new(element(), self.width, values, None)?));
            }
        }
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    pub(super) fn finish(self) -> Result<(), ParquetError> {
        let file = self.writer.into_inner()?;
        file.sync_all()?;
        Ok(std::fs::rename(&self.partial, &self.path)?)
    }
}

fn element() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Float32, false))
}
