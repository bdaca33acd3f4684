//! What every reader of foreign bytes must stand.
//!
//! A [`Target`] feeds bytes to a reader and panics when that does not keep its promises, beyond not panicking by itself.
//! The same functions run in three ways: under libFuzzer (`fuzz_targets/`, through `cargo fuzz`), over seeded damage for
//! as long as one likes (`seeded`, on any Rust), and briefly in `tests/tests/fuzz.rs`.

mod damage;
mod seeds;
mod target;

pub use damage::Damage;
pub use target::Target;
