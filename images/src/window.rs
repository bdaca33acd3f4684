/// Pixels of a part of an image, red, green and blue of each side by side.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Rows one after another, each `3 * width` bytes.
    pub bytes: &'a [u8],
    /// Where in the image the part begins.
    pub left: u32,
    /// Where in the image the part begins.
    pub top: u32,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}
