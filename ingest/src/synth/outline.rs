use super::noise::direction;

/// The border of a shape of radius about 1, with `y` upwards.
#[derive(Debug, Clone)]
pub(super) enum Outline {
    Circle,
    Ring,
    Heart,
    Crescent,
    Polygon(Vec<Edge>),
}

/// A side of a polygon: where it begins, where it leads, and the inverse of its squared length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    start: (f32, f32),
    along: (f32, f32),
    inverse_square: f32,
}

/// Half the thickness of a ring.
const RING_HALF: f32 = 0.25;
/// Half the side of the square that, with a circle on each of its upper sides, makes a heart.
const HEART_HALF: f32 = 0.57;
/// Centre and radius of the circle that is cut out of another to leave a crescent.
const CRESCENT_CUT: (f32, f32) = (0.46, 0.80);
/// Half the width of a bar of a cross.
const CROSS_HALF: f32 = 0.33;
/// Inner radius of a star.
const STAR_INNER: f32 = 0.46;

impl Outline {
    pub(super) fn polygon(corners: &[(f32, f32)]) -> Self {
        let next = corners.iter().cycle().skip(1);
        let edges = corners.iter().zip(next).map(|(&start, &end)| {
            let along = (end.0 - start.0, end.1 - start.1);
            Edge { start, along, inverse_square: 1.0 / (along.0 * along.0 + along.1 * along.1) }
        });
        Outline::Polygon(edges.collect())
    }

    pub(super) fn star() -> Self {
        let corners: Vec<(f32, f32)> = (0..10)
            .map(|i| {
                let radius = if i % 2 == 0 { 1.08 } else { STAR_INNER };
                let (x, y) = direction(0.25 + i as f32 / 10.0);
                (radius * x, radius * y)
            })
            .collect();
        Self::polygon(&corners)
    }

    pub(super) fn cross() -> Self {
        let (w, l) = (CROSS_HALF, 0.98);
        let quarter = [(l, -w), (l, w), (w, w)];
        let turned = |turns: usize| {
            quarter.map(|(x, y)| match turns {
                0 => (x, y),
                1 => (-y, x),
                2 => (-x, -y),
                _ => (y, -x),
            })
        };
        Self::polygon(&(0..4).flat_map(turned).collect::<Vec<_>>())
    }

    /// Distance from the border, negative inside. Outside of hearts and crescents it is exact only near the
    /// border.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        match self {
            Outline::Circle => length(x, y) - 0.97,
            Outline::Ring => (length(x, y) - (1.0 - RING_HALF)).abs() - RING_HALF,
            Outline::Heart => {
                let y = y + 0.15;
                let half = HEART_HALF * std::f32::consts::FRAC_1_SQRT_2;
                let (u, v) =
                    (std::f32::consts::FRAC_1_SQRT_2 * (x + y), std::f32::consts::FRAC_1_SQRT_2 * (y - x));
                let square = u.abs().max(v.abs()) - HEART_HALF;
                let lobe = length(x.abs() - half, y - half) - HEART_HALF;
                square.min(lobe)
            }
            Outline::Crescent => {
                let x = x + 0.2;
                (length(x, y) - 1.0).max(CRESCENT_CUT.1 - length(x - CRESCENT_CUT.0, y))
            }
            Outline::Polygon(edges) => polygon_distance(edges, x, y),
        }
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

fn polygon_distance(edges: &[Edge], x: f32, y: f32) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut is_inside = false;
    for Edge { start, along, inverse_square } in edges {
        let (dx, dy) = (x - start.0, y - start.1);
        let share = ((dx * along.0 + dy * along.1) * inverse_square).clamp(0.0, 1.0);
        let (gap_x, gap_y) = (dx - share * along.0, dy - share * along.1);
        nearest = nearest.min(gap_x * gap_x + gap_y * gap_y);
        // A ray to the right crosses this side if the side begins on one side of the ray and ends on the
        // other, and the point lies to the left of it.
        if (dy < 0.0) != (dy < along.1) && (dx * along.1 < dy * along.0) == (along.1 > 0.0) {
            is_inside = !is_inside;
        }
    }
    if is_inside { -nearest.sqrt() } else { nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::*;

    #[test]
    fn every_shape_is_solid_within_and_ends_near_its_radius() {
        for shape in Shape::ALL {
            let outline = shape.outline();
            let inside = (-20..=20)
                .flat_map(|i| (-20..=20).map(move |j| (i as f32 / 16.0, j as f32 / 16.0)))
                .filter(|&(x, y)| outline.distance(x, y) < 0.0);
            let area = inside.clone().count() as f32 / 256.0;
            assert!((0.9..3.2).contains(&area), "{shape:?} covers {area}");
            for (x, y) in inside {
                assert!(length(x, y) < 1.3, "{shape:?} reaches ({x}, {y})");
            }
        }
    }

    #[test]
    fn distances_change_no_faster_than_the_place_does() {
        for shape in Shape::ALL {
            let outline = shape.outline();
            for i in -30..30 {
                let (x, y) = (i as f32 / 20.0, 0.37);
                let change = (outline.distance(x + 0.01, y) - outline.distance(x, y)).abs();
                assert!(change < 0.0101, "{shape:?} at ({x}, {y}): {change}");
            }
        }
    }

    #[test]
    fn polygons_agree_with_the_distance_to_a_square() {
        let square = Outline::polygon(&[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]);
        for (x, y, expected) in [(0.0, 0.0, -1.0), (0.5, 0.0, -0.5), (2.0, 0.0, 1.0), (4.0, 5.0, 5.0)] {
            assert!((square.distance(x, y) - expected).abs() < 1e-6, "({x}, {y}): {}", square.distance(x, y));
        }
    }
}
