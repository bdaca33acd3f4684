use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::{DownloadError, DownloadOptions};
use crate::run_state::RunState;

/// What the parts of a run know of the whole and their settings do not say. Every part writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Facts {
    /// Name of the list, for the manifest.
    pub(super) input: String,
    pub(super) num_rows: u64,
    pub(super) rows_per_shard: u64,
    /// Nothing where one process does it all.
    pub(super) num_parts: Option<NonZeroU32>,
    /// What was typed, less which part.
    pub(super) command: Option<String>,
}

const NAME: &str = "list";

impl Facts {
    pub(super) fn new(options: &DownloadOptions, num_rows: u64) -> Self {
        Self {
            input: options.input.name(),
            num_rows,
            rows_per_shard: options.rows_per_shard.get().into(),
            num_parts: options.part.and_then(|part| NonZeroU32::new(part.num_parts())),
            command: options.command.clone(),
        }
    }

    pub(super) fn layout(&self) -> Layout {
        Layout { num_rows: self.num_rows, rows_per_shard: self.rows_per_shard.max(1) }
    }

    pub(super) async fn write(&self, state: &RunState<'_>) -> Result<(), DownloadError> {
        Ok(state.add_note(NAME, self).await?)
    }

    pub(super) async fn read(state: &RunState<'_>) -> Result<Option<Self>, DownloadError> {
        Ok(state.note(NAME).await?)
    }
}
