//! Tar, as far as shards need it.
//!
//! A shard is read by ranges, so the reader must know where each member lies and must survive any bytes. That is what
//! existing readers do not offer: they copy data out and report damage without its place. Reading accepts what tar
//! programs write (ustar, PAX, GNU long names, base-256 sizes); writing produces plain ustar with all variable fields
//! fixed, so that equal samples give equal bytes.

mod decode;
mod error;
mod header;
mod name;
mod pax;
mod salvage;
mod scan;
mod stream;
mod write;

pub use decode::Entry;
pub use error::TarError;
pub use name::split_name;
pub use salvage::{Salvaged, Salvager};
pub use scan::Scanner;
pub use stream::StreamScanner;
pub use write::{TarWriteError, append_end, append_member, closed_bytes, member_bytes};

/// Everything in a tar starts on a multiple of this.
pub const BLOCK_BYTES: usize = 512;

/// Length of member data with the padding that follows it. `None` when that is more than 64 bits hold.
fn padded(num_bytes: u64) -> Option<u64> {
    num_bytes.checked_next_multiple_of(BLOCK_BYTES as u64)
}
