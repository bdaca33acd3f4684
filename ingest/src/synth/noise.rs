use super::draw::Draw;

/// The sine of an angle in turns, by a polynomial: the platform's `sin` may differ in its last bit from
/// another's.
///
/// The error is below 2·10⁻⁴, which is less than a grey level.
pub(super) fn wave(turns: f32) -> f32 {
    // Folded into a quarter turn either side of zero, where five terms of the series are enough.
    let folded = turns - (turns + 0.5).floor();
    let quarter = if folded > 0.25 {
        0.5 - folded
    } else if folded < -0.25 {
        -0.5 - folded
    } else {
        folded
    };
    let x = quarter * std::f32::consts::TAU;
    let square = x * x;
    x * (1.0 - square * (1.0 / 6.0 - square * (1.0 / 120.0 - square / 5040.0)))
}

/// Cosine and sine of an angle in turns.
pub(super) fn direction(turns: f32) -> (f32, f32) {
    (wave(turns + 0.25), wave(turns))
}

/// Fractal noise: random values on a grid, smoothly joined, with finer and weaker grids on top.
///
/// Value noise rather than gradient noise: half the arithmetic, and what distinguishes them is invisible
/// under the grain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    /// Cells of the coarsest grid over the width of the picture.
    pub(super) across: f32,
    /// Cells of the coarsest grid over its height.
    pub(super) down: f32,
    /// Grids at most; grids finer than two pixels a cell are left out.
    pub(super) octaves: u32,
    /// How much more of the ground a pixel covers at the top than at the bottom: 0 is seen from above.
    pub(super) tilt: f32,
}

impl Noise {
    /// Noise seen from the front.
    pub(super) fn flat(across: f32, down: f32, octaves: u32) -> Self {
        Self { across, down, octaves, tilt: 0.0 }
    }

    /// Noise on a plane that recedes towards the top of the picture.
    pub(super) fn ground(across: f32, down: f32, octaves: u32) -> Self {
        Self { across, down, octaves, tilt: 1.2 }
    }

    /// A square picture of it, row by row; values spread around 0, hardly ever beyond ±1.2.
    pub(super) fn plane(&self, size: usize, draw: &mut Draw) -> Vec<f32> {
        let mut plane = vec![0.0; size * size];
        let (mut across, mut down, mut strength, mut power) = (self.across, self.down, 1.0, 0.0);
        for octave in 0..self.octaves {
            if octave > 0 && across.max(down) > size as f32 / 2.0 {
                break;
            }
            self.add_octave(&mut plane, size, (across, down), strength, draw);
            power += strength * strength;
            (across, down, strength) = (2.0 * across, 2.0 * down, 0.5 * strength);
        }
        // One grid has a standard deviation of about 0.4 after interpolation.
        let scale = 1.0 / f32::sqrt(power);
        plane.iter_mut().for_each(|value| *value *= scale);
        plane
    }

    fn add_octave(
        &self,
        plane: &mut [f32],
        size: usize,
        (across, down): (f32, f32),
        strength: f32,
        draw: &mut Draw,
    ) {
        let width = across * (1.0 + self.tilt);
        let height = down * (1.0 + 0.5 * self.tilt);
        let (columns, rows) = (width.ceil() as usize + 3, height.ceil() as usize + 3);
        let grid: Vec<f32> = (0..columns * rows).map(|_| strength * (2.0 * draw.unit() - 1.0)).collect();
        let (shift_x, shift_y) = (draw.unit(), draw.unit());
        let mut line = vec![0.0; columns];
        for (row, values) in plane.chunks_exact_mut(size).enumerate() {
            // Distance from the lower edge; the derivative of `y` by it grows with depth, as the step of `x`
            // does.
            let far = 1.0 - (row as f32 + 0.5) / size as f32;
            let depth = 1.0 + self.tilt * far;
            let y = down * far * (1.0 + 0.5 * self.tilt * far) + shift_y;
            let (upper, share) = (y as usize, smooth(y - y.floor()));
            let (one, other) =
                (&grid[upper * columns..][..columns], &grid[(upper + 1) * columns..][..columns]);
            for ((value, a), b) in line.iter_mut().zip(one).zip(other) {
                *value = a + (b - a) * share;
            }
            let step = across * depth / size as f32;
            let start = 0.5 * (width - across * depth) + 0.5 * step + shift_x;
            for (column, value) in values.iter_mut().enumerate() {
                let x = start + step * column as f32;
                let left = x as usize;
                let (a, b) = (line[left], line[left + 1]);
                *value += a + (b - a) * smooth(x - left as f32);
            }
        }
    }
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::super::draw::Purpose;
    use super::*;

    #[test]
    fn waves_are_sines() {
        for i in -300..300 {
            let turns = i as f32 / 77.0;
            let exact = (f64::from(turns) * std::f64::consts::TAU).sin();
            assert!((f64::from(wave(turns)) - exact).abs() < 2e-4, "{turns}: {} and {exact}", wave(turns));
        }
    }

    #[test]
    fn noise_fills_any_size_and_stays_in_range() {
        let draw = &mut Draw::new(0, 0, 0, Purpose::Pixels);
        for size in [1, 2, 16, 63, 200] {
            for noise in [Noise::flat(3.0, 20.0, 6), Noise::ground(2.0, 5.0, 4)] {
                let plane = noise.plane(size, draw);
                assert_eq!(plane.len(), size * size);
                assert!(plane.iter().all(|value| value.abs() < 2.0), "size {size}: {noise:?}");
            }
        }
    }
}
