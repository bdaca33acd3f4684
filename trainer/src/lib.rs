//! Trains CLIP models with the FastCLIP objectives.
//!
//! Batches come from `fastclip-loader`, process groups and fused optimizers from `fastclip-torch-ext`; what lies between
//! is here. The library never looks at environment variables or the command line: that is the binary's part.
//!
//! | module | answers |
//! |---|---|
//! | [`model`] | what is trained: CLIP as OpenCLIP defines it |
//! | [`objective`] | what is minimised: the FastCLIP objectives and OpenCLIP's |
//! | [`estimator`] | what training remembers of each sample |
//! | [`distributed`] | how ranks talk to each other |

pub mod distributed;
pub mod estimator;
pub mod model;
pub mod objective;
