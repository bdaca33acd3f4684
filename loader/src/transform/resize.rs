use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use fastclip_schemas::SampleId;

use super::Transform;
use super::crop::{central_square, random_resized_crop};
use crate::decode::RgbImage;
use crate::plan::{Draws, Purpose};

/// Transforms images one after another, keeping its memory between them.
#[derive(Debug, Default)]
pub struct ImageTransformer {
    resizer: Resizer,
    square: Vec<u8>,
}

/// What an augmentation may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augmentation {
    /// The run's seed.
    pub seed: u64,
    /// The pass over the dataset.
    pub epoch: u64,
    /// The sample.
    pub sample: SampleId,
}

/// Catmull and Rom's spline is the cubic with a = −0.5; `Convolution` widens it when shrinking, as Pillow does.
const BICUBIC: ResizeAlg = ResizeAlg::Convolution(FilterType::CatmullRom);

impl ImageTransformer {
    /// A transformer without memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the transformed image as three planes, red, green and blue.
    ///
    /// # Panics
    /// When `planes` is not of [`Transform::image_bytes`], or the image has no pixels.
    pub fn transform(
        &mut self,
        image: &RgbImage,
        transform: &Transform,
        augmentation: Augmentation,
        planes: &mut [u8],
    ) {
        assert_eq!(planes.len(), transform.image_bytes(), "room for one image");
        let size = transform.size();
        let bounds = (image.width, image.height);
        let source = ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3)
            .expect("an image has as many pixels as it says");
        self.square.resize(planes.len(), 0);
        let mut square = Image::from_slice_u8(size, size, &mut self.square, PixelType::U8x3)
            .expect("the square was sized for it");
        let options = ResizeOptions::new().resize_alg(BICUBIC);
        let resized = match *transform {
            Transform::Train { scale, ratio, .. } => {
                let Augmentation { seed, epoch, sample } = augmentation;
                let mut draws = Draws::new(Purpose::Augmentation, seed, epoch, sample.0);
                let crop = random_resized_crop(bounds, scale, ratio, &mut draws);
                // As an image of its own: a crop in the options would let the filter reach beyond its edges.
                let cropped = CroppedImage::new(&source, crop.left, crop.top, crop.width, crop.height)
                    .expect("a crop lies inside its image");
                self.resizer.resize(&cropped, &mut square, &options)
            }
            Transform::Eval { size } => {
                let part = central_square(bounds, size);
                // Here the filter shall reach beyond the edges: torchvision resizes first and crops then.
                let options = options.crop(part.left, part.top, part.width, part.height);
                self.resizer.resize(&source, &mut square, &options)
            }
        };
        resized.expect("both images have the same pixels, and the part lies inside its image");
        split_into_planes(&self.square, planes);
    }
}

