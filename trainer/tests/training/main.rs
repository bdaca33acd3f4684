//! Runs from end to end: the binary on real data, alone and with ranks, killed and continued.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod check;
mod checkpoints;
mod endings;
mod help;
mod host_waits;
mod invariance;
mod locks;
mod machines;
mod not_finite;
mod observe;
mod precision;
mod recompute;
mod resume;
mod setting;
mod storage_faults;
mod supervision;
mod traffic;
mod whole_runs;
