use super::NotOurs;

/// Bits that are there after [`Bits::refill`], at least.
pub(super) const REFILLED: u32 = 56;

/// Reads a code from its first bit on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in the buffer, or not as a whole.
    at: usize,
    /// What comes next, from the highest bit on.
    buffer: u64,
    /// Bits in the buffer that count, in its lowest six bits; above them is what lengths had there. Bits of the buffer behind them
    /// are right, too, where they are not zero.
    num_bits: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, buffer: 0, num_bits: 0 }
    }

    /// Makes sure of [`REFILLED`] bits.
    ///
    /// Without a branch: full bytes that are read twice fall on themselves.
    #[inline(always)]
    pub(super) fn refill(&mut self) -> Result<(), NotOurs> {
        let next = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(NotOurs)?;
        let num_bits = self.num_bits & 63;
        self.buffer |= u64::from_be_bytes(*next) >> num_bits;
        self.at += ((63 - num_bits) >> 3) as usize;
        self.num_bits = num_bits | REFILLED;
        Ok(())
    }

    /// The next bits, `number` of them from 1 to 64.
    #[inline(always)]
    pub(super) fn peek(&self, number: u32) -> usize {
        (self.buffer >> (64 - number)) as usize
    }

    /// Goes on by as many bits, of those that were made sure of, as the lowest six bits of a number say.
    // Processors look at no more than these when they shift, so that the rest need not be cut off.
    #[inline(always)]
    pub(super) fn skip(&mut self, number: u32) {
        self.buffer <<= number & 63;
        self.num_bits = self.num_bits.wrapping_sub(number);
    }

    /// Takes a number of `size` bits, from 0 to 15, as JPEG writes it: with a zero first where it is negative.
    #[inline(always)]
    pub(super) fn take_value(&mut self, size: u32) -> i32 {
        let value = ((self.buffer >> 1) >> (63 - (size & 63))) as i32;
        let is_negative = (!self.buffer >> 63) as i32;
        self.skip(size);
        value - is_negative * ((1 << (size & 31)) - 1)
    }

    /// The first bit that has not been taken.
    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        // No more bits are in the buffer than were read.
        self.at * 8 - (self.num_bits & 63) as usize
    }
}
