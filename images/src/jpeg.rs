use image::metadata::Orientation;
use turbojpeg::PixelFormat;

use super::baseline::{self, BaselineDecoder};
use super::complete::is_complete_jpeg;
use super::turbo::{self, Turbo};
use super::{DecodeError, DecodeOptions, Part, RgbImage};

/// The decoder for usual JPEGs and, for all others, a decompressor with room for the formats that it cannot turn into RGB.
#[derive(Debug)]
pub(super) struct JpegDecoder {
    baseline: BaselineDecoder,
    turbo: Turbo,
    cmyk: Vec<u8>,
}

/// A JPEG whose header has been read.
#[derive(Debug)]
pub(super) struct OpenedJpeg<'a> {
    bytes: &'a [u8],
    header: Header<'a>,
}

/// Who has read a header, and what it says.
#[derive(Debug)]
enum Header<'a> {
    Usual(baseline::Header<'a>),
    Other(turbo::Header<'a>),
}

impl OpenedJpeg<'_> {
    pub(super) fn size(&self) -> (u32, u32) {
        match &self.header {
            Header::Usual(header) => (header.width, header.height),
            Header::Other(header) => (header.width, header.height),
        }
    }

    /// Whether a part of it can be had, at a fraction of the size even.
    pub(super) fn has_parts(&self) -> bool {
        match &self.header {
            Header::Usual(_) => true,
            Header::Other(header) => header.has_parts(),
        }
    }
}

impl JpegDecoder {
    pub(super) fn new() -> turbojpeg::Result<Self> {
        Ok(Self { baseline: BaselineDecoder::new(), turbo: Turbo::new()?, cmyk: Vec::new() })
    }

    pub(super) fn open<'a>(
        &mut self,
        bytes: &'a [u8],
        options: &DecodeOptions,
    ) -> Result<OpenedJpeg<'a>, DecodeError> {
        let header = match baseline::Header::read(bytes) {
            Some(header) => Header::Usual(header),
            None => Header::Other(self.read_header(bytes)?),
        };
        let opened = OpenedJpeg { bytes, header };
        let (width, height) = opened.size();
        options.check_size(u64::from(width), u64::from(height))?;
        Ok(opened)
    }

    pub(super) fn read_header<'a>(&mut self, bytes: &'a [u8]) -> Result<turbo::Header<'a>, DecodeError> {
        // A new one for each image: it keeps tables, and takes them for those that the next image lacks. It also stays in the
        // middle of a header that it could not read.
        self.turbo = Turbo::new().map_err(|error| refusal(error.to_string()))?;
        self.turbo.read_header(bytes).map_err(refusal)
    }

    /// Decodes a part, or as much around it as must be. Returns which.
    pub(super) fn decode(
        &mut self,
        opened: &OpenedJpeg<'_>,
        wanted: &Part,
        options: &DecodeOptions,
        image: &mut RgbImage,
    ) -> Result<Part, DecodeError> {
        let header = match &opened.header {
            Header::Usual(header) => {
                if let Some(part) = self.baseline.decode(header, wanted, image) {
                    return Ok(part);
                }
                self.read_header(opened.bytes)?
            }
            Header::Other(header) => *header,
        };
        self.decode_other(&header, wanted, options, image)
    }

    /// The same by TurboJPEG.
    pub(super) fn decode_other(
        &mut self,
        header: &turbo::Header<'_>,
        wanted: &Part,
        options: &DecodeOptions,
        image: &mut RgbImage,
    ) -> Result<Part, DecodeError> {
        let part = if header.has_parts() {
            header.part_around(wanted)
        } else {
            Part::whole((header.width, header.height))
        };
        let pixels = image.resize(part.columns.len() as u32, part.rows.len() as u32);
        let (format, buffer) = if header.is_cmyk {
            self.cmyk.resize(pixels.len() / 3 * 4, 0);
            (PixelFormat::CMYK, &mut self.cmyk[..])
        } else {
            (PixelFormat::RGB, &mut *pixels)
        };
        if options.keep_truncated {
            // What is missing shall not show what was here before.
            buffer.fill(MISSING);
        }
        match self.turbo.decode(header, &part, format, buffer) {
            Ok(()) => {}
            // Only the first warning is told in words: it may hide that the end is missing.
            Err(message) if turbo::is_harmless(&message) => {
                if !options.keep_truncated && !is_complete_jpeg(header.bytes) {
                    return Err(DecodeError::Truncated { detail: format!("{message}, and it has no end") });
                }
            }
            Err(message) if options.keep_truncated && is_about_missing_data(&message) => {}
            Err(message) => return Err(refusal(message)),
        }
        if header.is_cmyk {
            for (rgb, cmyk) in pixels.chunks_exact_mut(3).zip(self.cmyk.chunks_exact(4)) {
                rgb.copy_from_slice(&rgb_of_inverted_cmyk([cmyk[0], cmyk[1], cmyk[2], cmyk[3]]));
            }
        }
        Ok(part)
    }
}

/// What libjpeg makes of blocks without data.
const MISSING: u8 = 128;

/// Whether the rest of the image is there nevertheless: warnings, after which libjpeg goes on with grey.
fn is_about_missing_data(message: &str) -> bool {
    message.starts_with("Premature end of JPEG file") || message.starts_with("Corrupt JPEG data")
}

fn refusal(detail: String) -> DecodeError {
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

/// Which way up a JPEG was taken, as the EXIF record says that cameras write at its beginning.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    const APP1: u8 = 0xe1;
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    // Segments: a marker, its length in two bytes that count themselves, and as many bytes.
    while let [0xff, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(segment) = rest.get(4..2 + length) else { break };
        if marker == START_OF_SCAN {
            break;
        }
        if let (APP1, Some(exif)) = (marker, segment.strip_prefix(b"Exif\0\0")) {
            return Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms);
        }
        rest = &rest[2 + length..];
    }
    Orientation::NoTransforms
}
