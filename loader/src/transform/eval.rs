/// What evaluation does with an image: OpenCLIP's transform, without anything random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalTransform {
    /// Side of the square.
    pub size: u32,
    /// What becomes of images that are not square.
    pub resize: ResizeMode,
    /// Colour around an image that does not fill the square.
    pub fill: [u8; 3],
}

/// How an image that is not square becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ResizeMode {
    /// The shorter side is fitted, and the square cut from the centre.
    #[default]
    Shortest,
    /// The longer side is fitted, and the rest filled with a colour.
    Longest,
    /// Both sides are fitted, whatever becomes of circles.
    Squash,
}

impl EvalTransform {
    /// OpenCLIP's default: the shortest side, filled with black where that could ever matter.
    pub const fn new(size: u32) -> Self {
        Self { size, resize: ResizeMode::Shortest, fill: [0; 3] }
    }
}
