//! Huffman codes, and tables to decode them with.
//!
//! A code of JPEG is a symbol, which says how many zeros come before the next coefficient and how many bits it has, and then
//! these bits. To decode it bit by bit costs most of the time that an image takes, and as every code has to be read before
//! it is known where the next one begins, a processor can do little else meanwhile. So [`AcCodes`] decodes two symbols with
//! the bits that follow them by one look at [`LOOKUP_BITS`] bits, where they are that short, which most are.

use super::NotOurs;
use super::bits::Bits;

/// Bits that codes are looked up by. More of them find more pairs; fewer leave more of the processor's fastest memory
/// to everything else, and tables are made in less time.
const LOOKUP_BITS: u32 = 11;
const NUM_LOOKUPS: usize = 1 << LOOKUP_BITS;
/// Longest code.
const MAX_BITS: usize = 16;

/// How a file describes a Huffman code: how many codes there are of each length, and what they stand for, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodeLengths<'a> {
    counts: &'a [u8; MAX_BITS],
    symbols: &'a [u8],
}

impl<'a> CodeLengths<'a> {
    /// Takes a description from the beginning of bytes, of which it may also be the last.
    pub(super) fn split_from(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (counts, rest) = bytes.split_first_chunk()?;
        let num_symbols = counts.iter().map(|&count| usize::from(count)).sum();
        if num_symbols > 256 {
            return None;
        }
        let (symbols, rest) = rest.split_at_checked(num_symbols)?;
        Some((Self { counts, symbols }, rest))
    }
}

/// Decodes single symbols.
#[derive(Debug)]
pub(super) struct Codes {
    /// What this was made from, if it was.
    counts: Option<[u8; MAX_BITS]>,
    symbols: Vec<u8>,
    /// By the next bits: length of the code and, above eight bits, its symbol; 0 where it is longer.
    lookups: Box<[u16; NUM_LOOKUPS]>,
    /// For each length the first code that is too great for it, filled up to 16 bits.
    limits: [u32; MAX_BITS + 1],
    /// For each length where the symbol of a code of zeros would be, counted from the first.
    offsets: [i32; MAX_BITS + 1],
}

impl Codes {
    pub(super) fn new() -> Self {
        Self {
            counts: None,
            symbols: Vec::new(),
            lookups: Box::new([0; NUM_LOOKUPS]),
            limits: [0; MAX_BITS + 1],
            offsets: [0; MAX_BITS + 1],
        }
    }

    fn is_for(&self, lengths: CodeLengths<'_>) -> bool {
        self.counts.as_ref() == Some(lengths.counts) && self.symbols == lengths.symbols
    }

    /// Makes the tables, unless they are there from another image, as they are for most.
    fn prepare(&mut self, lengths: CodeLengths<'_>) -> Result<(), NotOurs> {
        // Nothing counts until all of it has been made.
        self.counts = None;
        self.symbols.clear();
        self.lookups.fill(0);
        let mut symbols = lengths.symbols.iter();
        let (mut code, mut num_before) = (0_u32, 0_i32);
        for (length, &count) in (1_u32..).zip(lengths.counts) {
            self.offsets[length as usize] = num_before - code as i32;
            for &symbol in symbols.by_ref().take(usize::from(count)) {
                if let Some(free) = LOOKUP_BITS.checked_sub(length) {
                    let first = (code << free) as usize;
                    let places = self.lookups.get_mut(first..first + (1 << free)).ok_or(NotOurs)?;
                    places.fill(u16::from(symbol) << 8 | length as u16);
                }
                code += 1;
            }
            // No code is all ones.
            if code >= 1 << length {
                return Err(NotOurs);
            }
            num_before += i32::from(count);
            self.limits[length as usize] = code << (MAX_BITS as u32 - length);
            code <<= 1;
        }
        self.counts = Some(*lengths.counts);
        self.symbols.extend_from_slice(lengths.symbols);
        Ok(())
    }

    /// Takes a symbol, of at most 16 bits.
    #[inline(always)]
    fn take(&self, bits: &mut Bits<'_>) -> Result<u8, NotOurs> {
        let found = self.lookups[bits.peek(LOOKUP_BITS)];
        let found = if found == 0 { self.find_long(bits.peek(MAX_BITS as u32) as u32)? } else { found };
        bits.skip(u32::from(found & 0xff));
        Ok((found >> 8) as u8)
    }

    /// What there is no room for in the table, in the same form.
    // By value, so that the reader of bits stays in registers.
    #[cold]
    fn find_long(&self, next: u32) -> Result<u16, NotOurs> {
        let length = (LOOKUP_BITS as usize + 1..=MAX_BITS)
            .find(|&length| next < self.limits[length])
            .ok_or(NotOurs)?;
        let code = (next >> (MAX_BITS - length)) as i32;
        let symbol = usize::try_from(code + self.offsets[length]).ok().and_then(|at| self.symbols.get(at));
        symbol.map(|&symbol| u16::from(symbol) << 8 | length as u16).ok_or(NotOurs)
    }
}

/// Decodes what differs in the mean of a block from that of the one before.
#[derive(Debug)]
pub(super) struct DcCodes(Codes);

impl DcCodes {
    pub(super) fn new() -> Self {
        Self(Codes::new())
    }

    pub(super) fn prepare(&mut self, lengths: CodeLengths<'_>) -> Result<(), NotOurs> {
        if self.0.is_for(lengths) {
            return Ok(());
        }
        // Sizes in bits.
        if lengths.symbols.iter().any(|&size| size > 15) {
            return Err(NotOurs);
        }
        self.0.prepare(lengths)
    }

