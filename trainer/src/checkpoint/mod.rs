//! What survives a restart.
//!
//! A checkpoint is a folder, `step_00000500`, on a local disk or in an object store:
//!
//! | file | holds | written by |
//! |---|---|---|
//! | `open_clip_model.safetensors`, `open_clip_config.json` | the model, as OpenCLIP loads it | rank 0 |
//! | `optimizer.safetensors` | what the optimizer remembers: running means, step counts | rank 0 |
//! | `trainer.json` | [`RunState`]: steps, position in the data, program, everything that decides the result | rank 0 |
//! | `config.toml` | the resolved settings | rank 0 |
//! | `estimators-rank0-of-2.safetensors` | a shard of the objective's table | its rank |
//! | `checkpoint.json` | names, sizes and digests of all these; written last | rank 0 |
//!
//! Ranks must see one file system, or one bucket. Shards may be read by a world of another size.
//!
//! | part | answers |
//! |---|---|
//! | `saver`, `writer`, `snapshot` | how it is written while training goes on |
//! | `folder` | which there are, which is the newest, which are kept |
//! | `saved` | how one is read |
//! | `contents`, `state`, `tensors` | what is in the files |

mod contents;
mod error;
mod folder;
mod saved;
mod saver;
mod snapshot;
mod state;
mod tensors;
mod writer;

pub use error::{CheckpointError, TensorsError};
pub use folder::{Checkpoints, Keep};
pub use saved::Saved;
pub use saver::Saver;
pub use state::RunState;
