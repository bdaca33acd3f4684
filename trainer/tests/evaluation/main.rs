//! Evaluation and report on real datasets, with real ranks.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod pairs;
mod ranks;
mod report;
