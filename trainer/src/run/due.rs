//! What has to be done after a step: a function of the step alone, so that all ranks and all sessions agree.

use std::num::NonZeroU64;

use fastclip_schemas::Position;

use crate::checkpoint::RunState;
use crate::config::{CheckpointConfig, EvaluationConfig, RunConfig};

#[derive(Debug)]
pub(super) struct Due<'a> {
    log_every: NonZeroU64,
    checkpoints: &'a CheckpointConfig,
    evaluation: Option<&'a EvaluationConfig>,
    stop_after: Option<NonZeroU64>,
    end: Position,
    total_steps: u64,
}

impl<'a> Due<'a> {
    pub(super) fn new(config: &'a RunConfig, steps_per_epoch: u64, end: Position) -> Self {
        Self {
            log_every: config.settings.log_every_n_steps,
            checkpoints: &config.checkpoints,
            evaluation: config.evaluation.as_ref(),
            stop_after: config.stop_after.map(|span| span.steps(steps_per_epoch)),
            end,
            total_steps: end.epoch * steps_per_epoch,
        }
    }

    /// The first step, every N-th, and the last.
    pub(super) fn log(&self, state: &RunState) -> bool {
        state.steps == 1
            || state.steps.is_multiple_of(self.log_every.get())
            || state.steps == self.total_steps
    }

    /// Steps whose report must be read before anything else is done: those that are logged, and those after which something is
    /// made of the model, or nothing more is done.
    pub(super) fn report(&self, state: &RunState) -> bool {
        self.log(state) || self.checkpoint(state) || self.evaluation(state) || self.stop(state)
    }

    /// Ends of every N-th epoch, and of the last; and every N-th step.
    pub(super) fn evaluation(&self, state: &RunState) -> bool {
        self.evaluation
            .is_some_and(|evaluation| self.is_due(state, evaluation.every_epochs, evaluation.every_steps))
    }

    /// Ends of every N-th epoch, and of the last; and every N-th step.
    pub(super) fn checkpoint(&self, state: &RunState) -> bool {
        self.is_due(state, self.checkpoints.every_epochs, self.checkpoints.every_steps)
    }

    fn is_due(&self, state: &RunState, every_epochs: u64, every_steps: u64) -> bool {
        self.ends_epoch(state, every_epochs) || (every_steps > 0 && state.steps.is_multiple_of(every_steps))
    }

    /// Multiples of so many steps, and not of a session's: a session that began in between, or again after a failure, ends
    /// where any other would.
    pub(super) fn stop(&self, state: &RunState) -> bool {
        self.stop_after.is_some_and(|steps| state.steps.is_multiple_of(steps.get()))
    }

    fn ends_epoch(&self, state: &RunState, every_epochs: u64) -> bool {
        let Position { epoch, step } = state.position;
        let is_chosen = every_epochs > 0 && epoch.is_multiple_of(every_epochs);
        step == 0 && (is_chosen || state.position == self.end)
    }
}
