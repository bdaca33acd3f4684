//! Placeholder until the generator is here: it fixes the names that the command line uses.

use std::fmt;

use crate::Progress;

/// Options of [`synth`].
#[derive(Debug, Clone)]
pub struct SynthOptions {}

/// Command-line arguments of `ingest synth`.
#[derive(Debug, Clone, clap::Args)]
pub struct SynthArgs {}

impl SynthArgs {
    /// Options that these arguments stand for.
    pub fn into_options(self) -> SynthOptions {
        SynthOptions {}
    }
}

/// What [`synth`] made.
#[derive(Debug, Clone)]
pub struct SynthReport {}

impl fmt::Display for SynthReport {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Why [`synth`] stopped.
#[derive(Debug, thiserror::Error)]
#[error("not here yet")]
pub struct SynthError;

/// Makes a toy dataset.
///
/// # Errors
/// Always, for now.
pub fn synth(_: &SynthOptions, _: &Progress) -> Result<SynthReport, SynthError> {
    Err(SynthError)
}
