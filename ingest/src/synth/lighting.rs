use super::colour::Rgb;

/// How a picture is lit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lighting {
    Normal,
    Bright,
    Dim,
    Warm,
}

impl Lighting {
    /// The word for it in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Lighting::Normal => "normal",
            Lighting::Bright => "bright",
            Lighting::Dim => "dim",
            Lighting::Warm => "warm",
        }
    }

    /// Phrases for it; none for ordinary light, which nobody mentions.
    pub(super) fn words(self) -> Option<&'static [&'static str]> {
        match self {
            Lighting::Normal => None,
            Lighting::Bright => Some(&["in bright light", "in strong sunlight"]),
            Lighting::Dim => Some(&["in dim light", "in the shade"]),
            Lighting::Warm => Some(&["in warm light", "in evening light"]),
        }
    }

    /// What it does to the light of each channel.
    pub(super) fn tint(self) -> Rgb {
        match self {
            Lighting::Normal => [1.0, 1.0, 1.0],
            Lighting::Bright => [1.28, 1.27, 1.24],
            Lighting::Dim => [0.40, 0.42, 0.47],
            Lighting::Warm => [1.14, 0.97, 0.72],
        }
    }
}
