//! What Pillow makes of the same images: the proof of [`Quality::Exact`](super::Quality), and the distance of `Fast`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use fastclip_schemas::SampleId;
use fastclip_testkit::Python;
use tempfile::TempDir;

use super::colour::{self, Planes};
use super::crop::random_resized_crop;
use super::*;
use crate::plan::{Draws, Purpose};
use fastclip_images::ImageDecoder;

const SCRIPT: &str = include_str!("../../testdata/pillow.py");
const SIZE: u32 = 224;

fn python(command: &str, folder: &Path, rest: &[&str]) {
    let folder = folder.to_str().unwrap();
    Python::new().run(SCRIPT, &[&[command, folder], rest].concat());
}

fn augmentation(number: u64) -> Augmentation {
    Augmentation { seed: 3, epoch: 1, sample: SampleId(number) }
}

/// A file as batches would hold it.
fn load(
    transformer: &mut ImageTransformer,
    decoder: &mut ImageDecoder,
    bytes: &[u8],
    (transform, quality): (&Transform, Quality),
    number: u64,
) -> (Vec<u8>, u32) {
    let opened = decoder.open(bytes).unwrap();
    let plan =
        transformer.plan(opened.size(), transform, augmentation(number), quality, opened.is_scalable());
    let shrink = plan.part.shrink;
    let window = opened.decode(&plan.part).unwrap();
    let mut planes = vec![0; transform.image_bytes()];
    transformer.render(plan, window, transform, &mut planes);
    (planes, shrink)
}

fn psnr(one: &[u8], other: &[u8]) -> f64 {
    let squares: u64 = one.iter().zip(other).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    let mean = squares as f64 / one.len() as f64;
    // Equal images count as the most that bytes can tell.
    10.0 * (255.0 * 255.0 / mean.max(1e-3)).log10()
}

#[test]
fn exact_is_pillow_bit_for_bit_and_fast_is_close_to_it() {
    const NUM_IMAGES: u64 = 500;
    let folder = TempDir::new().unwrap();
    python("photos", folder.path(), &[&NUM_IMAGES.to_string()]);
    let crops = TrainTransform { scale: (0.25, 1.0), ..TrainTransform::new(SIZE) };
    let eval = |resize, fill| Transform::Eval(EvalTransform { resize, fill, ..EvalTransform::new(SIZE) });
    let transforms = [
        ("train", Transform::train(SIZE)),
        ("train", crops.into()),
        ("shortest", Transform::eval(SIZE)),
        ("shortest", Transform::eval(SIZE)),
        ("longest", eval(ResizeMode::Longest, [9, 8, 7])),
        ("squash", eval(ResizeMode::Squash, [0; 3])),
    ];
    let files: Vec<String> = (0..NUM_IMAGES).map(|number| format!("{number:04}.jpg")).collect();
    // Every image with two of the transforms.
    let chosen = |number: u64| [transforms[number as usize % 2], transforms[2 + number as usize % 4]];
    let mut decoder = ImageDecoder::new().unwrap();
    let mut plan = String::new();
    for (number, file) in (0..).zip(&files) {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        let image = decoder.decode(&bytes).unwrap();
        for (mode, transform) in chosen(number) {
            write!(plan, "{file} {mode} {SIZE} ").unwrap();
            if let Transform::Train(TrainTransform { scale, ratio, .. }) = transform {
                let Augmentation { seed, epoch, sample } = augmentation(number);
                let mut draws = Draws::new(Purpose::Augmentation, seed, epoch, sample.0);
                let crop = random_resized_crop((image.width, image.height), scale, ratio, &mut draws);
                write!(plan, "{} {} {} {}", crop.left, crop.top, crop.width, crop.height).unwrap();
            }
            plan.push('\n');
        }
    }
    fs::write(folder.path().join("plan.txt"), plan).unwrap();
    python("transform", folder.path(), &[]);
    let read = |name| fs::read(folder.path().join(name)).unwrap();
    let (expected, installed) = (read("expected"), read("installed"));
    // Pillow 13 runs the passes in the other order where the height shrinks by twice as many pixels as the width.
    let mut differences = [0_u64; 256];
    for (&one, &other) in expected.iter().zip(&installed) {
        differences[usize::from(one.abs_diff(other))] += 1;
    }
    let mean = differences.iter().zip(0_u64..).map(|(count, by)| count * by).sum::<u64>() as f64
        / expected.len() as f64;
    let beyond_three: u64 = differences[4..].iter().sum();
    println!("the installed Pillow: mean {mean:.4}, {beyond_three} of {} values beyond 3", expected.len());
    assert!(mean <= 0.3 && beyond_three * 1000 <= expected.len() as u64);
    let mut expected = expected.chunks_exact(transforms[0].1.image_bytes());

    let mut transformer = ImageTransformer::new();
    let mut ratios = Vec::new();
    for (number, file) in (0..).zip(&files) {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        for (mode, transform) in chosen(number) {
            let mut load =
                |quality| load(&mut transformer, &mut decoder, &bytes, (&transform, quality), number);
            let (exact, _) = load(Quality::Exact);
            let expected = expected.next().unwrap();
            let num_different = exact.iter().zip(expected).filter(|(a, b)| a != b).count();
            assert_eq!(num_different, 0, "values of {file} with {mode}");
            let (fast, shrink) = load(Quality::Fast);
            if shrink == 1 {
                assert!(fast == exact, "{file} with {mode} is not decoded smaller");
            } else {
                ratios.push(psnr(&fast, &exact));
            }
        }
    }
    assert!(ratios.len() > 100, "{} images were decoded smaller", ratios.len());
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let least = ratios.iter().copied().fold(f64::MAX, f64::min);
    println!("{} images decoded smaller: mean {mean:.1} dB, least {least:.1} dB", ratios.len());
    assert!(mean >= 38.0 && least >= 30.0, "mean {mean:.1} dB, least {least:.1} dB");
}

