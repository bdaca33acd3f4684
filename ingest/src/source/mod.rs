//! Where image-text pairs come from: folders of images, and tables on this machine or in object stores.
//!
//! A source knows its number of rows and a digest before the first row is read. The digest is what makes resuming safe,
//! and the number makes it possible to say early that too many rows are bad. Parquet tells both in its footer; text costs one
//! pass, which is little beside the images.
//!
//! | file | holds |
//! |---|---|
//! | `inputs` | from paths, patterns and URLs to files |
//! | `place`, `stored_file` | a file, wherever it lies |
//! | `table`, `table_file` | files of rows, as one table |
//! | `delimited`, `json_array`, `json_lines`, `parquet`, `urls` | the kinds of tables |
//! | `record` | from columns to their meaning |
//! | `folder` | images beside their captions |
//!
//! A row that is no good is an ordinary row with a fault in it, so that each row has exactly one outcome. Errors are
//! for what concerns the whole source.

mod delimited;
mod error;
mod folder;
mod inputs;
mod json_array;
mod json_lines;
mod parquet;
mod place;
mod record;
mod stored_file;
mod table;
mod table_file;
mod text_file;
mod urls;

use std::path::{Path, PathBuf};

use fastclip_schemas::Digest;
use serde_json::{Map, Value};

pub use error::SourceError;
pub use inputs::Inputs;
pub(crate) use place::{Place, ReadError};
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
    Pair(Box<Pair>),
    /// Nothing: it belongs to a split that was not chosen.
    OtherSplit,
    /// Nothing that can be made out.
    Fault(Reason, String),
}

/// Where the parts of a sample are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) image: ImageFile,
    pub(crate) caption: Text,
    pub(crate) class: Text,
    pub(crate) columns: OtherColumns,
}

/// The bytes of an image, or where they are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ImageFile {
    Embedded(Vec<u8>),
    Place(Place),
}

/// Text that stands in the row or in a file of its own, which need not exist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Text {
    Inline(Option<String>),
    File(Place),
}

/// All that a row has besides image, caption and class.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OtherColumns {
    Inline(Map<String, Value>),
    /// A JSON file, which need not exist.
    File(Place),
}

/// Rows in the order of the input.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<Row, SourceError>> + Send>;

/// An input that was looked through once.
#[derive(Debug)]
pub(crate) struct Source {
    inputs: Inputs,
    kind: Kind,
    columns: Columns,
}

#[derive(Debug)]
enum Kind {
    Folder(folder::Listing),
    Table(Table),
}

impl Source {
    /// Recognises the kind of input, counts its rows and computes its digest. A folder with images is one of pairs, any other
    /// one of tables.
    pub(crate) fn open(inputs: &Inputs, columns: &Columns) -> Result<Self, SourceError> {
        let (inputs, columns) = (inputs.clone(), columns.clone());
        if let Some(folder) = inputs.only_folder() {
            let listing = folder::Listing::of(folder)?;
            if listing.num_rows() > 0 {
                if columns.split.is_some() {
                    return Err(SourceError::SplitOfFolder { path: folder.to_owned() });
                }
                return Ok(Self { inputs, kind: Kind::Folder(listing), columns });
            }
        }
        let table = Table::open(&inputs)?;
        let split = columns.split.as_ref().map(|split| split.column.as_str());
        let wanted =
            [Some(columns.image.as_str()), Some(columns.caption.as_str()), columns.class.as_deref(), split];
        table.check_columns(wanted.into_iter().flatten())?;
        Ok(Self { inputs, kind: Kind::Table(table), columns })
    }

    pub(crate) fn num_rows(&self) -> u64 {
        match &self.kind {
            Kind::Folder(listing) => listing.num_rows(),
            Kind::Table(table) => table.num_rows(),
        }
    }

    /// Digest of a table; of names and sizes for a folder.
    pub(crate) fn digest(&self) -> Digest {
        match &self.kind {
            Kind::Folder(listing) => listing.digest(),
            Kind::Table(table) => table.digest(),
        }
    }

    /// Name for the manifest: not the whole path, which says more about the machine than about the data.
    pub(crate) fn name(&self) -> String {
        self.inputs.name()
    }

    /// Folder of this machine in which files that go with the input are looked for.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Folder(_) => self.inputs.only_folder(),
            Kind::Table(table) => table.first_place().local_folder(),
        }
    }

    /// Paths or URLs of the tables. A folder of images has none.
    pub(crate) fn tables(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::Folder(_) => Vec::new(),
            Kind::Table(table) => table.paths().collect(),
        }
    }

    /// Reads the rows from number `first` on.
    pub(crate) fn rows(&self, first: u64) -> Rows {
        let table = match &self.kind {
            Kind::Folder(listing) => return listing.rows(first),
            Kind::Table(table) => table.clone(),
        };
        let columns = self.columns.clone();
        Box::new(
            table.records(first, None).map(move |(number, record)| {
                Ok(record::row(number, record?, table.place_of(number), &columns))
            }),
        )
    }
}
