/// Red, green and blue, each from 0 to 1.
pub(super) type Rgb = [f32; 3];

/// The mix of two colours: `share` of the second.
pub(super) fn mix(one: Rgb, other: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|c| one[c] + (other[c] - one[c]) * share)
}

/// The colour with every channel scaled.
pub(super) fn scale(colour: Rgb, factor: f32) -> Rgb {
    colour.map(|c| c * factor)
}

/// What colour an object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Turquoise,
    Blue,
    Purple,
    Pink,
    White,
    Black,
}

impl Colour {
    pub(super) const ALL: [Colour; 10] = [
        Colour::Red,
        Colour::Orange,
        Colour::Yellow,
        Colour::Green,
        Colour::Turquoise,
        Colour::Blue,
        Colour::Purple,
        Colour::Pink,
        Colour::White,
        Colour::Black,
    ];

    /// The word for it in class names and tables.
    pub(super) fn name(self) -> &'static str {
        self.words()[0]
    }

    /// All words that captions use for it, the plain one first. No word stands for two colours.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Colour::Red => &["red", "crimson", "scarlet"],
            Colour::Orange => &["orange", "tangerine"],
            Colour::Yellow => &["yellow", "lemon yellow", "golden"],
            Colour::Green => &["green", "emerald"],
            Colour::Turquoise => &["turquoise", "teal", "cyan"],
            Colour::Blue => &["blue", "cobalt", "royal blue"],
            Colour::Purple => &["purple", "violet"],
            Colour::Pink => &["pink", "rose"],
            Colour::White => &["white", "ivory"],
            Colour::Black => &["black", "jet black"],
        }
    }

    /// Its typical shade, as a screen shows it.
    pub(super) fn shade(self) -> Rgb {
        match self {
            Colour::Red => [0.84, 0.09, 0.11],
            Colour::Orange => [0.97, 0.49, 0.05],
            Colour::Yellow => [0.98, 0.86, 0.12],
            Colour::Green => [0.10, 0.58, 0.20],
            Colour::Turquoise => [0.08, 0.76, 0.74],
            Colour::Blue => [0.10, 0.24, 0.84],
            Colour::Purple => [0.50, 0.15, 0.68],
            Colour::Pink => [0.98, 0.56, 0.74],
            Colour::White => [0.95, 0.95, 0.93],
            Colour::Black => [0.07, 0.07, 0.08],
        }
    }

    /// Whether a pattern on it must be darker to be seen, or lighter.
    pub(super) fn is_light(self) -> bool {
        matches!(self, Colour::Orange | Colour::Yellow | Colour::Turquoise | Colour::Pink | Colour::White)
    }
}
