use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::Limits;
use super::image::{Fault, ImageCheck};
use crate::rejection::{Reason, Rejection};
use crate::source::{Content, OtherColumns, Pair, Row, Text};

/// Captions and JSON files above this are no captions and no metadata.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// A sample that only lacks its key.
#[derive(Debug, PartialEq)]
pub(super) struct Prepared {
    pub(super) extension: &'static str,
    pub(super) image: Vec<u8>,
    pub(super) caption: String,
    pub(super) class: Option<String>,
    /// Content of the JSON member.
    pub(super) columns: Map<String, Value>,
}

/// What became of a row: exactly one of these.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Sample(Box<Prepared>),
    Rejected(Rejection),
    OtherSplit,
}

/// Turns rows into samples. Each thread has its own.
#[derive(Debug)]
pub(super) struct Preparer {
    check: ImageCheck,
    max_file_bytes: u64,
}

impl Preparer {
    pub(super) fn new(limits: &Limits) -> Result<Self, turbojpeg::Error> {
        let check = ImageCheck::new(limits.max_image_pixels)?;
        Ok(Self { check, max_file_bytes: limits.max_file_bytes })
    }

    pub(super) fn prepare(&mut self, row: Row) -> Outcome {
        let Row { number, image, content } = row;
        let prepared = match content {
            Content::OtherSplit => return Outcome::OtherSplit,
            Content::Fault(reason, message) => Err((reason, message)),
            Content::Pair(pair) => self.prepare_pair(pair, &image),
        };
        match prepared {
            Ok(prepared) => Outcome::Sample(Box::new(prepared)),
            Err((reason, message)) => Outcome::Rejected(Rejection { row: number, image, reason, message }),
        }
    }

    fn prepare_pair(&mut self, pair: Pair, name: &str) -> Result<Prepared, Fault> {
        // Text first: it costs nothing beside decoding.
        let caption = caption(pair.caption)?;
        let class = class(pair.class)?;
        let mut columns = other_columns(pair.columns)?;
        let bytes = read(&pair.image, self.max_file_bytes).map_err(|refused| match refused {
            Refused::Missing => (Reason::MissingFile, "there is no such file".to_owned()),
            Refused::Fault(fault) => fault,
        })?;
        if bytes.is_empty() {
            return Err((Reason::ZeroBytes, "the file is empty".to_owned()));
        }
        let checked = self.check.check(&bytes)?;
        // Columns of these names say something about another picture: the one before a download or a resize.
        columns.insert("image".to_owned(), name.into());
        columns.insert("caption".to_owned(), caption.as_str().into());
        columns.insert("width".to_owned(), checked.width.into());
        columns.insert("height".to_owned(), checked.height.into());
        let image = checked.replacement.unwrap_or(bytes);
        Ok(Prepared { extension: checked.extension, image, caption, class, columns })
    }
}

fn caption(text: Text) -> Result<String, Fault> {
    let text = match text {
        Text::Inline(text) => text.unwrap_or_default(),
        Text::File(path) => {
            let bytes = read(&path, MAX_TEXT_BYTES).map_err(|refused| match refused {
                Refused::Missing => {
                    (Reason::CaptionMissing, format!("there is no `{}` beside the image", file_name(&path)))
                }
                Refused::Fault(fault) => fault,
            })?;
            String::from_utf8(bytes).map_err(|error| {
                let offset = error.utf8_error().valid_up_to();
                (Reason::CaptionNotUtf8, format!("`{}` is not UTF-8 at byte {offset}", file_name(&path)))
            })?
        }
    };
    // Editors write a byte order mark and a last line feed that nobody means.
    let caption = text.trim_start_matches('\u{feff}').trim();
    if caption.is_empty() {
        return Err((Reason::CaptionMissing, "the caption is empty".to_owned()));
    }
    Ok(caption.to_owned())
}

fn class(text: Text) -> Result<Option<String>, Fault> {
    let text = match text {
        Text::Inline(None) => return Ok(None),
        Text::Inline(Some(text)) => text,
        Text::File(path) => match read(&path, MAX_TEXT_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(Refused::Missing) => return Ok(None),
            Err(Refused::Fault(fault)) => return Err(fault),
        },
    };
    // Class numbers are signed 32-bit numbers in training, and negative ones stand for "none" there.
    match text.trim().parse::<i32>() {
        Ok(class) if class >= 0 => Ok(Some(class.to_string())),
        _ => Err((Reason::InvalidClass, format!("the class `{}` is no whole number", text.trim()))),
    }
}

fn other_columns(columns: OtherColumns) -> Result<Map<String, Value>, Fault> {
    let path = match columns {
        OtherColumns::Inline(columns) => return Ok(columns),
        OtherColumns::File(path) => path,
    };
    match read(&path, MAX_TEXT_BYTES) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            (Reason::MalformedRow, format!("`{}` is no JSON object: {error}", file_name(&path)))
        }),
        Err(Refused::Missing) => Ok(Map::new()),
        Err(Refused::Fault(fault)) => Err(fault),
    }
}

enum Refused {
    Missing,
    Fault(Fault),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Fault((Reason::UnreadableFile, error.to_string())),
        }
    }
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Refused> {
    // Asked before opening: opening a pipe would wait for somebody to write into it.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Refused::Fault((Reason::UnreadableFile, "it is no regular file".to_owned())));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, in case the file grows while it is read.
    File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("{} bytes, the limit is {max_bytes}", metadata.len());
        return Err(Refused::Fault((Reason::TooLarge, message)));
    }
    Ok(bytes)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
