use super::colour::Colour;

/// What lies behind the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Background {
    Sky,
    Sunset,
    Night,
    Sand,
    Grass,
    Water,
    Snow,
    Brick,
    Wood,
    Stone,
}

impl Background {
    pub(super) const ALL: [Background; 10] = [
        Background::Sky,
        Background::Sunset,
        Background::Night,
        Background::Sand,
        Background::Grass,
        Background::Water,
        Background::Snow,
        Background::Brick,
        Background::Wood,
        Background::Stone,
    ];

    /// The word for it in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Background::Sky => "sky",
            Background::Sunset => "sunset",
            Background::Night => "night sky",
            Background::Sand => "sand",
            Background::Grass => "grass",
            Background::Water => "water",
            Background::Snow => "snow",
            Background::Brick => "brick wall",
            Background::Wood => "wood",
            Background::Stone => "stone",
        }
    }

    /// Phrases that say where an object is: `on the sand`.
    pub(super) fn settings(self) -> &'static [&'static str] {
        match self {
            Background::Sky => &["against a blue sky", "in the sky", "in front of clouds and blue sky"],
            Background::Sunset => &["at sunset", "against a sunset", "in front of an evening sky"],
            Background::Night => &["against the night sky", "under the stars", "in a starry night"],
            Background::Sand => &["on the sand", "on a sandy beach", "in the desert"],
            Background::Grass => &["on the grass", "on a lawn", "in a green meadow"],
            Background::Water => &["on the water", "floating on the sea", "on a lake"],
            Background::Snow => &["in the snow", "on snow", "on snowy ground"],
            Background::Brick => &["on a brick wall", "in front of a brick wall", "against red bricks"],
            Background::Wood => &["on a wooden table", "on wooden boards", "on brown planks"],
            Background::Stone => &["on grey stone", "on concrete", "on a stone floor"],
        }
    }

    /// Phrases that name it: `a sandy beach`.
    pub(super) fn nouns(self) -> &'static [&'static str] {
        match self {
            Background::Sky => &["a blue sky", "a cloudy sky"],
            Background::Sunset => &["a sunset", "an evening sky"],
            Background::Night => &["the night sky", "a starry night"],
            Background::Sand => &["sand", "a sandy beach"],
            Background::Grass => &["grass", "a green lawn"],
            Background::Water => &["water", "the sea"],
            Background::Snow => &["snow", "a snowy field"],
            Background::Brick => &["a brick wall", "red bricks"],
            Background::Wood => &["a wooden table", "wooden boards"],
            Background::Stone => &["grey stone", "concrete"],
        }
    }

    /// Whether an object of this colour could hardly be seen before it.
    pub(super) fn hides(self, colour: Colour) -> bool {
        match self {
            Background::Sky => matches!(colour, Colour::Blue | Colour::White | Colour::Turquoise),
            Background::Sunset => matches!(colour, Colour::Orange | Colour::Pink),
            Background::Night => matches!(colour, Colour::Black | Colour::Blue | Colour::Purple),
            Background::Sand => matches!(colour, Colour::Yellow | Colour::White),
            Background::Grass => matches!(colour, Colour::Green),
            Background::Water => matches!(colour, Colour::Blue | Colour::Turquoise),
            Background::Snow => matches!(colour, Colour::White),
            Background::Brick => matches!(colour, Colour::Red | Colour::Orange),
            Background::Wood => matches!(colour, Colour::Orange),
            Background::Stone => false,
        }
    }

    /// Whether things lie or stand on it, so that they throw a shadow.
    pub(super) fn takes_shadow(self) -> bool {
        !matches!(self, Background::Sky | Background::Sunset | Background::Night)
    }
}
