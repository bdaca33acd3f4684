use std::path::{Path, PathBuf};

use fastclip_shards::{StoreError, StoreErrorKind};
use parquet::errors::ParquetError;

/// Why an input cannot be read at all. Faults of single rows are counted instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no such input.
    #[error("there is no input `{}`", path.display())]
    NotFound {
        /// Path of the input.
        path: PathBuf,
    },
    /// Neither a folder nor a known kind of table.
    #[error("`{}` is neither a folder nor a table: expected .csv, .tsv, .json, .jsonl, .ndjson, .txt, also as .gz or .zst, or .parquet", path.display())]
    UnknownKind {
        /// Path of the input.
        path: PathBuf,
    },
    /// A pattern that stands for nothing.
    #[error("`{}` matches no file", path.display())]
    NoMatch {
        /// The pattern.
        path: PathBuf,
    },
    /// A pattern that means nothing.
    #[error("`{}` is no pattern: {message}", path.display())]
    Pattern {
        /// The pattern.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A folder of which nobody can say which tables are meant.
    #[error("`{}` has tables of more than one kind: {} and {}", path.display(), kinds.0, kinds.1)]
    MixedFolder {
        /// The folder.
        path: PathBuf,
        /// Two of the extensions.
        kinds: (&'static str, &'static str),
    },
    /// There is nothing in it.
    #[error("`{}` has no rows", path.display())]
    Empty {
        /// Path of the input.
        path: PathBuf,
    },
    /// A column was asked for that the table does not have.
    #[error("`{}` has no column `{column}`, it has `{found}`", path.display())]
    Column {
        /// Path of the table.
        path: PathBuf,
        /// The missing column.
        column: String,
        /// The columns it has.
        found: String,
    },
    /// The table grew or shrank while it was read.
    #[error("`{}` gave {found} rows, it had {expected} before", path.display())]
    Changed {
        /// Path of the input.
        path: PathBuf,
        /// Rows that were read.
        found: u64,
        /// Rows that were counted before.
        expected: u64,
    },
    /// Folders have no columns to choose rows by.
    #[error("a split was asked for, but `{}` is a folder, which has no columns", path.display())]
    SplitOfFolder {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("could not read `{}`", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// An object store refused or failed.
    #[error("could not read `{}`", path.display())]
    Store {
        /// URL of the file or folder, without credentials.
        path: PathBuf,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A JSON file is not an array of objects.
    #[error("`{}` is no JSON array of objects: row {row}: {message}", path.display())]
    JsonArray {
        /// Path of the file.
        path: PathBuf,
        /// Row that could not be read, from 0.
        row: u64,
        /// What was expected and found.
        message: String,
    },
    /// A parquet file is damaged or uses what we do not read.
    #[error("`{}` is no readable parquet file", path.display())]
    Parquet {
        /// Path of the file.
        path: PathBuf,
        /// What the parquet reader said.
        #[source]
        source: ParquetError,
    },
    /// A part of a parquet file cannot be decoded.
    #[error("rows from {row} on of `{}` cannot be decoded", path.display())]
    Decode {
        /// Path of the file.
        path: PathBuf,
        /// First row that could not be read.
        row: u64,
        /// What the decoder said.
        #[source]
        source: arrow_schema::ArrowError,
    },
}

impl SourceError {
    pub(super) fn read(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Read { path, source },
        }
    }

    /// Whether the input is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match self {
            // Damaged gzip and zstd files.
            Self::Read { source, .. } => matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof),
            Self::Store { source, .. } => source.kind() != StoreErrorKind::Other,
            Self::Parquet { source: ParquetError::External(source), .. } => !source.is::<StoreError>(),
            _ => true,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Column { .. } => {
                Some("name the columns with --image-col, --caption-col, --class-col or --split-col")
            }
            Self::MixedFolder { .. } => Some("name the files with a pattern, as in `folder/*.parquet`"),
            _ => None,
        }
    }
}
