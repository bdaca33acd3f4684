use super::{BLOCK_BYTES, TarError};

/// Fields of the 512-byte header as POSIX lays them out.
pub(super) mod field {
    use std::ops::Range;

    pub(in crate::tar) const NAME: Range<usize> = 0..100;
    pub(in crate::tar) const MODE: Range<usize> = 100..108;
    pub(in crate::tar) const UID: Range<usize> = 108..116;
    pub(in crate::tar) const GID: Range<usize> = 116..124;
    pub(in crate::tar) const SIZE: Range<usize> = 124..136;
    pub(in crate::tar) const MTIME: Range<usize> = 136..148;
    pub(in crate::tar) const CHECKSUM: Range<usize> = 148..156;
    pub(in crate::tar) const TYPE: usize = 156;
    pub(in crate::tar) const MAGIC: Range<usize> = 257..265;
    pub(in crate::tar) const PREFIX: Range<usize> = 345..500;
}

/// Magic and version of POSIX tar. GNU's own differs in the last two bytes and has no prefix field.
pub(super) const USTAR_MAGIC: &[u8; 8] = b"ustar\x0000";

/// One header block, checked.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK_BYTES],
    offset: u64,
}

impl<'a> Header<'a> {
    /// Takes the block at `offset`; `None` is the end mark.
    pub(super) fn parse(block: &'a [u8; BLOCK_BYTES], offset: u64) -> Result<Option<Self>, TarError> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let said = number(&block[field::CHECKSUM]).ok_or(TarError::NotAHeader { offset })?;
        let counted = checksum(block);
        // Some old programs summed signed bytes; readers everywhere take both.
        if said != counted && i64::try_from(said) != Ok(signed_checksum(block)) {
            return Err(TarError::Checksum { offset, said, counted });
        }
        Ok(Some(Self { block, offset }))
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[field::TYPE]
    }

    /// The size field. A member whose size stands in a PAX record may have anything here.
    pub(super) fn size(&self) -> Result<u64, TarError> {
        number(&self.block[field::SIZE]).ok_or(TarError::Size { offset: self.offset })
    }

    /// The name with its prefix. Bytes that are not UTF-8 are replaced: names only have to tell samples apart.
    pub(super) fn name(&self) -> String {
        let name = String::from_utf8_lossy(until_nul(&self.block[field::NAME]));
        let is_posix = &self.block[field::MAGIC] == USTAR_MAGIC;
        let prefix = if is_posix { until_nul(&self.block[field::PREFIX]) } else { &[] };
        if prefix.is_empty() {
            return name.into_owned();
        }
        format!("{}/{name}", String::from_utf8_lossy(prefix))
    }
}

/// The sum of all bytes, with spaces in place of the checksum itself.
pub(super) fn checksum(block: &[u8; BLOCK_BYTES]) -> u64 {
    let field: u64 = block[field::CHECKSUM].iter().map(|&byte| u64::from(byte)).sum();
    let all: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    all - field + u64::from(b' ') * field::CHECKSUM.len() as u64
}

fn signed_checksum(block: &[u8; BLOCK_BYTES]) -> i64 {
    let signed = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>();
    signed(block) - signed(&block[field::CHECKSUM]) + i64::from(b' ') * field::CHECKSUM.len() as i64
}

/// Bytes up to the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal text, or GNU's base 256 when the first bit is set. `None` for anything else, for negative
/// numbers and for those beyond 64 bits.
fn number(bytes: &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first == 0x80 {
        return rest
            .iter()
            .try_fold(0_u64, |sum, &byte| sum.checked_mul(256).map(|sum| sum | u64::from(byte)));
    }
    let text = until_nul(bytes).trim_ascii();
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, &byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8).map(|sum| sum | u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Some((2 << 32) + 1));
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for bytes in [
            &b"\0\0\0"[..],
            b"   ",
            b"12x4\0",
            b"99\0",
            &[0xff; 12],
            &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(number(bytes), None, "{bytes:?}");
        }
    }
}
