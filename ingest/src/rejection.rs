use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::picture::PictureReason;

/// Why a row does not become a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The row names no image, or one that is not there.
    MissingFile,
    /// The image or a file beside it is there and cannot be read.
    UnreadableFile,
    /// The image has no bytes.
    ZeroBytes,
    /// The bytes are of no known image format.
    NotAnImage,
    /// The bytes start like an image, and then do not decode.
    CorruptImage,
    /// More bytes or pixels than allowed.
    TooLarge,
    /// There is no caption, or only white space.
    CaptionMissing,
    /// The caption is not text.
    CaptionNotUtf8,
    /// The class is no whole number.
    InvalidClass,
    /// The row, or the JSON beside an image, does not have its format.
    MalformedRow,
    /// The image has fewer pixels than asked for.
    TooSmall,
    /// One side of the image is too long for the other.
    TooLong,
    /// What was made of the image cannot be stored in the format that was asked for.
    NotEncodable,
    /// The caption has fewer characters than asked for.
    CaptionTooShort,
    /// The caption has more characters than asked for.
    CaptionTooLong,
    /// Too few characters of the caption are letters.
    CaptionFewLetters,
    /// The image comes from a host that is not wanted.
    HostDenied,
    /// The image comes from a host that was not asked for.
    HostNotAllowed,
    /// The bytes of the image are those of an earlier one.
    Duplicate,
    /// The image shows what an earlier one shows.
    NearDuplicate,
}

impl Reason {
    /// The identifier that tables and reports keep.
    pub(crate) fn identifier(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(identifier)) => identifier,
            _ => self.to_string(),
        }
    }

    /// Whether the row is good, and left out by a rule that was asked for.
    pub fn is_choice(self) -> bool {
        use Reason::*;
        matches!(
            self,
            TooSmall
                | TooLong
                | CaptionTooShort
                | CaptionTooLong
                | CaptionFewLetters
                | HostDenied
                | HostNotAllowed
                | Duplicate
                | NearDuplicate
        )
    }
}

impl From<PictureReason> for Reason {
    fn from(reason: PictureReason) -> Self {
        match reason {
            PictureReason::NotAnImage | PictureReason::HtmlPage | PictureReason::Svg => Self::NotAnImage,
            PictureReason::CorruptImage => Self::CorruptImage,
            PictureReason::TooLarge => Self::TooLarge,
            PictureReason::TooSmall => Self::TooSmall,
            PictureReason::TooLong => Self::TooLong,
            PictureReason::NotEncodable => Self::NotEncodable,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MissingFile => "missing file",
            Self::UnreadableFile => "unreadable file",
            Self::ZeroBytes => "zero bytes",
            Self::NotAnImage => "not an image",
            Self::CorruptImage => "corrupt image",
            Self::TooLarge => "too large",
            Self::CaptionMissing => "caption missing",
            Self::CaptionNotUtf8 => "caption not UTF-8",
            Self::InvalidClass => "invalid class",
            Self::MalformedRow => "malformed row",
            Self::TooSmall => "too small",
            Self::TooLong => "too long",
            Self::NotEncodable => "not encodable",
            Self::CaptionTooShort => "caption too short",
            Self::CaptionTooLong => "caption too long",
            Self::CaptionFewLetters => "caption few letters",
            Self::HostDenied => "host denied",
            Self::HostNotAllowed => "host not allowed",
            Self::Duplicate => "duplicate",
            Self::NearDuplicate => "near duplicate",
        })
    }
}

/// A row that did not become a sample: a line of `rejected.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// Number of the row, from 0; a table's header does not count.
    pub row: u64,
    /// The image as the input names it.
    pub image: String,
    /// Class of failure.
    pub reason: Reason,
    /// What exactly was found.
    pub message: String,
}

/// Rejections counted by reason, with the first of each as an example. It does not grow with their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectionCounts {
    reasons: BTreeMap<Reason, (u64, Rejection)>,
}

impl RejectionCounts {
    /// Counts one more. The first of each reason becomes its example.
    pub fn add(&mut self, rejection: &Rejection) {
        self.reasons.entry(rejection.reason).or_insert_with(|| (0, rejection.clone())).0 += 1;
    }

    /// All rejections.
    pub fn total(&self) -> u64 {
        self.reasons.values().map(|(count, _)| count).sum()
    }

    /// Rejections of rows that are unusable, rather than unwanted.
    pub fn num_bad(&self) -> u64 {
        let bad = self.reasons.iter().filter(|(reason, _)| !reason.is_choice());
        bad.map(|(_, (count, _))| count).sum()
    }

    /// Rejections of one reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.reasons.get(&reason).map_or(0, |(count, _)| *count)
    }

    /// One line: `6 corrupt image, 2 missing file`.
    pub fn summary(&self) -> String {
        let counts: Vec<_> =
            self.reasons.iter().map(|(reason, (count, _))| format!("{count} {reason}")).collect();
        counts.join(", ")
    }
}

/// A table with an example of each reason.
impl fmt::Display for RejectionCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<18} {:>9}  example", "reason", "rows")?;
        for (reason, (count, Rejection { row, image, message, .. })) in &self.reasons {
            write!(f, "\n  {reason:<18} {count:>9}  row {row}")?;
            if !image.is_empty() {
                write!(f, ", `{image}`")?;
            }
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}
