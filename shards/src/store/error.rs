use std::fmt;

use super::location::without_secrets;

/// Why a store did not do what it was asked.
///
/// It holds text, not the client's error: that one quotes URLs, which can carry a signature or a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    pub(super) kind: StoreErrorKind,
    pub(super) message: String,
}

/// What a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Nothing has that name.
    NotFound,
    /// The store refused for lack of rights.
    Denied,
    /// The location itself is no good: a malformed URL, an unknown scheme.
    Location,
    /// The bytes came, but cannot be decompressed.
    Damaged,
    /// Everything else, after all retries.
    Other,
}

impl StoreError {
    /// What a caller can act on.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    pub(crate) fn location(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Location, message: message.into() }
    }

    pub(crate) fn damaged(message: String) -> Self {
        Self { kind: StoreErrorKind::Damaged, message }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

/// What kept somebody from asking a store at all, or from taking its answer.
impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self { kind: StoreErrorKind::Other, message: without_secrets(&error.to_string()) }
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error;
        let kind = match error {
            Error::NotFound { .. } => StoreErrorKind::NotFound,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreErrorKind::Denied,
            _ => StoreErrorKind::Other,
        };
        Self { kind, message: without_secrets(&error.to_string()) }
    }
}
