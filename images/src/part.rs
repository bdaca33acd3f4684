use std::ops::Range;

/// A part of an image, perhaps at a fraction of its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// How many times smaller than the image: 1, 2, 4 or 8.
    pub shrink: u32,
    /// Columns of the smaller image.
    pub columns: Range<u32>,
    /// Its rows.
    pub rows: Range<u32>,
}

impl Part {
    /// All of an image of this width and height.
    pub fn whole((width, height): (u32, u32)) -> Self {
        Self { shrink: 1, columns: 0..width, rows: 0..height }
    }
}
