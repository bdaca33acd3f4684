use super::check::{check_fraction, refuse};
use crate::LoadError;
use crate::normalise::Normalisation;
use crate::plan::Draws;

/// Draws that are tried for a rectangle before it is left out.
const TRIES: usize = 10;
/// Least and largest fraction of the area that is erased, over all rectangles.
const AREA: (f64, f64) = (0.02, 1.0 / 3.0);
/// Least ratio of height to width; the largest is its inverse, as timm rounds it.
const RATIO: (f64, f64) = (0.3, 10.0 / 3.0);

/// timm's random erasing in its mode `pixel`, which OpenCLIP asks for: rectangles of normal noise.
///
/// The noise has mean and deviation of OpenAI's dataset, cut off at black and white, because pixels are bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomErasing {
    /// How often images are erased in at all.
    pub probability: f32,
    /// Rectangles.
    pub count: u32,
}

impl RandomErasing {
    pub(super) fn check(&self) -> Result<(), LoadError> {
        check_fraction("transform.erasing.probability", self.probability)?;
        if !(1..=100).contains(&self.count) {
            return refuse("transform.erasing.count", self.count, "it must lie between 1 and 100");
        }
        Ok(())
    }

    /// Erases in three planes of `size` by `size`.
    pub(super) fn apply(&self, planes: &mut [u8], size: u32, draws: &mut Draws) {
        if draws.unit() >= f64::from(self.probability) {
            return;
        }
        for _ in 0..self.count {
            if let Some(rectangle) = self.rectangle(size, draws) {
                fill_with_noise(planes, size as usize, rectangle, draws);
            }
        }
    }

    fn rectangle(&self, size: u32, draws: &mut Draws) -> Option<Rectangle> {
        let area = f64::from(size) * f64::from(size) / f64::from(self.count);
        for _ in 0..TRIES {
            let target = area * (AREA.0 + (AREA.1 - AREA.0) * draws.unit());
            let aspect = (RATIO.0.ln() + (RATIO.1 / RATIO.0).ln() * draws.unit()).exp();
            let height = (target * aspect).sqrt().round_ties_even() as u32;
            let width = (target / aspect).sqrt().round_ties_even() as u32;
            if width < size && height < size {
                let top = draws.below(size - height + 1);
                let left = draws.below(size - width + 1);
                return Some(Rectangle { left, top, width, height });
            }
        }
        None
    }
}

#[derive(Debug, Clone, Copy)]
struct Rectangle {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

fn fill_with_noise(planes: &mut [u8], size: usize, rectangle: Rectangle, draws: &mut Draws) {
    let Rectangle { left, top, width, height } = rectangle;
    let Normalisation { mean, deviation } = Normalisation::OPENAI;
    for (channel, plane) in planes.chunks_exact_mut(size * size).enumerate() {
        let (mean, deviation) = (f64::from(mean[channel]), f64::from(deviation[channel]));
        for row in plane.chunks_exact_mut(size).skip(top as usize).take(height as usize) {
            for value in &mut row[left as usize..][..width as usize] {
                *value = ((mean + deviation * normal(draws)) * 255.0).round() as u8;
            }
        }
    }
}

/// Box and Muller's transform, of which the sine is not used: simple before fast.
fn normal(draws: &mut Draws) -> f64 {
    let radius = (-2.0 * (1.0 - draws.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * draws.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Purpose;

    #[test]
    fn rectangles_cover_a_fiftieth_to_a_third_with_noise_around_the_mean() {
        let erasing = RandomErasing { probability: 1.0, count: 1 };
        let mut sums = (0.0, 0);
        for item in 0..200 {
            let mut planes = vec![0; 3 * 64 * 64];
            erasing.apply(&mut planes, 64, &mut Draws::new(Purpose::Augmentation, 0, 0, item));
            let erased = planes.iter().filter(|&&value| value > 0).count() as f64 / planes.len() as f64;
            assert!((0.01..0.36).contains(&erased), "{erased} of image {item}");
            sums.0 += planes.iter().map(|&value| f64::from(value)).sum::<f64>();
            sums.1 += planes.iter().filter(|&&value| value > 0).count();
        }
        let mean = sums.0 / sums.1 as f64 / 255.0;
        assert!((0.42..0.5).contains(&mean), "{mean}");
    }

    #[test]
    fn a_probability_of_zero_erases_nothing() {
        let mut planes = vec![9; 3 * 64 * 64];
        let erasing = RandomErasing { probability: 0.0, count: 3 };
        erasing.apply(&mut planes, 64, &mut Draws::new(Purpose::Augmentation, 0, 0, 0));
        assert!(planes.iter().all(|&value| value == 9));
    }
}
