//! What the examples share: the arguments that describe a loader.
//!
//! The examples themselves are files beside this crate's manifest, in order of difficulty:
//!
//! | example | shows |
//! |---|---|
//! | `loader_basic` | reading a dataset batch by batch, and how fast that is |
//! | `loader_mixing` | several datasets in one stream, each as often as one likes |
//! | `loader_resume` | stopping anywhere and going on with the very next batch |
//! | `loader_custom_decode` | another modality than images, by a decoder of one's own |
//!
//! Four more are tools:
//!
//! | tool | does |
//! |---|---|
//! | `loader_throughput` | measures a loader, for people and programs |
//! | `loader_dump` | writes what a loader delivers as files that NumPy reads |
//! | `loader_limit` | measures what no loader can exceed: decoding and resizing alone |
//! | `ingest_limit` | measures what no `ingest download` can exceed: decoding, resizing and encoding alone |

mod arguments;
mod npy;
mod process;

pub use arguments::{LayoutArgument, LoaderArguments, QualityArgument, open};
pub use npy::NpyFile;
pub use process::{cpu_seconds, peak_rss_bytes, rss_bytes};
