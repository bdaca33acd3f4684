use super::outline::Outline;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Ring,
    Cross,
    Hexagon,
    Heart,
    Crescent,
    Diamond,
}

impl Shape {
    pub(super) const ALL: [Shape; 10] = [
        Shape::Circle,
        Shape::Square,
        Shape::Triangle,
        Shape::Star,
        Shape::Ring,
        Shape::Cross,
        Shape::Hexagon,
        Shape::Heart,
        Shape::Crescent,
        Shape::Diamond,
    ];

    /// The word for it in class names and tables.
    pub(super) fn name(self) -> &'static str {
        self.words()[0]
    }

    /// All words that captions use for it, the plain one first. No word stands for two shapes.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Shape::Circle => &["circle", "disc", "button"],
            Shape::Square => &["square", "tile", "box"],
            Shape::Triangle => &["triangle", "wedge"],
            Shape::Star => &["star", "five-pointed star"],
            Shape::Ring => &["ring", "hoop", "loop"],
            Shape::Cross => &["cross", "plus sign"],
            Shape::Hexagon => &["hexagon", "six-sided block"],
            Shape::Heart => &["heart", "love heart"],
            Shape::Crescent => &["crescent", "half moon", "sickle"],
            Shape::Diamond => &["diamond", "rhombus", "lozenge"],
        }
    }

    /// How far it may be turned either way, in turns, and still be what its name says: a square on its tip
    /// would be a diamond.
    pub(super) fn max_tilt(self) -> f32 {
        match self {
            Shape::Circle | Shape::Ring | Shape::Hexagon | Shape::Crescent => 0.5,
            Shape::Star => 0.1,
            Shape::Triangle | Shape::Heart => 0.06,
            Shape::Square | Shape::Cross => 0.045,
            Shape::Diamond => 0.04,
        }
    }

    pub(super) fn outline(self) -> Outline {
        match self {
            Shape::Circle => Outline::Circle,
            Shape::Square => Outline::polygon(&[(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]),
            Shape::Triangle => Outline::polygon(&[(-1.0, -0.78), (1.0, -0.78), (0.0, 0.98)]),
            Shape::Star => Outline::star(),
            Shape::Ring => Outline::Ring,
            Shape::Cross => Outline::cross(),
            Shape::Hexagon => Outline::polygon(&[
                (1.0, 0.0),
                (0.5, 0.866),
                (-0.5, 0.866),
                (-1.0, 0.0),
                (-0.5, -0.866),
                (0.5, -0.866),
            ]),
            Shape::Heart => Outline::Heart,
            Shape::Crescent => Outline::Crescent,
            Shape::Diamond => Outline::polygon(&[(0.0, 1.1), (-0.68, 0.0), (0.0, -1.1), (0.68, 0.0)]),
        }
    }
}
