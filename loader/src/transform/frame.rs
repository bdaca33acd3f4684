use super::Quality;
use super::crop::Crop;
use super::eval::{EvalTransform, ResizeMode};
use crate::resample::{Axis, Taps};
use fastclip_images::Part;

/// Sizes at which JPEGs can be decoded in less time, smallest first. The others that libjpeg knows have no vector code and
/// take longer than decoding in full.
const SHRINKS: [u32; 3] = [8, 4, 2];

/// What is shown of an image, and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    columns: Extent,
    rows: Extent,
    /// Column and row of the result where the image begins; what is left around it is filled.
    pub(super) offset: (u32, u32),
}

/// One direction of a frame, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extent {
    /// Pixels of the image.
    total: u32,
    /// First pixel of the part that is resized.
    start: u32,
    /// Its pixels.
    length: u32,
    /// Pixels that it becomes.
    resized: u32,
    /// First of these that is shown.
    first: u32,
    /// How many of them are shown.
    kept: u32,
}

impl Extent {
    fn whole(total: u32, resized: u32) -> Self {
        Self { total, start: 0, length: total, resized, first: 0, kept: resized }
    }

    /// Shows the middle. Rounds as torchvision does.
    fn centred(self, kept: u32) -> Self {
        let first = (f64::from(self.resized - kept) / 2.0).round_ties_even() as u32;
        Self { first, kept, ..self }
    }

    /// In pixels of an image that was decoded at a fraction of its size.
    fn axis(&self, shrink: u32) -> Axis {
        let Self { total, start, length, resized, first, kept } = *self;
        let low = start / shrink;
        let high = (start + length).div_ceil(shrink).min(total.div_ceil(shrink));
        let shrink = f64::from(shrink);
        Axis {
            low,
            pixels: high - low,
            start: f64::from(start) / shrink - f64::from(low),
            length: f64::from(length) / shrink,
            resized,
            first,
            kept,
        }
    }
}

impl Frame {
    /// A part of an image of this width and height, stretched to a square.
    ///
    /// It is cut out before it is resized: nothing outside shows.
    pub(super) fn cropped((width, height): (u32, u32), crop: Crop, size: u32) -> Self {
        let columns = Extent { start: crop.left, length: crop.width, ..Extent::whole(width, size) };
        let rows = Extent { start: crop.top, length: crop.height, ..Extent::whole(height, size) };
        Self { columns, rows, offset: (0, 0) }
    }

    /// What evaluation shows of an image of this width and height.
    pub(super) fn fitted((width, height): (u32, u32), transform: &EvalTransform) -> Self {
        let size = transform.size;
        match transform.resize {
            ResizeMode::Shortest => {
                // torchvision rounds the longer side down, so that the scales of the sides differ a little.
                let longer = |short: u32, long: u32| {
                    let longer = u64::from(size) * u64::from(long) / u64::from(short);
                    u32::try_from(longer).unwrap_or(u32::MAX)
                };
                let (columns, rows) = if width <= height {
                    (size, longer(width, height))
                } else {
                    (longer(height, width), size)
                };
                let columns = Extent::whole(width, columns).centred(size);
                let rows = Extent::whole(height, rows).centred(size);
                Self { columns, rows, offset: (0, 0) }
            }
            ResizeMode::Longest => {
                let ratio = f64::from(width.max(height)) / f64::from(size);
                let resized = |pixels: u32| {
                    let resized = (f64::from(pixels) / ratio).round_ties_even() as u32;
                    resized.clamp(1, size)
                };
                let (columns, rows) = (resized(width), resized(height));
                Self {
                    columns: Extent::whole(width, columns),
                    rows: Extent::whole(height, rows),
                    offset: ((size - columns) / 2, (size - rows) / 2),
                }
            }
            ResizeMode::Squash => Self {
                columns: Extent::whole(width, size),
                rows: Extent::whole(height, size),
                offset: (0, 0),
            },
        }
    }

    /// Pixels of a row and rows that are filled with the image.
    pub(super) fn shown(&self) -> (u32, u32) {
        (self.columns.kept, self.rows.kept)
    }

