//! Runs from end to end: the binary on real data, alone and with ranks, killed and continued.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod check;
mod help;
mod invariance;
mod precision;
mod resume;
mod setting;
mod traffic;
mod whole_runs;
