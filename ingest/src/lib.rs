//! From sources to shards: the library behind the binary `ingest`.

mod progress;
pub mod synth;

pub use progress::Progress;
