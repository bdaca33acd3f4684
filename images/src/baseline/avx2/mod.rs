//! What is done with vectors of 32 bytes: the results of the plain definitions beside it.

#![expect(unsafe_code, reason = "loads and stores of vectors")]

mod rows;
mod transform;

pub(super) use rows::{nearer_and_farther, rgb, widen};
pub(super) use transform::{transform, transform_to_half};
