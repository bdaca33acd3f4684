use super::weights::{TAPS, Weights};
#[cfg(target_arch = "x86_64")]
use super::{CHANNELS, READ_BYTES, avx2, vnni, weights::GROUP};
use super::{STRIP_ROWS, portable};

/// How the sums are computed; never what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Plain integer arithmetic, for any processor.
    Portable,
    /// Multiply-adds of 16 bits for two pixels each, and of 8 bits for four.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Three dot products of 8 bits for four pixels each.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    /// The fastest one that this processor has.
    pub(crate) fn best() -> Self {
        Self::available().next().expect("the portable kernel is always there")
    }

    /// All that this processor has, the fastest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let has_vnni = is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            let has_avx2 = is_x86_feature_detected!("avx2");
            [has_vnni.then_some(Self::Vnni), has_avx2.then_some(Self::Avx2)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let special = [None; 0];
        special.into_iter().flatten().chain([Self::Portable])
    }

    /// Words that hold the weights of a block.
    pub(super) fn words_per_block(self) -> usize {
        match self {
            Self::Portable => portable::WORDS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::WORDS,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => vnni::WORDS,
        }
    }

    /// Appends the weights of a block.
    pub(super) fn pack(self, block: [i32; TAPS], words: &mut Vec<i32>) {
        match self {
            Self::Portable => words.extend(block),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => words.extend(avx2::pack(block)),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => words.extend(vnni::pack(block)),
        }
    }

    /// The first pass over four rows, to a strip of `width` columns.
    #[cfg_attr(
        target_arch = "x86_64",
        expect(unsafe_code, reason = "instructions that not all processors have")
    )]
    pub(super) fn across(self, rows: [&[u8]; STRIP_ROWS], columns: &Weights, strip: &mut [u8], width: usize) {
        match self {
            Self::Portable => portable::across(rows, columns, strip, width),
            // SAFETY: `available` offers this kernel only where the processor has its instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::across(rows, columns, strip, width) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { vnni::across(rows, columns, strip, width) },
        }
    }

    /// The second pass for one row of one channel, whose blocks begin with `strips` and follow each `pitch` bytes.
    #[cfg_attr(
        target_arch = "x86_64",
        expect(unsafe_code, reason = "instructions that not all processors have")
    )]
    pub(super) fn down(self, strips: &[u8], pitch: usize, words: &[i32], output: &mut [u8]) {
        match self {
            Self::Portable => portable::down(strips, pitch, words, output),
            // SAFETY: `available` offers this kernel only where the processor has its instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::down(strips, pitch, words, output) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { vnni::down(strips, pitch, words, output) },
        }
    }
}

/// For passes that are compiled for some numbers of blocks: as many as there are.
#[cfg(target_arch = "x86_64")]
pub(super) const ANY: usize = 0;

/// Checks what the first pass relies on where it loads and stores vectors.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn check_across(rows: [&[u8]; STRIP_ROWS], columns: &Weights, strip: &[u8], width: usize) {
    let reach = columns.reach() * CHANNELS + READ_BYTES;
    assert!(rows.iter().all(|row| row.len() >= reach), "rows can be read up to {reach}");
    assert!(columns.len() <= width && width.is_multiple_of(GROUP));
    assert!(strip.len() >= CHANNELS * width * STRIP_ROWS);
}
