use super::{CHANNELS, PictureFailure, PictureOptions, PictureReason, ResizeMode};

/// Fractions of its size at which a JPEG is decoded in less time.
const SHRINKS: [u32; 3] = [8, 4, 2];

/// White.
const BORDER: u8 = 255;

/// What becomes of an image's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Width and height of the whole image after scaling.
    pub(super) scaled: (u32, u32),
    /// A square that the scaled image is laid on, or cut to, in the middle.
    pub(super) canvas: Option<u32>,
}

impl Geometry {
    pub(super) fn new(options: &PictureOptions, (width, height): (u32, u32)) -> Result<Self, PictureFailure> {
        let (side, short, long) = (options.image_size, width.min(height), width.max(height));
        let (reference, canvas) = match options.resize_mode {
            ResizeMode::No => (None, None),
            ResizeMode::Border => (Some(long), Some(side)),
            ResizeMode::KeepRatioLargest => (Some(long), None),
            ResizeMode::KeepRatio => (Some(short), None),
            ResizeMode::CenterCrop => (Some(short), Some(side)),
        };
        let unscaled = Self { scaled: (width, height), canvas: None };
        let Some(reference) = reference else { return Ok(unscaled) };
        if options.resize_only_if_bigger && reference <= side {
            return Ok(unscaled);
        }
        let scale = |length: u32| {
            let scaled = (f64::from(length) * f64::from(side) / f64::from(reference)).round();
            (scaled as u32).max(1)
        };
        let scaled = (scale(width), scale(height));
        if u64::from(scaled.0) * u64::from(scaled.1) > options.max_image_pixels {
            let message = format!("{width}×{height} would become {}×{} pixels", scaled.0, scaled.1);
            return Err(PictureFailure::new(PictureReason::TooLarge, message));
        }
        Ok(Self { scaled, canvas })
    }

    /// The largest fraction of an image that is not smaller than what is wanted.
    pub(super) fn shrink(&self, (width, height): (u32, u32)) -> u32 {
        let suffices = |shrink: &u32| {
            width.div_ceil(*shrink) >= self.scaled.0 && height.div_ceil(*shrink) >= self.scaled.1
        };
        SHRINKS.into_iter().find(suffices).unwrap_or(1)
    }

    /// Width and height of the result.
    pub(super) fn size(&self) -> (u32, u32) {
        self.canvas.map_or(self.scaled, |side| (side, side))
    }

    /// Lays the scaled image in the middle of the canvas, and cuts off what stands out.
    pub(super) fn place(&self, scaled: &[u8], canvas: &mut Vec<u8>) {
        let (width, height) = (self.scaled.0 as usize, self.scaled.1 as usize);
        let (canvas_width, canvas_height) = (self.size().0 as usize, self.size().1 as usize);
        canvas.clear();
        canvas.resize(canvas_width * canvas_height * CHANNELS, BORDER);
        let (from_left, to_left) =
            (width.saturating_sub(canvas_width) / 2, canvas_width.saturating_sub(width) / 2);
        let (from_top, to_top) =
            (height.saturating_sub(canvas_height) / 2, canvas_height.saturating_sub(height) / 2);
        let length = width.min(canvas_width) * CHANNELS;
        for row in 0..height.min(canvas_height) {
            let from = ((from_top + row) * width + from_left) * CHANNELS;
            let to = ((to_top + row) * canvas_width + to_left) * CHANNELS;
            canvas[to..to + length].copy_from_slice(&scaled[from..from + length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(mode: ResizeMode, only_if_bigger: bool, size: (u32, u32)) -> (u32, u32) {
        let options = PictureOptions {
            resize_mode: mode,
            resize_only_if_bigger: only_if_bigger,
            ..PictureOptions::default()
        };
        Geometry::new(&options, size).unwrap().size()
    }

    #[test]
    fn sizes_are_img2datasets_in_every_mode() {
        use ResizeMode::{Border, CenterCrop, KeepRatio, KeepRatioLargest, No};
        let (wide, small, mixed) = ((320, 160), (100, 50), (512, 200));
        for (mode, only_if_bigger, size, expected) in [
            (Border, false, wide, (256, 256)),
            (Border, false, small, (256, 256)),
            (Border, true, small, (100, 50)),
            (Border, true, mixed, (256, 256)),
            (KeepRatio, false, wide, (512, 256)),
            (KeepRatio, false, small, (512, 256)),
            (KeepRatio, true, small, (100, 50)),
            (KeepRatio, true, mixed, (512, 200)),
            (KeepRatioLargest, false, wide, (256, 128)),
            (KeepRatioLargest, false, small, (256, 128)),
            (KeepRatioLargest, true, small, (100, 50)),
            (KeepRatioLargest, true, mixed, (256, 100)),
            (CenterCrop, false, wide, (256, 256)),
            (CenterCrop, false, small, (256, 256)),
            (CenterCrop, true, small, (100, 50)),
            (CenterCrop, true, (512, 400), (256, 256)),
            (No, false, wide, (320, 160)),
            (No, true, small, (100, 50)),
        ] {
            assert_eq!(size_of(mode, only_if_bigger, size), expected, "{mode:?} {only_if_bigger} {size:?}");
        }
    }

    #[test]
    fn nothing_is_blown_up_beyond_the_limit() {
        let options = PictureOptions {
            resize_mode: ResizeMode::KeepRatio,
            max_image_pixels: 4_000_000,
            ..PictureOptions::default()
        };
        let failure = Geometry::new(&options, (1000, 12)).unwrap_err();
        assert_eq!(failure.reason, PictureReason::TooLarge);
        assert_eq!(failure.message, "1000×12 would become 21333×256 pixels");
    }

    #[test]
    fn a_canvas_holds_the_middle() {
        let scaled: Vec<u8> = (0..4).flat_map(|pixel| [pixel; 3]).collect();
        let crop = Geometry { scaled: (4, 1), canvas: Some(2) };
        let mut canvas = Vec::new();
        crop.place(&scaled, &mut canvas);
        let row = |pixels: [u8; 2]| pixels.into_iter().flat_map(|pixel| [pixel; 3]).collect::<Vec<_>>();
        assert_eq!(canvas, [row([1, 2]), row([255, 255])].concat());
    }
}
