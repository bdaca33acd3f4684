//! TurboJPEG's functions, without what its Rust interface leaves out: regions of an image.

#![expect(unsafe_code, reason = "calls into libjpeg-turbo")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use turbojpeg::{PixelFormat, raw};

use super::Part;

/// Scans of a progressive JPEG. Encoders write about ten; thousands over a large image would take hours of decoding.
const MAX_SCANS: c_int = 500;

/// Pixels in a row of the smallest unit that TurboJPEG can begin a part with, by the number that it gives a chroma
/// subsampling: 4:4:4, 4:2:2, 4:2:0, grey, 4:4:0, 4:1:1, 4:4:1.
const UNIT_WIDTHS: [u32; 7] = [8, 16, 16, 8, 8, 32, 8];

/// Columns beside a part that count for its pixels, because colour is interpolated between them.
const MARGIN: u32 = 2;

/// Tells the warnings that other readers let pass from those about missing or false data.
///
/// TurboJPEG reports a warning as a failure although it has read or decoded everything, and tells only the first one in
/// words. The texts are libjpeg's, which have not changed in decades; any other counts as damage. Of a failure, the text is that of the
/// failure, whatever was warned of before.
pub(super) fn is_harmless(message: &str) -> bool {
    ["extraneous bytes before marker", "unknown JFIF revision", "Unknown Adobe color transform"]
        .iter()
        .any(|known| message.contains(known))
}

/// A decompressor for one image.
#[derive(Debug)]
pub(super) struct Turbo {
    handle: NonNull<c_void>,
}

// SAFETY: an instance of TurboJPEG belongs to nobody in particular; only two threads must not use it at once, and its
// functions are called through `&mut self`.
unsafe impl Send for Turbo {}

/// What the header of a JPEG says, with the bytes that said it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) width: u32,
    pub(super) height: u32,
    /// Four inks instead of three colours.
    pub(super) is_cmyk: bool,
    /// Neither scaled nor in parts can such be decoded.
    pub(super) is_lossless: bool,
    /// Pixels of the smallest unit of a row, where that is known.
    unit_width: Option<u32>,
}

impl Header<'_> {
    /// Whether a part of it can be had, at a fraction of the size even.
    pub(super) fn has_parts(&self) -> bool {
        !self.is_lossless && !self.is_cmyk
    }

    /// Width and height at a fraction of the size.
    pub(super) fn shrunk(&self, shrink: u32) -> (u32, u32) {
        (self.width.div_ceil(shrink), self.height.div_ceil(shrink))
    }

    /// The least part that can be decoded and has the very pixels of the whole image where `wanted` is.
    pub(super) fn part_around(&self, wanted: &Part) -> Part {
        let shrink = wanted.shrink;
        let (width, height) = self.shrunk(shrink);
        match self.unit_width {
            Some(unit) if !self.is_lossless => {
                let unit = unit.div_ceil(shrink);
                let left = wanted.columns.start.saturating_sub(MARGIN) / unit * unit;
                let right = (wanted.columns.end + MARGIN).min(width);
                Part { shrink, columns: left..right, rows: wanted.rows.clone() }
            }
            _ => Part { shrink, columns: 0..width, rows: 0..height },
        }
    }
}

