//! Whether a JPEG has its end.

use std::ops::ControlFlow;

/// Whether a file is a JPEG from its first marker to its last one.
///
/// No byte of a scan can be taken for the marker at the end, and segments before the first scan, in which a preview may
/// have an end of its own, are stepped over. So a file that was cut has none, wherever the cut is. What lies between is not looked at.
pub fn is_complete_jpeg(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else { return false };
    loop {
        match segment(rest) {
            ControlFlow::Continue(next) => rest = next,
            ControlFlow::Break(scan) => {
                // The end is looked for from behind: it is nearly always there.
                return scan.is_some_and(|scan| scan.windows(2).rev().any(|pair| pair == [0xff, 0xd9]));
            }
        }
    }
}

/// Steps over a segment, and stops at the first scan or where no segment is.
fn segment(bytes: &[u8]) -> ControlFlow<Option<&[u8]>, &[u8]> {
    const START_OF_SCAN: u8 = 0xda;
    const FILLER: u8 = 0xff;
    match bytes {
        [0xff, FILLER, ..] => ControlFlow::Continue(&bytes[1..]),
        [0xff, marker, high, low, ..] => {
            // Its length counts itself, not the marker.
            let length = 2 + usize::from(u16::from_be_bytes([*high, *low]));
            match bytes.get(length..) {
                Some(rest) if *marker == START_OF_SCAN => ControlFlow::Break(Some(rest)),
                Some(rest) => ControlFlow::Continue(rest),
                None => ControlFlow::Break(None),
            }
        }
        // Bytes that belong to nothing are passed over, as libjpeg does.
        [byte, rest @ ..] if *byte != 0xff => ControlFlow::Continue(rest),
        _ => ControlFlow::Break(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg() -> Vec<u8> {
        let pixels: Vec<u8> = (0..40 * 30 * 3).map(|place| (place * 7 % 251) as u8).collect();
        let format = turbojpeg::PixelFormat::RGB;
        let image = turbojpeg::Image { pixels: pixels.as_slice(), width: 40, pitch: 120, height: 30, format };
        turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
    }

    /// A JPEG whose first segment holds a whole other one.
    fn jpeg_with_preview() -> Vec<u8> {
        let (outer, inner) = (jpeg(), jpeg());
        let length = u16::try_from(inner.len() + 2).unwrap().to_be_bytes();
        [&outer[..2], &[0xff, 0xe1], &length, &inner, &outer[2..]].concat()
    }

    #[test]
    fn a_jpeg_is_complete_with_its_end_alone() {
        let with_strays = [&jpeg()[..2], &[1, 2, 3], &jpeg()[2..]].concat();
        for whole in [jpeg(), jpeg_with_preview(), with_strays] {
            assert!(is_complete_jpeg(&whole));
            assert!(is_complete_jpeg(&[whole.as_slice(), b"trailing"].concat()));
            for length in 0..whole.len() {
                assert!(!is_complete_jpeg(&whole[..length]), "cut at {length} of {}", whole.len());
            }
        }
    }

    #[test]
    fn other_bytes_are_no_complete_jpeg() {
        for bytes in
            [b"<html>".as_slice(), &[0xff, 0xd8, 0xff, 0xd9], &[0xff, 0xd8, 0xff, 0xe0, 0, 0, 0xff, 0xd9]]
        {
            assert!(!is_complete_jpeg(bytes), "{bytes:02x?}");
        }
    }
}
