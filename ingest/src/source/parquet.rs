use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::array_value_to_string;
use arrow_schema::{ArrowError, DataType};
use fastclip_schemas::Digest;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;
use serde_json::Value;

use super::SourceError;
use super::record::{Record, Records};
use super::table_file::Survey;

/// Most rows that are decoded at a time, and about how many bytes they may have. Bound memory, whatever the size of the row
/// groups.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 16 << 20;

/// The size of a footer, and the mark at the end of the file.
const FOOTER_TAIL_BYTES: usize = 8;

type Builder<R> = ParquetRecordBatchReaderBuilder<R>;

/// Names of the columns and number of rows, from the footer.
pub(super) fn survey<R: ChunkReader + 'static>(path: &Path, file: R) -> Result<Survey, SourceError> {
    let digest = footer_digest(&file);
    let builder = open(path, file)?;
    let names = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let num_rows = builder.metadata().file_metadata().num_rows();
    let digest = digest.map_err(|source| SourceError::Parquet { path: path.to_owned(), source })?;
    Ok(Survey { names, num_rows: u64::try_from(num_rows).unwrap_or(0), digest })
}

fn footer_digest(file: &impl ChunkReader) -> Result<Digest, ParquetError> {
    // Whether there is a footer is found out when the file is opened.
    let num_bytes = file.len();
    let end = num_bytes.saturating_sub(FOOTER_TAIL_BYTES as u64);
    let tail = file.get_bytes(end, FOOTER_TAIL_BYTES)?;
    let size = tail.first_chunk().map_or(0, |size| u32::from_le_bytes(*size));
    let footer = file.get_bytes(end.saturating_sub(u64::from(size)), size as usize)?;
    let mut digest = blake3::Hasher::new();
    digest.update(&num_bytes.to_le_bytes()).update(&footer);
    Ok(Digest(*digest.finalize().as_bytes()))
}

/// How many columns, those within others counted, [`records`] reads at a time.
pub(super) fn num_columns<R: ChunkReader + 'static>(
    path: &Path,
    file: R,
    columns: Option<&[String]>,
) -> Result<usize, SourceError> {
    let builder = open(path, file)?;
    let mask = projection(&builder, columns);
    Ok((0..builder.parquet_schema().num_columns()).filter(|column| mask.leaf_included(*column)).count())
}

/// Numbers, flags and text keep their types; everything else becomes text.
pub(super) fn records<R: ChunkReader + 'static>(
    path: &Path,
    file: R,
    first: u64,
    columns: Option<&[String]>,
) -> Result<Records, SourceError> {
    let builder = open(path, file)?;
    let mask = projection(&builder, columns);
    let (groups, offset) = groups_from(builder.metadata(), first);
    let batch_rows = batch_rows(builder.metadata(), &mask);
    let builder = builder.with_projection(mask).with_row_groups(groups).with_offset(offset);
    let reader = builder.with_batch_size(batch_rows).build();
    let reader = reader.map_err(|source| SourceError::Parquet { path: path.to_owned(), source })?;
    let path = path.to_owned();
    let mut row = first;
    let records = reader.flat_map(move |batch| {
        let (first, path) = (row, path.clone());
        let (batch, error) = match batch {
            Ok(batch) => (Some(batch), None),
            Err(error) => (None, Some(error)),
        };
        row += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        let decode = move |row, source| SourceError::Decode { path: path.clone(), row, source };
        let error = error.map(|source| Err(decode(first, source)));
        let num_rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
        // One by one: with images in them, the rows of a batch are not to be in memory twice.
        let records = (0..num_rows).filter_map(move |row| batch.as_ref().map(|batch| record(batch, row)));
        records
            .map(|record| Ok(Ok(record?)))
            .map(move |record: Result<_, ArrowError>| record.map_err(|source| decode(first, source)))
            .chain(error)
    });
    Ok(Box::new(records))
}

fn open<R: ChunkReader + 'static>(path: &Path, file: R) -> Result<Builder<R>, SourceError> {
    Builder::try_new(file).map_err(|source| SourceError::Parquet { path: path.to_owned(), source })
}

fn projection<R: ChunkReader + 'static>(builder: &Builder<R>, columns: Option<&[String]>) -> ProjectionMask {
    let Some(columns) = columns else { return ProjectionMask::all() };
    let schema = builder.parquet_schema();
    // By place, not by path: a dot may be part of a name.
    let fields = builder.schema().fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| columns.contains(field.name())).map(|(root, _)| root);
    ProjectionMask::roots(schema, roots)
}

/// The row groups from the one that has row `first` on, and the rows before that in the first of them.
fn groups_from(metadata: &ParquetMetaData, first: u64) -> (Vec<usize>, usize) {
    let mut offset = first;
    let mut groups = 0..metadata.num_row_groups();
    while let Some(group) = groups.clone().next() {
        let num_rows = u64::try_from(metadata.row_group(group).num_rows()).unwrap_or(0);
        if offset < num_rows {
            break;
        }
        offset -= num_rows;
        groups.next();
    }
    (groups.collect(), usize::try_from(offset).unwrap_or(usize::MAX))
}

/// So many rows that they have about [`BATCH_BYTES`], going by the largest row group.
fn batch_rows(metadata: &ParquetMetaData, mask: &ProjectionMask) -> usize {
    let row_bytes = metadata.row_groups().iter().map(|group| {
        let columns = group.columns().iter().enumerate().filter(|(column, _)| mask.leaf_included(*column));
        let num_bytes: i64 = columns.map(|(_, column)| column.uncompressed_size()).sum();
        num_bytes / group.num_rows().max(1)
    });
    let row_bytes = usize::try_from(row_bytes.max().unwrap_or(0)).unwrap_or(0);
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS)
}

fn record(batch: &RecordBatch, row: usize) -> Result<Record, ArrowError> {
    let mut record = Record::default();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name().clone();
        if let Some((bytes, path)) = image(column, row) {
            record.images.extend(bytes.map(|bytes| (name.clone(), bytes)));
            record.columns.insert(name, path);
            continue;
        }
        if let Some(bytes) = binary(column, row)
            && (std::str::from_utf8(bytes).is_err() || bytes.contains(&0))
        {
            record.not_utf8.push(name.clone());
            record.images.push((name.clone(), bytes.to_vec()));
            record.columns.insert(name, Value::Null);
            continue;
        }
        record.columns.insert(name, value(column, row)?);
    }
    Ok(record)
}

/// Bytes and path of an image as the library `datasets` stores it: a column of `bytes` and `path`, of which one may be null.
fn image(column: &ArrayRef, row: usize) -> Option<(Option<Vec<u8>>, Value)> {
    let DataType::Struct(fields) = column.data_type() else { return None };
    let bytes = fields.iter().position(|field| field.name() == "bytes" && is_binary(field.data_type()))?;
    let column = column.as_struct();
    if column.is_null(row) {
        return Some((None, Value::Null));
    }
    let path = column.column_by_name("path").and_then(|path| value(path, row).ok()).unwrap_or_default();
    Some((binary(column.column(bytes), row).map(<[u8]>::to_vec), path))
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
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
