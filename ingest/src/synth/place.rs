/// Where in the picture the centre of an object lies: one of nine fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// -1 for the left, 0 for the middle, 1 for the right.
    pub(super) across: i8,
    /// -1 for the top, 0 for the middle, 1 for the bottom.
    pub(super) down: i8,
}

impl Place {
    pub(super) const CENTRE: Place = Place { across: 0, down: 0 };

    /// All nine, row by row.
    pub(super) fn all() -> [Place; 9] {
        std::array::from_fn(|i| Place { across: i as i8 % 3 - 1, down: i as i8 / 3 - 1 })
    }

    /// The word for it in tables.
    pub(super) fn name(self) -> &'static str {
        match (self.across, self.down) {
            (-1, -1) => "top left",
            (0, -1) => "top",
            (1, -1) => "top right",
            (-1, 0) => "left",
            (0, 0) => "centre",
            (1, 0) => "right",
            (-1, 1) => "bottom left",
            (0, 1) => "bottom",
            _ => "bottom right",
        }
    }

    /// Phrases for it: `on the left`.
    pub(super) fn words(self) -> &'static [&'static str] {
        match (self.across, self.down) {
            (-1, -1) => &["in the top left corner", "at the top left", "in the upper left"],
            (0, -1) => &["at the top", "near the top", "in the upper middle"],
            (1, -1) => &["in the top right corner", "at the top right", "in the upper right"],
            (-1, 0) => &["on the left", "on the left side", "at the left edge"],
            (0, 0) => &["in the centre", "in the middle", "at the centre"],
            (1, 0) => &["on the right", "on the right side", "at the right edge"],
            (-1, 1) => &["in the bottom left corner", "at the bottom left", "in the lower left"],
            (0, 1) => &["at the bottom", "near the bottom", "in the lower middle"],
            _ => &["in the bottom right corner", "at the bottom right", "in the lower right"],
        }
    }
}
