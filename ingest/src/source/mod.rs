//! Where image-text pairs come from: folders and tables on this machine.
//!
//! A source knows its number of rows and a digest before the first row is read. The digest is what makes resuming safe,
//! and the number makes it possible to say early that too many rows are bad. Both cost one pass over the table, which
//! is small beside its images.
//!
//! A row that is no good is an ordinary row with a fault in it, so that each row has exactly one outcome. Errors are
//! for what concerns the whole source.

mod delimited;
mod error;
mod folder;
mod json_array;
mod json_lines;
mod parquet;
mod record;
mod table;
mod text_file;
mod urls;

use std::path::{Path, PathBuf};

use fastclip_schemas::Digest;
use serde_json::{Map, Value};

pub use error::SourceError;
pub(crate) use record::{Record, text};
pub(crate) use table::Table;

use crate::rejection::Reason;

/// How the columns of a table are named. Folders have fixed rules instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Path of the image, relative to the folder of the table.
    pub image: String,
    /// Its caption.
    pub caption: String,
    /// Its class number. Without a name, `cls` is used where it exists.
    pub class: Option<String>,
    /// Takes only the rows that have this value in this column.
    pub split: Option<Split>,
}

/// Chooses rows by the value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The column.
    pub column: String,
    /// The value.
    pub value: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self { image: "image".to_owned(), caption: "caption".to_owned(), class: None, split: None }
    }
}

/// One row of the input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// From 0; a header does not count.
    pub(crate) number: u64,
    /// The image as the input names it, for messages.
    pub(crate) image: String,
    pub(crate) content: Content,
}

/// What a row asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// To become a sample.
    Pair(Pair),
    /// Nothing: it belongs to a split that was not chosen.
    OtherSplit,
    /// Nothing that can be made out.
    Fault(Reason, String),
}

/// Where the parts of a sample are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) image: PathBuf,
    pub(crate) caption: Text,
    pub(crate) class: Text,
    pub(crate) columns: OtherColumns,
}

/// Text that stands in the row or in a file of its own, which need not exist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Text {
    Inline(Option<String>),
    File(PathBuf),
}

/// All that a row has besides image, caption and class.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OtherColumns {
    Inline(Map<String, Value>),
    /// A JSON file, which need not exist.
    File(PathBuf),
}

/// Rows in the order of the input.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<Row, SourceError>> + Send>;

/// An input that was looked through once.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    kind: Kind,
    columns: Columns,
    num_rows: u64,
    digest: Digest,
}

#[derive(Debug)]
enum Kind {
    Folder(folder::Listing),
    Table(Table),
}

impl Source {
    /// Recognises the kind of input, counts its rows and computes its digest.
    pub(crate) fn open(path: &Path, columns: &Columns) -> Result<Self, SourceError> {
        let metadata = std::fs::metadata(path).map_err(|source| SourceError::read(path, source))?;
        let (kind, num_rows, digest) = if metadata.is_dir() {
            if columns.split.is_some() {
                return Err(SourceError::SplitOfFolder { path: path.to_owned() });
            }
            let listing = folder::Listing::of(path)?;
            let (num_rows, digest) = (listing.num_rows(), listing.digest());
            (Kind::Folder(listing), num_rows, digest)
        } else {
            let table = Table::open(path)?;
            let (names, num_rows) = table.survey()?;
            let split = columns.split.as_ref().map(|split| split.column.as_str());
            let wanted = [
                Some(columns.image.as_str()),
                Some(columns.caption.as_str()),
                columns.class.as_deref(),
                split,
            ];
            if num_rows > 0 {
                table.check_columns(&names, wanted.into_iter().flatten())?;
            }
            (Kind::Table(table), num_rows, digest_of(path)?)
        };
        if num_rows == 0 {
            return Err(SourceError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), kind, columns: columns.clone(), num_rows, digest })
    }

    pub(crate) fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Digest of a table's bytes; of names and sizes for a folder.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Name for the manifest: not the whole path, which says more about the machine than about the data.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.path.display().to_string())
    }

    /// Folder in which files that go with the input are looked for.
    pub(crate) fn folder(&self) -> &Path {
        match self.kind {
            Kind::Folder(_) => &self.path,
            Kind::Table(_) => self.path.parent().unwrap_or(Path::new("")),
        }
    }

    /// Reads the rows from number `first` on.
    pub(crate) fn rows(&self, first: u64) -> Result<Rows, SourceError> {
        let records = match &self.kind {
            Kind::Folder(listing) => return Ok(listing.rows(first)),
            Kind::Table(table) => table.records(first)?,
        };
        let (folder, columns) = (self.folder().to_owned(), self.columns.clone());
        Ok(Box::new(records.map(move |(number, record)| Ok(record::row(number, record?, &folder, &columns)))))
    }
}

/// Digest of a file's bytes.
pub(crate) fn digest_of(path: &Path) -> Result<Digest, SourceError> {
    let mut hasher = blake3::Hasher::new();
    std::fs::File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|_| ()))
        .map_err(|source| SourceError::read(path, source))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}
