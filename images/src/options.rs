use super::DecodeError;

/// Most pixels in a direction. JPEG knows no more than 65,535; what is longer is made to be resized at great cost.
const MAX_SIDE: u32 = 1 << 18;

/// Which images are accepted, and how they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most pixels of an image; 64 million unless set. Larger ones are refused by their header, before memory is taken.
    pub max_pixels: u64,
    /// Most bytes of a file; 256 MiB unless set.
    pub max_bytes: usize,
    /// Takes a JPEG that ends too early or has damaged data for what could be decoded, the rest grey. Off unless set: such
    /// images are refused, as by Pillow. Other formats are always refused.
    pub keep_truncated: bool,
    /// Turns images the way up that EXIF says. Off unless set: OpenCLIP trains on pixels as they are stored, and
    /// `ingest` turns images when it packs them.
    pub turn_upright: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: 64_000_000, max_bytes: 256 << 20, keep_truncated: false, turn_upright: false }
    }
}

impl DecodeOptions {
    pub(super) fn check_size(&self, width: u64, height: u64) -> Result<(u32, u32), DecodeError> {
        let max_pixels = self.max_pixels;
        let num_pixels = width.saturating_mul(height);
        match (u32::try_from(width), u32::try_from(height)) {
            (Ok(0), _) | (_, Ok(0)) => Err(DecodeError::Damaged { detail: "it has no pixels".to_owned() }),
            (Ok(width), Ok(height)) if num_pixels <= max_pixels && width.max(height) > MAX_SIDE => {
                Err(DecodeError::TooLong { width, height, max_side: MAX_SIDE })
            }
            (Ok(width), Ok(height)) if num_pixels <= max_pixels => Ok((width, height)),
            _ => Err(DecodeError::Oversized { width, height, max_pixels }),
        }
    }

    pub(super) fn check_bytes(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (num_bytes, max_bytes) = (bytes.len(), self.max_bytes);
        match num_bytes {
            0 => Err(DecodeError::Empty),
            _ if num_bytes > max_bytes => Err(DecodeError::TooManyBytes { num_bytes, max_bytes }),
            _ => Ok(()),
        }
    }
}
