use fastclip_schemas::SampleId;

use super::colour::{self, Planes};
use super::crop::random_resized_crop;
use super::frame::Frame;
use super::{EvalTransform, Quality, TrainTransform, Transform};
use crate::plan::{Draws, Purpose};
use crate::resample::{self, Resampler, Taps};
use fastclip_images::{Part, RgbImage, Window};

/// Transforms images one after another, keeping its memory between them.
#[derive(Debug)]
pub struct ImageTransformer {
    resampler: Resampler,
    columns: Taps,
    rows: Taps,
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

/// What is to be done with an image, decided before it is decoded.
#[derive(Debug)]
pub(crate) struct Plan {
    frame: Frame,
    /// What has to be decoded.
    pub(crate) part: Part,
    /// Those of the augmentation, after the crop has been drawn.
    draws: Draws,
}

impl Default for ImageTransformer {
    fn default() -> Self {
        Self { resampler: Resampler::new(), columns: Taps::default(), rows: Taps::default() }
    }
}

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
        let plan = self.plan((image.width, image.height), transform, augmentation, Quality::Exact, false);
        let RgbImage { width, height, ref pixels } = *image;
        let window = Window { bytes: pixels, left: 0, top: 0, width, height };
        self.render(plan, window, transform, planes);
    }

    /// Decides what of an image of this width and height is shown, and hence has to be decoded.
    ///
    /// Must be followed by [`render`](Self::render), for which it keeps the weights.
    pub(crate) fn plan(
        &mut self,
        size: (u32, u32),
        transform: &Transform,
        augmentation: Augmentation,
        quality: Quality,
        is_scalable: bool,
    ) -> Plan {
        let Augmentation { seed, epoch, sample } = augmentation;
        let mut draws = Draws::new(Purpose::Augmentation, seed, epoch, sample.0);
        let frame = match transform {
            Transform::Train(TrainTransform { size: side, scale, ratio, .. }) => {
                Frame::cropped(size, random_resized_crop(size, *scale, *ratio, &mut draws), *side)
            }
            Transform::Eval(transform) => Frame::fitted(size, transform),
        };
        let shrink = frame.shrink(quality, is_scalable);
        let part = frame.taps(shrink, &mut self.columns, &mut self.rows);
        Plan { frame, part, draws }
    }

    /// Carries out the last plan on a window that holds its part.
    ///
    /// # Panics
    /// When it does not, or `planes` is not of [`Transform::image_bytes`].
    pub(crate) fn render(
        &mut self,
        plan: Plan,
        window: Window<'_>,
        transform: &Transform,
        planes: &mut [u8],
    ) {
        assert_eq!(planes.len(), transform.image_bytes(), "room for one image");
        let Plan { frame, mut draws, .. } = plan;
        let row = transform.size() as usize;
        let plane = row * row;
        if let Transform::Eval(EvalTransform { size, fill, .. }) = *transform
            && frame.shown() != (size, size)
        {
            planes.chunks_exact_mut(plane).zip(fill).for_each(|(plane, value)| plane.fill(value));
        }
        let offset = frame.offset.1 as usize * row + frame.offset.0 as usize;
        let target = resample::Planes { bytes: planes, plane, row, offset };
        self.resampler.resample(window, &self.columns, &self.rows, target);
        if let Transform::Train(transform) = transform {
            augment(transform, planes, &mut draws);
        }
    }
}

