use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::duplicates::Fingerprint;

/// How a row ended, in img2dataset's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Success,
    /// There was no answer, or none that could be used.
    FailedToDownload,
    /// What came could not become an image of the dataset.
    FailedToResize,
    /// It broke a rule for rows, and no host was asked. img2dataset has no such thing.
    Filtered,
    /// It is what an earlier row is, which stays. img2dataset has no such thing either.
    Duplicate,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::FailedToDownload => "failed_to_download",
            Self::FailedToResize => "failed_to_resize",
            Self::Filtered => "filtered",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Why a row is no sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: Status,
    /// Identifier that tables and reports keep.
    pub(super) reason: String,
    /// What exactly was found.
    pub(super) message: String,
}

/// What is known about a row when it is done: a row of the table beside its shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) row: u64,
    pub(super) url: String,
    pub(super) caption: Option<String>,
    pub(super) additional: Map<String, Value>,
    pub(super) status: Status,
    /// Identifier of the failure and what exactly was found.
    pub(super) failure: Option<(String, String)>,
    pub(super) image: Option<ImageFacts>,
    /// What the image is compared with earlier ones by.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// What is known about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageFacts {
    /// Extension of the member.
    pub(super) extension: String,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) original_width: u32,
    pub(super) original_height: u32,
    /// The EXIF record as JSON.
    pub(super) exif: Option<String>,
    /// Of the bytes that were fetched, in hexadecimal digits.
    pub(super) hash: Option<String>,
}

/// A row that is done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// Place among the rows of this run, from 0.
    pub(super) ordinal: u64,
    /// Number of the shard that it goes to.
    pub(super) shard: u64,
    pub(super) report: Report,
    /// Bytes for the shard; none where the row failed.
    pub(super) image: Vec<u8>,
}