impl Turbo {
    pub(super) fn new() -> turbojpeg::Result<Self> {
        // SAFETY: takes a number only.
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as c_int) };
        let mut turbo = Self { handle: NonNull::new(handle).ok_or(turbojpeg::Error::Null)? };
        let refuse = turbojpeg::Error::TurboJpegError;
        turbo.set(raw::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS).map_err(refuse)?;
        // Nobody asks for the colour profile, which is copied otherwise.
        turbo.set(raw::TJPARAM_TJPARAM_SAVEMARKERS, 0).map_err(refuse)?;
        Ok(turbo)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What TurboJPEG says.
    pub(super) fn read_header<'a>(&mut self, bytes: &'a [u8]) -> Result<Header<'a>, String> {
        // SAFETY: the handle is valid until `drop`, and the bytes are read while this runs.
        let code =
            unsafe { raw::tj3DecompressHeader(self.handle.as_ptr(), bytes.as_ptr(), bytes.len() as _) };
        match self.check(code) {
            Err(message) if !is_harmless(&message) => return Err(message),
            _ => {}
        }
        let size = |parameter, what| match u32::try_from(self.get(parameter)) {
            Ok(size @ 1..) => Ok(size),
            _ => Err(format!("the header does not tell the {what}")),
        };
        let colours = self.get(raw::TJPARAM_TJPARAM_COLORSPACE) as raw::TJCS;
        let subsampling = usize::try_from(self.get(raw::TJPARAM_TJPARAM_SUBSAMP)).ok();
        Ok(Header {
            bytes,
            width: size(raw::TJPARAM_TJPARAM_JPEGWIDTH, "width")?,
            height: size(raw::TJPARAM_TJPARAM_JPEGHEIGHT, "height")?,
            is_cmyk: matches!(colours, raw::TJCS_TJCS_CMYK | raw::TJCS_TJCS_YCCK),
            is_lossless: self.get(raw::TJPARAM_TJPARAM_LOSSLESS) != 0,
            unit_width: subsampling.and_then(|number| UNIT_WIDTHS.get(number)).copied(),
        })
    }

    /// Decodes a part that [`Header::part_around`] gave, or all of the image.
    ///
    /// # Errors
    /// What TurboJPEG says of the image, or of the part, where the header gave another one.
    ///
    /// # Panics
    /// When `pixels` is not of the part's size.
    pub(super) fn decode(
        &mut self,
        header: &Header<'_>,
        part: &Part,
        format: PixelFormat,
        pixels: &mut [u8],
    ) -> Result<(), String> {
        let Part { shrink, columns, rows } = part;
        let (width, height) = header.shrunk(*shrink);
        let pitch = columns.len() * format.size();
        assert!(columns.end <= width && rows.end <= height, "{part:?} lies in {width} by {height} pixels");
        assert_eq!(pixels.len(), pitch * rows.len(), "room for {part:?}");
        let handle = self.handle.as_ptr();
        let factor = raw::tjscalingfactor { num: 1, denom: *shrink as c_int };
        // SAFETY: takes numbers only.
        let code = unsafe { raw::tj3SetScalingFactor(handle, factor) };
        self.check(code)?;
        let is_whole = columns.len() == width as usize && rows.len() == height as usize;
        let region = if is_whole {
            raw::tjregion { x: 0, y: 0, w: 0, h: 0 }
        } else {
            raw::tjregion {
                x: columns.start as c_int,
                y: rows.start as c_int,
                w: columns.len() as c_int,
                h: rows.len() as c_int,
            }
        };
        // SAFETY: takes numbers only.
        let code = unsafe { raw::tj3SetCroppingRegion(handle, region) };
        self.check(code)?;
        let bytes = header.bytes;
        // SAFETY: the header is read again from the same bytes, so the image has the size it had; of that the part has
        // `rows.len()` rows, each of which takes `pitch` bytes, and `pixels` has room for them.
        let code = unsafe {
            raw::tj3Decompress8(
                handle,
                bytes.as_ptr(),
                bytes.len() as _,
                pixels.as_mut_ptr(),
                pitch as c_int,
                format as c_int,
            )
        };
        self.check(code)
    }

    fn set(&mut self, parameter: raw::TJPARAM, value: c_int) -> Result<(), String> {
        // SAFETY: the handle is valid until `drop`; the rest are numbers.
        let code = unsafe { raw::tj3Set(self.handle.as_ptr(), parameter as c_int, value) };
        self.check(code)
    }

    fn get(&self, parameter: raw::TJPARAM) -> c_int {
        // SAFETY: the handle is valid until `drop`, and nothing is changed.
        unsafe { raw::tj3Get(self.handle.as_ptr(), parameter as c_int) }
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the handle is valid until `drop`, and the text is copied before the next call could change it.
        let text = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.handle.as_ptr())) };
        Err(text.to_string_lossy().into_owned())
    }
}

impl Drop for Turbo {
    fn drop(&mut self) {
        // SAFETY: the handle came from `tj3Init` and is not used after this.
        unsafe { raw::tj3Destroy(self.handle.as_ptr()) }
    }
}
