use fastclip_schemas::foreign_json;
use serde_json::{Map, Value};

use super::image::{Fault, ImageCheck};
use super::{PackError, PackOptions};
use crate::duplicates::{Fingerprint, FingerprintMaker};
use crate::rejection::{Reason, Rejection};
use crate::source::{Content, ImageFile, OtherColumns, Pair, Place, ReadError, Row, Text};

/// Captions and JSON files above this are no captions and no metadata.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// A sample that only lacks its key.
#[derive(Debug, PartialEq)]
pub(crate) struct Prepared {
    /// The image as the input names it, for messages.
    pub(crate) name: String,
    pub(crate) image_bytes: u64,
    /// Extension and data of all members, the JSON one without data.
    pub(crate) members: Vec<(String, Vec<u8>)>,
    /// Content of the JSON member, if there is one.
    pub(crate) columns: Option<Map<String, Value>>,
    /// What the image is compared with earlier ones by.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// Extension of the member that has the columns.
pub(crate) const JSON_MEMBER: &str = "json";

/// What became of a row: exactly one of these.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Sample(Box<Prepared>),
    Rejected(Rejection),
    OtherSplit,
}

/// Turns rows into samples. Each thread has its own.
#[derive(Debug)]
pub(super) struct Preparer {
    check: ImageCheck,
    fingerprints: FingerprintMaker,
    max_file_bytes: u64,
}

impl Preparer {
    pub(super) fn new(options: &PackOptions) -> Result<Self, PackError> {
        let PackOptions { limits, duplicates, .. } = options;
        let failed = |reason: String| PackError::Start { what: "a JPEG decoder", reason };
        let check = ImageCheck::new(limits.max_image_pixels).map_err(|error| failed(error.to_string()))?;
        let fingerprints = FingerprintMaker::new(*duplicates, limits.max_image_pixels);
        let fingerprints = fingerprints.map_err(|error| failed(error.to_string()))?;
        Ok(Self { check, fingerprints, max_file_bytes: limits.max_file_bytes })
    }

    pub(super) fn prepare(&mut self, row: Row) -> Outcome {
        let Row { number, image, content } = row;
        let prepared = match content {
            Content::OtherSplit => return Outcome::OtherSplit,
            Content::Fault(reason, message) => Err((reason, message)),
            Content::Pair(pair) => self.prepare_pair(*pair, &image),
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
        let bytes = image(pair.image, self.max_file_bytes)?;
        if bytes.is_empty() {
            return Err((Reason::ZeroBytes, "the file is empty".to_owned()));
        }
        let checked = self.check.check(&bytes)?;
        // Columns of these names say something about another picture: the one before a download or a resize.
        if !name.is_empty() {
            columns.insert("image".to_owned(), name.into());
        }
        columns.insert("caption".to_owned(), caption.as_str().into());
        columns.insert("width".to_owned(), checked.width.into());
        columns.insert("height".to_owned(), checked.height.into());
        // Every sample gets a key of its own.
        columns.shift_remove("key");
        let fingerprint = self.fingerprints.make(&bytes);
        let image = checked.replacement.unwrap_or(bytes);
        let image_bytes = image.len() as u64;
        let mut members =
            vec![(checked.extension.to_owned(), image), ("txt".to_owned(), caption.into_bytes())];
        members.extend(class.map(|class| ("cls".to_owned(), class.into_bytes())));
        members.push((JSON_MEMBER.to_owned(), Vec::new()));
        let columns = Some(columns);
        Ok(Prepared { name: name.to_owned(), image_bytes, members, columns, fingerprint })
    }
}

fn image(file: ImageFile, max_bytes: u64) -> Result<Vec<u8>, Fault> {
    match file {
        ImageFile::Embedded(bytes) if bytes.len() as u64 > max_bytes => {
            Err((Reason::TooLarge, format!("{} bytes, the limit is {max_bytes}", bytes.len())))
        }
        ImageFile::Embedded(bytes) => Ok(bytes),
        ImageFile::Place(place) => {
            read(&place, max_bytes)?.ok_or_else(|| (Reason::MissingFile, "there is no such file".to_owned()))
        }
    }
}

fn caption(text: Text) -> Result<String, Fault> {
    let text = match text {
        Text::Inline(text) => text.unwrap_or_default(),
        Text::File(path) => {
            let bytes = read(&path, MAX_TEXT_BYTES)?.ok_or_else(|| {
                (Reason::CaptionMissing, format!("there is no `{}` beside the image", file_name(&path)))
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
        Text::File(path) => match read(&path, MAX_TEXT_BYTES)? {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => return Ok(None),
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
    match read(&path, MAX_TEXT_BYTES)? {
        Some(bytes) => foreign_json(&bytes).map_err(|error| {
            (Reason::MalformedRow, format!("`{}` is no JSON object: {error}", file_name(&path)))
        }),
        None => Ok(Map::new()),
    }
}

/// Nothing where there is no such file.
fn read(place: &Place, max_bytes: u64) -> Result<Option<Vec<u8>>, Fault> {
    match place.read(max_bytes) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Missing) => Ok(None),
        Err(ReadError::TooLarge { num_bytes }) => {
            Err((Reason::TooLarge, format!("{num_bytes} bytes, the limit is {max_bytes}")))
        }
        Err(ReadError::Failed(message)) => Err((Reason::UnreadableFile, message)),
    }
}

fn file_name(place: &Place) -> String {
    let path = place.path();
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