    /// The smallest size that the image can be decoded at without a result of more pixels than it is made from.
    pub(super) fn shrink(&self, quality: Quality, is_scalable: bool) -> u32 {
        if quality == Quality::Exact || !is_scalable {
            return 1;
        }
        let has_enough =
            |extent: &Extent, shrink: u32| extent.length >= extent.resized.saturating_mul(shrink);
        SHRINKS
            .into_iter()
            .find(|&shrink| has_enough(&self.columns, shrink) && has_enough(&self.rows, shrink))
            .unwrap_or(1)
    }

    /// Computes the weights for an image that is decoded so many times smaller, and says what of it they touch.
    pub(super) fn taps(&self, shrink: u32, columns: &mut Taps, rows: &mut Taps) -> Part {
        columns.compute(&self.columns.axis(shrink));
        rows.compute(&self.rows.axis(shrink));
        Part { shrink, columns: columns.touched(), rows: rows.touched() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fitted(size: (u32, u32), target: u32, resize: ResizeMode) -> Frame {
        Frame::fitted(size, &EvalTransform { resize, ..EvalTransform::new(target) })
    }

    proptest! {
        #[test]
        fn a_frame_stays_inside_its_image_and_never_enlarges_what_was_shrunk(
            (width, height) in (1_u32..5000, 1_u32..5000),
            target in 1_u32..400,
            resize in prop::sample::select(vec![ResizeMode::Shortest, ResizeMode::Longest, ResizeMode::Squash]),
        ) {
            // A side that becomes far longer than any image is refused by nobody, and takes as long as it takes.
            prop_assume!(width.max(height) / width.min(height) < 50);
            let frame = fitted((width, height), target, resize);
            let shrink = frame.shrink(Quality::Fast, true);
            let (mut columns, mut rows) = (Taps::default(), Taps::default());
            let part = frame.taps(shrink, &mut columns, &mut rows);
            prop_assert!(part.columns.end <= width.div_ceil(shrink) && part.rows.end <= height.div_ceil(shrink));
            let (across, down) = frame.shown();
            prop_assert_eq!((columns.len() as u32, rows.len() as u32), (across, down));
            prop_assert!(frame.offset.0 + across <= target && frame.offset.1 + down <= target);
            if shrink > 1 {
                prop_assert!(frame.columns.resized <= width.div_ceil(shrink));
                prop_assert!(frame.rows.resized <= height.div_ceil(shrink));
            }
        }
    }

    #[test]
    fn the_central_square_is_that_of_torchvision() {
        // 640 x 480 becomes 298 x 224; the crop starts at round(37.0) = 37.
        let frame = fitted((640, 480), 224, ResizeMode::Shortest);
        let columns = Extent { first: 37, kept: 224, ..Extent::whole(640, 298) };
        assert_eq!(frame, Frame { columns, rows: Extent::whole(480, 224), offset: (0, 0) });
    }

    #[test]
    fn the_longest_side_is_fitted_with_room_above_and_below() {
        let frame = fitted((640, 480), 224, ResizeMode::Longest);
        let (columns, rows) = (Extent::whole(640, 224), Extent::whole(480, 168));
        assert_eq!(frame, Frame { columns, rows, offset: (0, 28) });
    }

    #[test]
    fn only_fast_shrinks_and_only_as_far_as_pixels_suffice() {
        let shrink = |size, quality| fitted(size, 224, ResizeMode::Shortest).shrink(quality, true);
        assert_eq!(shrink((4000, 3000), Quality::Exact), 1);
        assert_eq!(shrink((447, 447), Quality::Fast), 1);
        assert_eq!(shrink((448, 448), Quality::Fast), 2);
        assert_eq!(shrink((1024, 768), Quality::Fast), 2);
        assert_eq!(shrink((1200, 900), Quality::Fast), 4);
        assert_eq!(shrink((4000, 3000), Quality::Fast), 8);
        assert_eq!(fitted((4000, 3000), 224, ResizeMode::Shortest).shrink(Quality::Fast, false), 1);
    }
}
