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
//! | `ops` | steps of optimizers such as [`fused_adamw`], [`foreach_norms`], [`foreach_copy`] |
//! | `stream` | [`Stream`] and [`Event`], queues of a device and marks in them; peaks of memory |
//! | `transfer` | [`Transfer`], memory of the host while a device copies from it |
//! | `cuda` | [`CudaDevice`], [`CudaGraph`], [`set_host_waits`] |
//! | `settings` | threads, determinism, log, version |
//! | `error` | [`StoreError`], [`CollectiveError`], [`TorchError`] |
//!
//! # Features
//!
//! `cuda` adds NCCL groups, graphs, and links the CUDA part of libtorch. It needs the header wheels that
//! `scripts/setup --cuda` installs, and a GPU only to run.
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
mod ops;
mod settings;
mod store;
mod stream;
mod transfer;

pub use buckets::{BucketEntry, GradientBuckets};
pub use cuda::{CudaDevice, CudaGraph, HAS_CUDA, HostWaits, set_host_waits};
pub use error::{Collective, CollectiveError, FailureKind, StoreError, TorchError};
pub use group::{Backend, GroupOptions, Listen, ProcessGroup, ReduceOp, Sequence, Work};
pub use ops::{
    AdamStep, LionStep, OnDevice, SgdStep, copy_async, foreach_copy, foreach_lamb, foreach_lion, foreach_mul,
    foreach_norms, fused_adamw, fused_sgd,
};
pub use settings::{num_threads, set_deterministic, set_num_threads, set_tf32, silence_log, torch_version};
pub use store::{StoreOptions, TcpStore};
pub use stream::{Event, MemoryPeak, Stream, memory_peak, reset_memory_peak};
pub use transfer::Transfer;
