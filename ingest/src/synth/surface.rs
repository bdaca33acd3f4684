use super::noise::wave;

/// What an object's surface shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Plain,
    Striped,
    Dotted,
    Chequered,
    Marbled,
}

impl Surface {
    /// All but the plain one.
    pub(super) const PATTERNED: [Surface; 4] =
        [Surface::Striped, Surface::Dotted, Surface::Chequered, Surface::Marbled];

    /// The word for it in tables.
    pub(super) fn name(self) -> &'static str {
        self.words()[0]
    }

    /// Words that stand before the colour, the plain one first.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Surface::Plain => &["plain", "smooth", "solid"],
            Surface::Striped => &["striped", "banded", "stripy"],
            Surface::Dotted => &["dotted", "spotted", "polka-dot"],
            Surface::Chequered => &["chequered", "checked", "checkerboard"],
            Surface::Marbled => &["marbled", "mottled", "swirly"],
        }
    }

    /// Words that stand after the shape, where there are any.
    pub(super) fn trailing_words(self) -> Option<&'static [&'static str]> {
        match self {
            Surface::Plain | Surface::Marbled => None,
            Surface::Striped => Some(&["with stripes", "with bands"]),
            Surface::Dotted => Some(&["with dots", "with spots"]),
            Surface::Chequered => Some(&["with checks", "with a checkerboard pattern"]),
        }
    }

    /// How much of the pattern's ink lies at a place on the object, from 0 to 1.
    ///
    /// `(x, y)` is in radii from the object's centre, along the pattern; `blur` is the width of a pixel in
    /// radii, over which edges are softened; `swirl` is noise from about -1 to 1.
    pub(super) fn ink(self, x: f32, y: f32, blur: f32, swirl: f32) -> f32 {
        match self {
            Surface::Plain => 0.0,
            Surface::Striped => soft_step(wave(x / 0.56), 4.0 * blur / 0.56),
            Surface::Dotted => {
                let (dx, dy) = (from_centre_of_cell(x, 0.58), from_centre_of_cell(y, 0.58));
                soft_step(0.185 - (dx * dx + dy * dy).sqrt(), blur)
            }
            Surface::Chequered => soft_step(wave(x / 0.8) * wave(y / 0.8), 8.0 * blur / 0.8),
            Surface::Marbled => {
                let vein = wave(x * 0.5 + y * 0.35 + swirl * 1.1);
                0.75 * (vein * vein * vein * vein)
            }
        }
    }
}

fn from_centre_of_cell(x: f32, cell: f32) -> f32 {
    let in_cells = x / cell;
    (in_cells - in_cells.floor() - 0.5) * cell
}

/// 0 well below zero, 1 well above, with a ramp of the given width between.
fn soft_step(value: f32, width: f32) -> f32 {
    (value / width + 0.5).clamp(0.0, 1.0)
}
