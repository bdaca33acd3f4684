//! What tch lacks of libtorch: process groups and operations on lists of tensors.
//!
//! This is the only crate with C++ in it. `cpp/fastclip.h` is the interface between the two languages: plain C, every
//! function catches everything and returns a status. The Rust side never shows a pointer; every call that can fail
//! returns a typed error. The alternative, generated bindings to c10d's classes, loses because exceptions would cross the
//! border and because those classes change with every release.
//!
//! | module | holds |
//! |---|---|
//! | `store` | [`TcpStore`], where ranks find each other |
//! | `group` | [`ProcessGroup`], collectives over Gloo or NCCL |
//! | `buckets` | [`GradientBuckets`], gradients that are summed over ranks while backward still runs |
//! | `recompute` | [`recompute()`], parts of a network that backward computes again instead of keeping them |
//! | `memory` | [`peak_memory`], what tensors take; [`memory_peak`] on a GPU |
//! | `ops` | steps of optimizers such as [`fused_adamw`], [`foreach_norm`], [`foreach_copy`] |
//! | `cuda` | [`CudaDevice`], what GPUs there are |
//! | `settings` | threads, determinism, log, version |
//! | `error` | [`StoreError`], [`CollectiveError`], [`TorchError`] |
//!
//! # Features
//!
//! `cuda` adds NCCL groups. It needs the header wheels that `scripts/setup --cuda` installs, and a GPU only to run.
//!
//! # Building
//!
//! Needs libtorch (see `scripts/setup`). The build script passes the folder of its libraries on to dependents as
//! `DEP_FASTCLIP_TORCH_EXT_LIB_DIR`, for their binaries to find it at run time.

mod buckets;
mod cuda;
mod error;
mod ffi;
mod group;
mod memory;
mod ops;
mod recompute;
mod settings;
mod store;

pub use buckets::{BucketEntry, GradientBuckets};
pub use cuda::{CudaDevice, HAS_CUDA};
pub use error::{Collective, CollectiveError, FailureKind, StoreError, TorchError};
pub use group::{Backend, GroupOptions, Listen, ProcessGroup, ReduceOp, Sequence, Work};
pub use memory::{MemoryPeak, memory_peak, peak_memory, reset_memory_peak};
pub use ops::{
    AdamStep, LionStep, SgdStep, foreach_copy, foreach_lamb, foreach_lion, foreach_mul, foreach_norm,
    fused_adamw, fused_sgd,
};
pub use recompute::recompute;
pub use settings::{num_threads, set_deterministic, set_num_threads, set_tf32, silence_log, torch_version};
pub use store::{StoreOptions, TcpStore};
