//! Trains CLIP models with the FastCLIP objectives.
//!
//! Batches come from `fastclip-loader`, process groups and fused optimizers from `fastclip-torch-ext`; what lies between
//! is here. The library never looks at environment variables or the command line: that is the binary's part.
//!
//! | module | answers |
//! |---|---|
//! | [`config`] | what a run is told to do |
//! | [`run`] | how a run goes from its first step to its last |
//! | [`model`] | what is trained: CLIP as OpenCLIP defines it |
//! | [`objective`] | what is minimised: the FastCLIP objectives and OpenCLIP's |
//! | [`estimator`] | what training remembers of each sample |
//! | [`schedule`], [`optimizer`] | how fast parameters move, and how |
//! | [`gradients`] | how gradients become the same on all ranks |
//! | [`step`], [`pending`], [`graphs`] | how these make one step, and when what it found is read |
//! | [`checkpoint`] | what survives a restart |
//! | [`eval`] | how good the model is |
//! | [`mod@embed`] | what the model makes of a dataset, for others to use |
//! | [`metrics`], [`progress`], [`report`] | what people see of a run: while it runs, and afterwards |
//! | [`distributed`] | how ranks talk to each other |
//! | [`check`] | what a run will take, before it starts |
//! | [`mod@bench`] | how fast steps are |
//! | [`launch`] | how several ranks are started from one command |

pub mod bench;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod distributed;
pub mod embed;
pub mod estimator;
pub mod eval;
mod files;
pub mod gradients;
pub mod graphs;
pub mod launch;
pub mod metrics;
pub mod model;
pub mod objective;
pub mod optimizer;
pub mod pending;
pub mod progress;
pub mod report;
pub mod run;
pub mod schedule;
mod statistics;
pub mod step;