    /// Takes a difference, of at most 31 bits.
    #[inline(always)]
    pub(super) fn take(&self, bits: &mut Bits<'_>) -> Result<i32, NotOurs> {
        let size = self.0.take(bits)?;
        Ok(bits.take_value(u32::from(size)))
    }
}

/// One coefficient, or the end of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// How far it lies behind the one before.
    pub(super) ahead: usize,
    /// Its value; 0 for the end of a block, and for sixteen zeros in a row.
    pub(super) value: i16,
}

/// Added to where the last coefficient lies when the block has ended: greater than any place that a code could name.
pub(super) const END_OF_BLOCK: usize = 80;

/// Decodes all other coefficients.
#[derive(Debug)]
pub(super) struct AcCodes {
    codes: Codes,
    pairs: Box<[Pair; NUM_LOOKUPS]>,
}

/// Two symbols with their bits; or one, with a zero for the second in its very place; or the sign that there is none as short
/// as that. The second value has to be stored before the first.
///
/// From the lowest bit on: the length of both in 6 bits, how far the first coefficient lies ahead in 6 and the second in 7, the first
/// value in 8 and the second in 5. The length comes first because shifts look at no more than six bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair(u32);

impl Pair {
    /// Leads beyond the end of the block at once.
    const NONE: Self = Self(63 << 6);

    fn new(length: u32, first: Step, second_ahead: usize, second_value: i16) -> Self {
        let value = u32::from(first.value as u8) << 19 | (second_value as u32) << 27;
        Self(length | (first.ahead as u32) << 6 | (second_ahead as u32) << 12 | value)
    }

    /// The length of both, in the lowest six bits.
    #[inline(always)]
    pub(super) fn length(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(super) fn first_ahead(self) -> usize {
        (self.0 >> 6 & 63) as usize
    }

    #[inline(always)]
    pub(super) fn first_value(self) -> i16 {
        (self.0 >> 19) as i8 as i16
    }

    #[inline(always)]
    pub(super) fn second_ahead(self) -> usize {
        (self.0 >> 12 & 127) as usize
    }

    #[inline(always)]
    pub(super) fn second_value(self) -> i16 {
        (self.0 as i32 >> 27) as i16
    }
}

impl AcCodes {
    pub(super) fn new() -> Self {
        Self { codes: Codes::new(), pairs: Box::new([Pair::NONE; NUM_LOOKUPS]) }
    }

    pub(super) fn prepare(&mut self, lengths: CodeLengths<'_>) -> Result<(), NotOurs> {
        if self.codes.is_for(lengths) {
            return Ok(());
        }
        self.codes.prepare(lengths)?;
        let steps: [Option<ShortStep>; NUM_LOOKUPS] = std::array::from_fn(|next| self.short_step(next));
        for (next, pair) in self.pairs.iter_mut().enumerate() {
            *pair = steps[next].map_or(Pair::NONE, |first| first.with_second(next, &steps));
        }
        Ok(())
    }

    /// What the next bits say, if they hold a symbol and its value.
    fn short_step(&self, next: usize) -> Option<ShortStep> {
        let found = self.codes.lookups[next];
        let (length, symbol) = (u32::from(found & 0xff), (found >> 8) as u8);
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        let whole = length + size;
        if length == 0 || whole > LOOKUP_BITS {
            return None;
        }
        let value = (next as u32) >> (LOOKUP_BITS - whole) & ((1 << size) - 1);
        let is_negative = size > 0 && value >> (size - 1) == 0;
        let value = value as i16 - if is_negative { (1 << size) - 1 } else { 0 };
        Some(ShortStep { length: whole, step: Step { ahead: ahead_of(run, size), value } })
    }

    #[inline(always)]
    pub(super) fn peek(&self, bits: &Bits<'_>) -> Pair {
        self.pairs[bits.peek(LOOKUP_BITS)]
    }

    /// Takes a single step, of at most 31 bits.
    #[inline(always)]
    pub(super) fn take(&self, bits: &mut Bits<'_>) -> Result<Step, NotOurs> {
        let symbol = self.codes.take(bits)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        // At most 15 bits.
        let value = bits.take_value(size) as i16;
        Ok(Step { ahead: ahead_of(run, size), value })
    }
}

/// A symbol and its value that a look at the next bits finds, and how many of these they are.
#[derive(Debug, Clone, Copy)]
struct ShortStep {
    length: u32,
    step: Step,
}

impl ShortStep {
    /// Adds what comes behind it in the bits that it was found in, by what is known of all bits.
    fn with_second(self, next: usize, steps: &[Option<Self>; NUM_LOOKUPS]) -> Pair {
        let Self { length, step: first } = self;
        if i8::try_from(first.value).is_err() {
            return Pair::NONE;
        }
        // The end of a block has a value, too, of 0, for where there is none yet.
        if first.ahead == END_OF_BLOCK {
            return Pair::new(length, Step { ahead: 1, value: 0 }, END_OF_BLOCK, 0);
        }
        match steps[next << length & (NUM_LOOKUPS - 1)] {
            Some(second)
                if length + second.length <= LOOKUP_BITS && (-16..16).contains(&second.step.value) =>
            {
                let ahead = first.ahead + second.step.ahead;
                Pair::new(length + second.length, first, ahead, second.step.value)
            }
            _ => Pair::new(length, first, first.ahead, 0),
        }
    }
}

fn ahead_of(run: usize, size: u32) -> usize {
    // Sixteen zeros are the only symbol without bits that does not end a block.
    if size == 0 && run != 15 { END_OF_BLOCK } else { run + 1 }
}
