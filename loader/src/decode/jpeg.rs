use std::fmt;

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::{DecodeError, RgbImage, check_size};

/// Scans of a progressive JPEG. Encoders write about ten; thousands over a large image would take hours of decoding.
const MAX_SCANS: u32 = 500;

/// A TurboJPEG decompressor with room for the formats that it cannot turn into RGB.
pub(crate) struct JpegDecoder {
    decompressor: Decompressor,
    cmyk: Vec<u8>,
}

impl fmt::Debug for JpegDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JpegDecoder").finish_non_exhaustive()
    }
}

impl JpegDecoder {
    pub(crate) fn new() -> turbojpeg::Result<Self> {
        Ok(Self { decompressor: new_decompressor()?, cmyk: Vec::new() })
    }

    pub(super) fn decode(&mut self, bytes: &[u8], image: &mut RgbImage) -> Result<(), DecodeError> {
        let header = match self.decompressor.read_header(bytes) {
            Ok(header) => header,
            Err(error) => {
                // TurboJPEG stays in the middle of a header that it could not read, and would take the next image for
                // the rest of it.
                self.decompressor = new_decompressor().map_err(refusal)?;
                return Err(refusal(error));
            }
        };
        let (width, height) = check_size(header.width as u64, header.height as u64)?;
        let pixels = image.resize(width, height);
        match header.colorspace {
            Colorspace::CMYK | Colorspace::YCCK => {
                self.cmyk.resize(header.width * header.height * 4, 0);
                decompress(
                    &mut self.decompressor,
                    bytes,
                    &mut self.cmyk,
                    PixelFormat::CMYK,
                    (width, height),
                )?;
                for (rgb, cmyk) in pixels.chunks_exact_mut(3).zip(self.cmyk.chunks_exact(4)) {
                    rgb.copy_from_slice(&rgb_of_inverted_cmyk([cmyk[0], cmyk[1], cmyk[2], cmyk[3]]));
                }
                Ok(())
            }
            _ => decompress(&mut self.decompressor, bytes, pixels, PixelFormat::RGB, (width, height)),
        }
    }
}

fn new_decompressor() -> turbojpeg::Result<Decompressor> {
    let mut decompressor = Decompressor::new()?;
    decompressor.set_scan_limit(MAX_SCANS)?;
    Ok(decompressor)
}

fn decompress(
    decompressor: &mut Decompressor,
    bytes: &[u8],
    pixels: &mut [u8],
    format: PixelFormat,
    (width, height): (u32, u32),
) -> Result<(), DecodeError> {
    let (width, height) = (width as usize, height as usize);
    let output = Image { pixels, width, pitch: width * format.size(), height, format };
    match decompressor.decompress(bytes, output) {
        Err(turbojpeg::Error::TurboJpegError(message)) if is_harmless(&message) => Ok(()),
        result => result.map_err(refusal),
    }
}

/// Tells the warning about surplus bytes from those about missing ones.
///
/// TurboJPEG reports a warning as a failure although it has decoded the whole image, and tells only the first one in
/// words. The text is libjpeg's, which has not changed in decades; any other counts as damage. It cannot come from the
/// header, where it would mean that nothing was decoded: `read_header` has just found no fault with it.
fn is_harmless(message: &str) -> bool {
    message.contains("extraneous bytes before marker")
}

fn refusal(error: turbojpeg::Error) -> DecodeError {
    let detail = match error {
        turbojpeg::Error::TurboJpegError(message) => message,
        other => other.to_string(),
    };
    if detail.contains("Premature end") || detail.contains("premature end") {
        DecodeError::Truncated { detail }
    } else {
        DecodeError::Damaged { detail }
    }
}

/// Pillow's conversion, in its integer arithmetic. `inverted` holds 255 for no ink, as Adobe's programs store it.
fn rgb_of_inverted_cmyk(inverted: [u8; 4]) -> [u8; 3] {
    let [c, m, y, white] = inverted;
    [c, m, y].map(|inverted| {
        let product = u32::from(255 - inverted) * u32::from(white) + 128;
        let ink = ((product >> 8) + product) >> 8;
        // At most `white`, as it is a fraction of it.
        white - ink as u8
    })
}
