use crate::plan::Draws;

/// Draws that are tried before the central crop is taken.
const TRIES: usize = 10;

/// A part of an image in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crop {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Draws torchvision's `RandomResizedCrop` for an image of `width` by `height`.
pub(super) fn random_resized_crop(
    (width, height): (u32, u32),
    scale: (f32, f32),
    ratio: (f32, f32),
    draws: &mut Draws,
) -> Crop {
    let between = |(low, high): (f64, f64), draws: &mut Draws| low + (high - low) * draws.unit();
    let area = f64::from(width) * f64::from(height);
    let scale = (f64::from(scale.0), f64::from(scale.1));
    let ratio = (f64::from(ratio.0), f64::from(ratio.1));
    for _ in 0..TRIES {
        let target = area * between(scale, draws);
        // Uniform in the logarithm, so that wide and tall are equally likely.
        let aspect = between((ratio.0.ln(), ratio.1.ln()), draws).exp();
        let w = (target * aspect).sqrt().round_ties_even();
        let h = (target / aspect).sqrt().round_ties_even();
        if (1.0..=f64::from(width)).contains(&w) && (1.0..=f64::from(height)).contains(&h) {
            let (w, h) = (w as u32, h as u32);
            let top = draws.below(height - h + 1);
            let left = draws.below(width - w + 1);
            return Crop { left, top, width: w, height: h };
        }
    }
    let whole = f64::from(width) / f64::from(height);
    let (w, h) = if whole < ratio.0 {
        (width, (f64::from(width) / ratio.0).round_ties_even() as u32)
    } else if whole > ratio.1 {
        ((f64::from(height) * ratio.1).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Crop { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Purpose;

    proptest! {
        #[test]
        fn a_crop_stays_inside_its_image(
            size in (1_u32..3000, 1_u32..3000),
            scale in (0.01_f32..1.0, 0.01_f32..1.0),
            ratio in (0.1_f32..4.0, 0.1_f32..4.0),
            item in any::<u64>(),
        ) {
            let rising = |(a, b): (f32, f32)| (a.min(b), a.max(b));
            let mut draws = Draws::new(Purpose::Augmentation, 1, 2, item);
            let crop = random_resized_crop(size, rising(scale), rising(ratio), &mut draws);
            prop_assert!(crop.width >= 1 && crop.height >= 1, "{crop:?}");
            prop_assert!(crop.left + crop.width <= size.0 && crop.top + crop.height <= size.1, "{crop:?} in {size:?}");
        }
    }

    #[test]
    fn crops_cover_the_areas_and_ratios_asked_for() {
        let mut draws = Draws::new(Purpose::Augmentation, 0, 0, 0);
        let crops: Vec<Crop> = (0..2000)
            .map(|_| random_resized_crop((1000, 1000), (0.25, 0.75), (0.75, 4.0 / 3.0), &mut draws))
            .collect();
        let areas = crops.iter().map(|c| f64::from(c.width * c.height) / 1e6);
        let ratios = crops.iter().map(|c| f64::from(c.width) / f64::from(c.height));
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (low, high) = range(&mut areas.clone());
        assert!((0.24..0.27).contains(&low) && (0.73..0.76).contains(&high), "{low} {high}");
        let (low, high) = range(&mut ratios.clone());
        assert!((0.74..0.77).contains(&low) && (1.30..1.34).contains(&high), "{low} {high}");
        assert!((0.48..0.52).contains(&(areas.sum::<f64>() / 2000.0)));
    }

    #[test]
    fn an_image_too_narrow_for_any_ratio_gives_its_centre() {
        let mut draws = Draws::new(Purpose::Augmentation, 0, 0, 0);
        let crop = random_resized_crop((1000, 100), (0.9, 1.0), (0.75, 4.0 / 3.0), &mut draws);
        assert_eq!(crop, Crop { left: 433, top: 0, width: 133, height: 100 });
        let crop = random_resized_crop((1, 1000), (0.9, 1.0), (0.75, 4.0 / 3.0), &mut draws);
        assert_eq!(crop, Crop { left: 0, top: 499, width: 1, height: 1 });
    }
}
