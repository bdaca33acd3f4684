use std::fmt;

use fastclip_images::DecodeError;

/// Bytes in which a page or a drawing says that it is one.
const LOOKED_AT: usize = 1024;

/// Why an image was not taken. As text, an identifier that tables and reports keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PictureReason {
    /// The bytes are of no known image format.
    NotAnImage,
    /// A web page came instead of an image.
    HtmlPage,
    /// A drawing that would have to be rendered.
    Svg,
    /// The bytes start like an image, and then do not decode.
    CorruptImage,
    /// More pixels than allowed, of the image or of what would be made of it.
    TooLarge,
    /// Fewer pixels than allowed.
    TooSmall,
    /// One side is too long for the other.
    TooLong,
    /// The result cannot be encoded.
    NotEncodable,
}

impl fmt::Display for PictureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnImage => "not_an_image",
            Self::HtmlPage => "html_page",
            Self::Svg => "svg",
            Self::CorruptImage => "corrupt_image",
            Self::TooLarge => "too_large",
            Self::TooSmall => "too_small",
            Self::TooLong => "too_long",
            Self::NotEncodable => "not_encodable",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureFailure {
    pub(crate) reason: PictureReason,
    pub(crate) message: String,
}

impl PictureFailure {
    pub(super) fn new(reason: PictureReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl PictureReason {
    /// What text is that should have been an image: of all that hosts send instead of one, pages are the most frequent.
    fn of_text(bytes: &[u8]) -> Option<Self> {
        let start = bytes.get(..LOOKED_AT).unwrap_or(bytes).trim_ascii_start();
        let start =
            start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start().to_ascii_lowercase();
        let find = |tag: &[u8]| start.windows(tag.len()).position(|window| window == tag);
        let pages =
            [b"<!doctype html".as_slice(), b"<html", b"<head", b"<body"].into_iter().filter_map(find).min();
        match (start.starts_with(b"<"), pages, find(b"<svg")) {
            (true, Some(page), svg) if svg.is_none_or(|svg| page < svg) => Some(Self::HtmlPage),
            (true, _, Some(_)) => Some(Self::Svg),
            _ => None,
        }
    }
}

impl PictureFailure {
    /// Why these bytes are no image.
    pub(super) fn of_bytes(bytes: &[u8], error: DecodeError) -> Self {
        if matches!(error, DecodeError::UnknownFormat)
            && let Some(reason) = PictureReason::of_text(bytes)
        {
            return Self::new(reason, error.to_string());
        }
        error.into()
    }
}

impl From<DecodeError> for PictureFailure {
    fn from(error: DecodeError) -> Self {
        let reason = match error {
            DecodeError::Empty | DecodeError::UnknownFormat => PictureReason::NotAnImage,
            DecodeError::Oversized { .. }
            | DecodeError::TooLong { .. }
            | DecodeError::TooManyBytes { .. } => PictureReason::TooLarge,
            _ => PictureReason::CorruptImage,
        };
        Self::new(reason, error.to_string())
    }
}
