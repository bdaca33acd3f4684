use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::array_value_to_string;
use arrow_schema::{ArrowError, DataType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::SourceError;
use super::record::{Record, Records};

/// Rows decoded at a time. Bounds memory, whatever the size of the row groups.
const BATCH_ROWS: usize = 1024;

/// Names of the columns and number of rows, from the footer.
pub(super) fn survey(path: &Path) -> Result<(Vec<String>, u64), SourceError> {
    let builder = open(path)?;
    let names = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let num_rows = builder.metadata().file_metadata().num_rows();
    Ok((names, u64::try_from(num_rows).unwrap_or(0)))
}

/// Numbers, flags and text keep their types; everything else becomes text.
pub(super) fn records(path: &Path) -> Result<Records, SourceError> {
    let reader = open(path)?.with_batch_size(BATCH_ROWS).build();
    let reader = reader.map_err(|source| SourceError::Parquet { path: path.to_owned(), source })?;
    let path = path.to_owned();
    let mut row = 0;
    let records = reader.flat_map(move |batch| {
        let records = batch.and_then(|batch| rows_of(&batch));
        let records = records.map_err(|source| SourceError::Decode { path: path.clone(), row, source });
        row += BATCH_ROWS as u64;
        let (records, error) = match records {
            Ok(records) => (records, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        records.into_iter().map(|record| Ok(Ok(record))).chain(error)
    });
    Ok(Box::new(records))
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, SourceError> {
    let file = File::open(path).map_err(|source| SourceError::read(path, source))?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|source| SourceError::Parquet { path: path.to_owned(), source })
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Record>, ArrowError> {
    let mut records = vec![Record::default(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (row, record) in records.iter_mut().enumerate() {
            let name = field.name().clone();
            if let Some(bytes) = binary(column, row)
                && std::str::from_utf8(bytes).is_err()
            {
                record.not_utf8.push(name.clone());
            }
            record.columns.insert(name, value(column, row)?);
        }
    }
    Ok(records)
}

/// Older writers store text as bytes.
fn binary(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(column.as_binary_view().value(row)),
        _ => None,
    }
}

fn value(column: &ArrayRef, row: usize) -> Result<Value, ArrowError> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    if let Some(bytes) = binary(column, row) {
        return Ok(String::from_utf8_lossy(bytes).into());
    }
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        // Not finite numbers become null: JSON has none.
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        _ => array_value_to_string(column, row)?.into(),
    })
}