/// Does what a training transform does after the crop.
fn augment(transform: &TrainTransform, planes: &mut [u8], draws: &mut Draws) {
    let happens =
        |probability: f32, draws: &mut Draws| probability > 0.0 && draws.unit() < f64::from(probability);
    if happens(transform.flip_probability, draws) {
        planes.chunks_exact_mut(transform.size as usize).for_each(<[u8]>::reverse);
    }
    if let Some(jitter) = transform.colour_jitter {
        jitter.apply(&mut Planes::new(planes), draws);
    }
    if happens(transform.grey_probability, draws) {
        colour::remove(&mut Planes::new(planes));
    }
    if let Some(erasing) = transform.erasing {
        erasing.apply(planes, transform.size, draws);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColourJitter, RandomErasing, ResizeMode};

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

    fn noisy(width: u32, height: u32) -> RgbImage {
        let mut image = gradient(width, height);
        let mut draws = Draws::new(Purpose::Augmentation, 5, 5, 5);
        image.pixels.iter_mut().for_each(|value| *value = (*value / 2).wrapping_add(draws.below(100) as u8));
        image
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

    #[test]
    fn a_mirrored_image_is_the_same_from_the_other_side() {
        let image = noisy(80, 70);
        let size = 16;
        let plain = transform(&image, Transform::train(size), TRAIN);
        let flip_probability = 1.0;
        let flipped =
            transform(&image, TrainTransform { flip_probability, ..TrainTransform::new(size) }.into(), TRAIN);
        for (row, flipped) in plain.chunks_exact(16).zip(flipped.chunks_exact(16)) {
            assert!(row.iter().eq(flipped.iter().rev()));
        }
        assert_ne!(plain, flipped);
    }

    #[test]
    fn what_the_longest_side_leaves_is_filled() {
        let eval = EvalTransform { resize: ResizeMode::Longest, fill: [1, 2, 3], ..EvalTransform::new(16) };
        let planes = transform(&noisy(80, 20), eval.into(), TRAIN);
        for (plane, fill) in planes.chunks_exact(256).zip([1, 2, 3]) {
            let (above, rest) = plane.split_at(6 * 16);
            let (shown, below) = rest.split_at(4 * 16);
            assert!(above.iter().chain(below).all(|&value| value == fill));
            assert!(shown.iter().any(|&value| value != fill));
        }
    }

    #[test]
    fn colours_change_as_often_and_by_as_much_as_asked() {
        let image = gradient(64, 64);
        let none =
            ColourJitter { probability: 0.25, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
        let jitter = ColourJitter { brightness: 0.4, ..none };
        let transform_with =
            |jitter| TrainTransform { colour_jitter: Some(jitter), ..TrainTransform::new(8) };
        let sum = |planes: &[u8]| planes.iter().map(|&value| f64::from(value)).sum::<f64>();
        let mut factors = Vec::new();
        for sample in (0..400).map(SampleId) {
            let augmentation = Augmentation { sample, ..TRAIN };
            let plain = transform(&image, Transform::train(8), augmentation);
            assert_eq!(transform(&image, transform_with(none).into(), augmentation), plain, "{sample}");
            let changed = transform(&image, transform_with(jitter).into(), augmentation);
            if changed != plain {
                // Pillow rounds down, and what is too bright is white.
                let factor = sum(&changed) / sum(&plain);
                assert!((0.57..1.401).contains(&factor), "{factor} of {sample}");
                factors.push(factor);
            }
        }
        assert!((70..130).contains(&factors.len()), "{}", factors.len());
        let num_darker = factors.iter().filter(|&&factor| factor < 1.0).count();
        assert!((20..factors.len() - 20).contains(&num_darker), "{num_darker} of {}", factors.len());
        assert!(factors.iter().any(|&factor| factor < 0.7) && factors.iter().any(|&factor| factor > 1.2));
    }

    #[test]
    fn erasing_comes_last_and_leaves_what_is_outside_of_its_rectangle() {
        let image = gradient(64, 64);
        let grey = TrainTransform { grey_probability: 1.0, ..TrainTransform::new(32) };
        let erasing = TrainTransform { erasing: Some(RandomErasing { probability: 1.0, count: 1 }), ..grey };
        let (plain, erased) =
            (transform(&image, grey.into(), TRAIN), transform(&image, erasing.into(), TRAIN));
        let is_noise = |at: usize| (0..3).any(|plane| plain[plane * 1024 + at] != erased[plane * 1024 + at]);
        let noise: Vec<usize> = (0..1024).filter(|&at| is_noise(at)).collect();
        let ends = |values: Vec<usize>| (values.iter().min().copied(), values.iter().max().copied());
        let (Some(top), Some(bottom)) = ends(noise.iter().map(|at| at / 32).collect()) else {
            panic!("none")
        };
        let (Some(left), Some(right)) = ends(noise.iter().map(|at| at % 32).collect()) else {
            panic!("none")
        };
        let area = (bottom - top + 1) * (right - left + 1);
        assert!((20..=342).contains(&area), "{area} pixels");
        assert_eq!(noise.len(), area, "all of the rectangle, and nothing else");
        let coloured = noise.iter().filter(|&&at| erased[at] != erased[1024 + at]).count();
        assert!(coloured > area / 2, "noise is not made grey");
    }

    #[test]
    fn augmentations_happen_as_often_as_asked_and_leave_the_crop_alone() {
        let image = gradient(64, 64);
        let grey = TrainTransform { grey_probability: 0.25, ..TrainTransform::new(8) };
        let mut num_grey = 0;
        for sample in (0..400).map(SampleId) {
            let augmentation = Augmentation { sample, ..TRAIN };
            let plain = transform(&image, Transform::train(8), augmentation);
            let perhaps = transform(&image, grey.into(), augmentation);
            if perhaps[..64] == perhaps[64..128] && perhaps[..64] == perhaps[128..] {
                num_grey += 1;
            } else {
                assert_eq!(perhaps, plain, "{sample}");
            }
        }
        assert!((70..130).contains(&num_grey), "{num_grey}");
    }
}
