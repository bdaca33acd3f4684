//! Bytes at rest: tar shards, their index and manifest, on any object store.
