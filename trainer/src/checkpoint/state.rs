//! Where a run stands.

use std::collections::BTreeMap;

use fastclip_schemas::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CheckpointError;

/// Where a run stands, and what it is.
///
/// There is no state of random numbers: whatever is drawn is a function of the seed, the epoch or step, and the sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Program that wrote it.
    pub written_by: String,
    /// The next global batch.
    pub position: Position,
    /// Steps taken.
    pub steps: u64,
    /// Samples of all ranks used.
    pub samples_seen: u64,
    /// Seconds spent in training steps, over all sessions.
    pub seconds: f64,
    /// Ranks that wrote the checkpoint.
    pub num_ranks: usize,
    /// Rows of the objective's table, if it has one.
    pub num_sample_ids: Option<u64>,
    /// What decides the result, by name: a run that differs in any of it is another run.
    pub identity: BTreeMap<String, Value>,
}

impl RunState {
    /// Describes a run before its first step.
    pub fn start(written_by: String, identity: BTreeMap<String, Value>) -> Self {
        Self {
            written_by,
            position: Position::default(),
            steps: 0,
            samples_seen: 0,
            seconds: 0.0,
            num_ranks: 0,
            num_sample_ids: None,
            identity,
        }
    }

    /// Checks that a checkpoint belongs to the run that this state describes.
    ///
    /// # Errors
    /// Names the first difference, with both values.
    pub fn check_same_run(&self, saved: &Self, location: &str) -> Result<(), CheckpointError> {
        let keys = self.identity.keys().chain(saved.identity.keys());
        let text =
            |state: &Self, key: &str| state.identity.get(key).map_or("nothing".to_owned(), Value::to_string);
        match keys.into_iter().find(|key| self.identity.get(*key) != saved.identity.get(*key)) {
            None => Ok(()),
            Some(key) => Err(CheckpointError::OtherRun {
                location: location.to_owned(),
                key: key.clone(),
                saved: text(saved, key),
                now: text(self, key),
            }),
        }
    }
}
