use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType};
use bytes::Bytes;
use fastclip_shards::StoreError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::StoredTable;

/// What became of a row; a table without it is another one.
const STATUS: &str = "status";

/// Columns that are looked at. Others, captions above all, are not decoded.
const COLUMNS: [&str; 4] = [STATUS, "error_message", "url", "key"];

/// A table cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read table `{name}`")]
pub struct TableError {
    /// Its name.
    pub name: String,
    source: TableCause,
}

#[derive(Debug, thiserror::Error)]
enum TableCause {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// A row of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableRow<'a> {
    pub(crate) status: &'a str,
    pub(crate) error: Option<&'a str>,
    pub(crate) url: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

impl TableRow<'_> {
    pub(crate) fn is_success(&self) -> bool {
        self.status == "success"
    }
}

/// Shows each row of a table to `visit`. Returns whether it is one of a download: other tables have no status, and nothing of them
/// is shown.
pub(crate) async fn read_table(
    table: &StoredTable,
    visit: impl FnMut(TableRow<'_>),
) -> Result<bool, TableError> {
    let bytes = table.store.get(&table.name).await.map_err(TableCause::from);
    let read = bytes.and_then(|bytes| read_bytes(bytes, visit));
    read.map_err(|source| TableError { name: table.name.clone(), source })
}

fn read_bytes(bytes: Bytes, mut visit: impl FnMut(TableRow<'_>)) -> Result<bool, TableCause> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    if builder.schema().field_with_name(STATUS).is_err() {
        return Ok(false);
    }
    let columns = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
    for batch in builder.with_projection(columns).build()? {
        visit_rows(&batch?, &mut visit)?;
    }
    Ok(true)
}

fn visit_rows(batch: &RecordBatch, visit: &mut impl FnMut(TableRow<'_>)) -> Result<(), TableCause> {
    let mut columns = Vec::with_capacity(COLUMNS.len());
    for name in COLUMNS {
        let column = batch.column_by_name(name).map(|column| cast(column, &DataType::LargeUtf8));
        columns.push(column.transpose()?);
    }
    let texts: Vec<_> =
        columns.iter().map(|column| column.as_ref().map(|column| column.as_string::<i64>())).collect();
    for row in 0..batch.num_rows() {
        let text =
            |column: usize| texts[column].filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row));
        visit(TableRow { status: text(0).unwrap_or_default(), error: text(1), url: text(2), key: text(3) });
    }
    Ok(())
}
