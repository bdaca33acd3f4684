use std::fmt;

use fastclip_images::DecodeError;

/// Why an image was not taken. As text, an identifier that tables and reports keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PictureReason {
    /// The bytes are of no known image format.
    NotAnImage,
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

impl From<DecodeError> for PictureFailure {
    fn from(error: DecodeError) -> Self {
        let reason = match error {
            DecodeError::Empty | DecodeError::UnknownFormat => PictureReason::NotAnImage,
            DecodeError::Oversized { .. } | DecodeError::TooManyBytes { .. } => PictureReason::TooLarge,
            _ => PictureReason::CorruptImage,
        };
        Self::new(reason, error.to_string())
    }
}
