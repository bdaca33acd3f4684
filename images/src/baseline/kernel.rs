use super::NotOurs;
#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::batch::Batch;
#[cfg(target_arch = "x86_64")]
use super::plane::SIDE;
use super::rows::{self, Colours};
#[cfg(target_arch = "x86_64")]
use super::transform::HALF;
use super::transform::{self, Pair};
use super::units::{self, UnitRow};

/// How pixels are computed; never what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Plain integer arithmetic, for any processor.
    Portable,
    /// Vectors of 32 bytes, and shifts by any register.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    /// All that this processor has, the fastest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
            [has_avx2.then_some(Self::Avx2)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let special = [None; 0];
        special.into_iter().flatten().chain([Self::Portable])
    }
}

#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "instructions that not all processors have"))]
impl Kernel {
    /// Decodes a row of units.
    pub(super) fn decode_units(self, row: UnitRow<'_, '_>, batch: &mut Batch<'_>) -> Result<(), NotOurs> {
        match self {
            Self::Portable => units::decode(row, batch),
            // SAFETY: `available` offers this kernel only where the processor has its instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { units::decode_with_bmi2(row, batch) },
        }
    }

    /// Transforms two blocks to squares of samples of this side: 8, 4 or 2.
    pub(super) fn transform(self, pair: &Pair<'_>, side: usize, samples: &mut [u8]) {
        match (self, side) {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, SIDE) => unsafe { avx2::transform(pair, samples) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, HALF) => unsafe { avx2::transform_to_half(pair, samples) },
            _ => transform::transform(pair, side, samples),
        }
    }

    /// Sums three times the samples of the nearer row and those of the farther one.
    pub(super) fn nearer_and_farther(self, nearer: &[u8], farther: &[u8], sums: &mut [u16]) {
        match self {
            Self::Portable => rows::nearer_and_farther(nearer, farther, sums),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::nearer_and_farther(nearer, farther, sums) },
        }
    }

    /// Takes a row alone.
    pub(super) fn widen(self, row: &[u8], sums: &mut [u16]) {
        match self {
            Self::Portable => rows::widen(row, sums),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::widen(row, sums) },
        }
    }

    /// Writes red, green and blue of each pixel.
    pub(super) fn rgb(self, luma: &[u8], colours: Colours<'_>, pixels: &mut [u8]) {
        match self {
            Self::Portable => rows::rgb(luma, colours, pixels),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::rgb(luma, colours, pixels) },
        }
    }
}
