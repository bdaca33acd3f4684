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
//! | `fused` | [`FusedLayers`], layers of transformers that backward reads memory less often for |
//! | `memory` | [`peak_memory`], what tensors take; [`memory_peak`] on a GPU |
//! | `profile` | [`profile()`], a trace of operations |
//! | `ops` | steps of optimizers such as [`fused_adamw`], [`foreach_norm`], [`foreach_copy`] |
//! | `stream` | [`Stream`] and [`Event`], queues of a device and marks in them; [`copy_async`] |
//! | `transfer` | [`Transfer`], [`upload`] and [`Download`], copies that nobody waits for |
//! | `reads` | [`value_reads`], where work reads values of tensors |
//! | `cuda` | [`CudaDevice`], [`CudaGraph`], [`set_host_waits`]: what only GPUs have |
//! | `settings` | threads, determinism, log, version |
//! | `error` | [`StoreError`], [`CollectiveError`], [`TorchError`] |
//!
//! # Features
//!
//! `cuda` adds NCCL groups, recorded work and descriptions of GPUs. It needs the header wheels that `scripts/setup --cuda`
//! installs, or folders of them in `FASTCLIP_CUDA_INCLUDE`, and a GPU only to run.
//!
//! # Building
//!
//! Needs libtorch (see `scripts/setup`). The build script passes the folder of its libraries on to dependents as
//! `DEP_FASTCLIP_TORCH_EXT_LIB_DIR`, for their binaries to find it at run time.

mod buckets;
mod cuda;
mod error;
mod ffi;
mod fused;
mod group;
mod memory;
mod ops;
mod profile;
mod reads;
mod recompute;
mod settings;
mod store;
mod stream;
mod transfer;

pub use buckets::{BucketEntry, GradientBuckets};
pub use cuda::{CudaDevice, CudaGraph, HAS_CUDA, HostWaits, set_host_waits};
pub use error::{Collective, CollectiveError, FailureKind, StoreError, TorchError};
pub use fused::{FusedLayers, WeightAndBias};
pub use group::{Backend, GroupOptions, Listen, ProcessGroup, ReduceOp, Sequence, Work};
pub use memory::{MemoryPeak, memory_peak, peak_memory};
pub use ops::{
    AdamStep, LionStep, OnDevice, SgdStep, foreach_copy, foreach_lamb, foreach_largest, foreach_lion,
    foreach_mul, foreach_norm, fused_adamw, fused_sgd,
};
pub use profile::profile;
pub use reads::value_reads;
pub use recompute::recompute;
pub use settings::{
    num_threads, set_cudnn_attention, set_deterministic, set_num_threads, set_tf32, silence_log,
    torch_version,
};
pub use store::{StoreOptions, TcpStore};
pub use stream::{Event, Stream, copy_async};
pub use transfer::{Download, Transfer, upload};