fn split_into_planes(pixels: &[u8], planes: &mut [u8]) {
    let plane = planes.len() / 3;
    let (red, rest) = planes.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    for (((pixel, r), g), b) in pixels.chunks_exact(3).zip(red).zip(green).zip(blue) {
        (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: Augmentation = Augmentation { seed: 1, epoch: 2, sample: SampleId(3) };

    fn gradient(width: u32, height: u32) -> RgbImage {
        let pixel = |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, 7];
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        RgbImage { width, height, pixels }
    }

    fn transform(image: &RgbImage, transform: Transform, augmentation: Augmentation) -> Vec<u8> {
        let mut planes = vec![0; transform.image_bytes()];
        ImageTransformer::new().transform(image, &transform, augmentation, &mut planes);
        planes
    }

    /// Bicubic resizing by its definition, in f64: crops, then filters columns of rows.
    fn reference(image: &RgbImage, part: (f64, f64, f64, f64), inside: bool, size: usize) -> Vec<f64> {
        let cubic = |x: f64| {
            let x = x.abs();
            match x {
                x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
                x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
                _ => 0.0,
            }
        };
        let weights = |start: f64, length: f64, pixels: u32| -> Vec<Vec<(usize, f64)>> {
            let scale = length / size as f64;
            let widened = scale.max(1.0);
            let (low, high) = if inside { (start, start + length) } else { (0.0, f64::from(pixels)) };
            (0..size)
                .map(|i| {
                    let centre = start + (i as f64 + 0.5) * scale;
                    let first = (centre - 2.0 * widened).round().max(low) as usize;
                    let last = (centre + 2.0 * widened).round().min(high) as usize;
                    let all: Vec<(usize, f64)> =
                        (first..last).map(|p| (p, cubic((p as f64 + 0.5 - centre) / widened))).collect();
                    let sum: f64 = all.iter().map(|(_, weight)| weight).sum();
                    all.into_iter().map(|(p, weight)| (p, weight / sum)).collect()
                })
                .collect()
        };
        let (left, top, width, height) = part;
        let columns = weights(left, width, image.width);
        let rows = weights(top, height, image.height);
        let mut planes = Vec::new();
        for channel in 0..3 {
            for row in &rows {
                for column in &columns {
                    let mut sum = 0.0;
                    for &(y, wy) in row {
                        for &(x, wx) in column {
                            let at = (y * image.width as usize + x) * 3 + channel;
                            sum += wy * wx * f64::from(image.pixels[at]);
                        }
                    }
                    planes.push(sum.clamp(0.0, 255.0));
                }
            }
        }
        planes
    }

    fn noisy(width: u32, height: u32) -> RgbImage {
        let mut image = gradient(width, height);
        let mut draws = Draws::new(Purpose::Augmentation, 5, 5, 5);
        image.pixels.iter_mut().for_each(|value| *value = (*value / 2).wrapping_add(draws.below(100) as u8));
        image
    }

    fn assert_near(planes: &[u8], expected: &[f64]) {
        assert_eq!(planes.len(), expected.len());
        let worst = planes
            .iter()
            .zip(expected)
            .map(|(&got, &want)| (f64::from(got) - want).abs())
            .fold(0.0, f64::max);
        assert!(worst < 3.0, "differs by {worst} grey levels");
    }

    #[test]
    fn evaluation_resizes_bicubically_then_crops_the_centre() {
        for bounds in [(90, 60), (60, 90), (41, 41), (20, 31)] {
            let image = noisy(bounds.0, bounds.1);
            let part = central_square(bounds, 32);
            let expected = reference(&image, (part.left, part.top, part.width, part.height), false, 32);
            assert_near(&transform(&image, Transform::eval(32), TRAIN), &expected);
        }
    }

    #[test]
    fn training_crops_then_resizes_bicubically() {
        let image = noisy(97, 71);
        let draws = &mut Draws::new(Purpose::Augmentation, TRAIN.seed, TRAIN.epoch, TRAIN.sample.0);
        let crop = random_resized_crop((97, 71), (0.9, 1.0), (3.0 / 4.0, 4.0 / 3.0), draws);
        let part = [crop.left, crop.top, crop.width, crop.height].map(f64::from);
        let expected = reference(&image, (part[0], part[1], part[2], part[3]), true, 32);
        assert_near(&transform(&image, Transform::train(32), TRAIN), &expected);
    }

    #[test]
    fn planes_are_red_green_and_blue() {
        let planes = transform(&gradient(64, 64), Transform::eval(8), TRAIN);
        assert!(planes[0] < planes[7], "red rises to the right");
        assert!(planes[64] < planes[64 + 56], "green rises downwards");
        assert!(planes[128..].iter().all(|&blue| blue == 7));
    }

    #[test]
    fn an_augmentation_depends_on_seed_epoch_and_sample() {
        let image = gradient(80, 70);
        let planes = |augmentation| transform(&image, Transform::train(16), augmentation);
        assert_eq!(planes(TRAIN), planes(TRAIN));
        assert_ne!(planes(TRAIN), planes(Augmentation { seed: 2, ..TRAIN }));
        assert_ne!(planes(TRAIN), planes(Augmentation { epoch: 3, ..TRAIN }));
        assert_ne!(planes(TRAIN), planes(Augmentation { sample: SampleId(4), ..TRAIN }));
    }

    #[test]
    fn a_transformer_keeps_nothing_of_earlier_images() {
        let mut transformer = ImageTransformer::new();
        let mut planes = vec![0; 3 * 16 * 16];
        transformer.transform(&noisy(300, 200), &Transform::eval(16), TRAIN, &mut planes);
        let image = gradient(5, 9);
        transformer.transform(&image, &Transform::eval(16), TRAIN, &mut planes);
        assert_eq!(planes, transform(&image, Transform::eval(16), TRAIN));
    }
}