#[test]
fn images_of_every_kind_are_what_pillow_shows() {
    let folder = TempDir::new().unwrap();
    python("kinds", folder.path(), &[]);
    let mut num_kinds = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".rgb") {
            continue;
        }
        num_kinds += 1;
        let expected = fs::read(path.with_file_name(format!("{name}.rgb"))).unwrap();
        let image = crate::decode_rgb(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((image.width, image.height), (97, 61), "{name}");
        // Laying over white rounds differently, and WebP and AVIF leave to decoders how they interpolate colours.
        let (tolerance, mean_tolerance) = match name.as_str() {
            "rgba.png" | "grey-alpha.png" | "rgba.webp" => (1, 1.0),
            "lossy.webp" => (6, 1.0),
            "full.avif" | "rgba.avif" => (2, 0.5),
            "half.avif" | "quarter.avif" => (255, 3.0),
            _ => (0, 0.0),
        };
        let differences = image.pixels.iter().zip(&expected).map(|(&a, &b)| a.abs_diff(b));
        let worst = differences.clone().max().unwrap();
        let mean = differences.map(f64::from).sum::<f64>() / expected.len() as f64;
        println!("{name}: {worst} at most, {mean:.3} on average");
        assert!(worst <= tolerance && mean <= mean_tolerance, "{name} differs by {worst}, {mean} on average");
    }
    assert_eq!(num_kinds, 28);
}

#[test]
fn colours_change_as_in_pillow() {
    const SIDE: usize = 256;
    let folder = TempDir::new().unwrap();
    let mut draws = Draws::new(Purpose::Augmentation, 0, 0, 0);
    let pixels: Vec<u8> = (0..3 * SIDE * SIDE).map(|_| draws.below(256) as u8).collect();
    fs::write(folder.path().join("pixels"), &pixels).unwrap();
    type Change = fn(&mut Planes<'_>, f32);
    let changes: [(&str, Change, &[f32]); 5] = [
        ("brightness", colour::change_brightness, &[0.0, 0.625, 1.0, 1.75]),
        ("contrast", colour::change_contrast, &[0.0, 0.625, 1.0, 1.75]),
        ("saturation", colour::change_saturation, &[0.0, 0.625, 1.0, 1.75]),
        ("hue", |planes, turn| colour::turn_hue(planes, f64::from(turn)), &[-0.5, -0.125, 0.0, 0.375]),
        ("grey", |planes, _| colour::remove(planes), &[0.0]),
    ];
    let all = || {
        changes.iter().flat_map(|&(name, change, factors)| factors.iter().map(move |&f| (name, change, f)))
    };
    let plan: String = all().map(|(name, _, factor)| format!("{name} {factor}\n")).collect();
    fs::write(folder.path().join("plan.txt"), plan).unwrap();
    python("colour", folder.path(), &[]);
    let expected = fs::read(folder.path().join("expected")).unwrap();
    for ((name, change, factor), expected) in all().zip(expected.chunks_exact(pixels.len())) {
        let mut planes = pixels.clone();
        change(&mut Planes::new(&mut planes), factor);
        let num_different = planes.iter().zip(expected).filter(|(a, b)| a != b).count();
        assert_eq!(num_different, 0, "values after {name} by {factor}");
    }
}
