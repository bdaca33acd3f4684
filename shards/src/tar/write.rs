use super::BLOCK_BYTES;
use super::header::{USTAR_MAGIC, checksum, field};

/// Largest size that 11 octal digits hold.
const MAX_MEMBER_BYTES: u64 = (1 << 33) - 1;

/// A tar's length is a multiple of this. GNU tar and Python pad so, and equal content should give equal files.
const RECORD_BYTES: usize = 20 * BLOCK_BYTES;

/// Why a member cannot be written as plain ustar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarWriteError {
    /// Neither the name field nor name and prefix hold it.
    #[error("the name `{name}` is empty or does not fit into a tar header")]
    Name {
        /// The name.
        name: String,
    },
    /// Above the limit of the format.
    #[error("`{name}` has {num_bytes} bytes, a tar member holds at most {MAX_MEMBER_BYTES}")]
    Size {
        /// Name of the member.
        name: String,
        /// Its size.
        num_bytes: u64,
    },
}

/// Appends a regular file to a tar in memory.
///
/// Owner, mode and time are fixed, so the bytes depend on name and data alone.
///
/// # Errors
/// When the name does not fit. `tar` is then unchanged.
pub fn append_member(tar: &mut Vec<u8>, name: &str, data: &[u8]) -> Result<(), TarWriteError> {
    let num_bytes = data.len() as u64;
    if num_bytes > MAX_MEMBER_BYTES {
        return Err(TarWriteError::Size { name: name.to_owned(), num_bytes });
    }
    tar.extend_from_slice(&header(name, num_bytes)?);
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
    Ok(())
}

/// Bytes that a member with so many bytes of data takes in a tar.
pub fn member_bytes(data_bytes: u64) -> u64 {
    BLOCK_BYTES as u64 + data_bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// Bytes of a tar whose members take so many, when it is closed.
pub fn closed_bytes(num_bytes: u64) -> u64 {
    (num_bytes + 2 * BLOCK_BYTES as u64).next_multiple_of(RECORD_BYTES as u64)
}

/// Appends what closes a tar whose members take `num_bytes` to another piece of memory: two empty blocks and padding.
pub fn append_end(tar: &mut Vec<u8>, num_bytes: u64) {
    let num_zeros = closed_bytes(num_bytes) - num_bytes;
    tar.resize(tar.len() + num_zeros as usize, 0);
}

fn header(name: &str, num_bytes: u64) -> Result<[u8; BLOCK_BYTES], TarWriteError> {
    let (prefix, short) = split_long(name).ok_or_else(|| TarWriteError::Name { name: name.to_owned() })?;
    let mut block = [0; BLOCK_BYTES];
    let mut put = |start: usize, bytes: &[u8]| block[start..start + bytes.len()].copy_from_slice(bytes);
    put(field::NAME.start, short.as_bytes());
    put(field::MODE.start, b"0000644");
    put(field::UID.start, b"0000000");
    put(field::GID.start, b"0000000");
    put(field::SIZE.start, format!("{num_bytes:011o}").as_bytes());
    put(field::MTIME.start, b"00000000000");
    put(field::TYPE, b"0");
    put(field::MAGIC.start, USTAR_MAGIC);
    put(field::PREFIX.start, prefix.as_bytes());
    let sum = checksum(&block);
    block[field::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Prefix and name, cut at a slash so that each fits its field.
fn split_long(name: &str) -> Option<(&str, &str)> {
    if name.is_empty() || name.ends_with('/') || name.contains('\0') {
        return None;
    }
    if name.len() <= field::NAME.len() {
        return Some(("", name));
    }
    name.match_indices('/').map(|(slash, _)| (&name[..slash], &name[slash + 1..])).find(|(prefix, rest)| {
        (1..=field::PREFIX.len()).contains(&prefix.len()) && rest.len() <= field::NAME.len()
    })
}
