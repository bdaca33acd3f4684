//! Evaluation and report on real datasets, with real ranks.

mod pairs;
mod ranks;
mod report;
