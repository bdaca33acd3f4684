use std::fmt;

use fastclip_images::ImageDecoder;
use fastclip_shards::Sample;
use serde::Serialize;

use super::histogram::Histogram;
use crate::scan::IMAGE_MEMBERS;

/// Pixels of a side.
const SIDES: [u64; 13] = [32, 64, 96, 128, 160, 224, 256, 288, 336, 384, 512, 768, 1024];

/// Hundreds stand for squares.
const ASPECTS: [u64; 11] = [25, 33, 50, 67, 80, 99, 100, 125, 150, 200, 300];

/// Bytes of a file.
const FILE_BYTES: [u64; 10] =
    [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20];

/// Characters of a caption.
const CAPTION_CHARS: [u64; 9] = [0, 8, 16, 32, 64, 128, 256, 512, 1024];

/// What samples are like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SampleStats {
    /// Samples that were looked at.
    pub num_samples: u64,
    /// Their bytes in the tar, headers and padding included.
    pub num_bytes: u64,
    /// Samples whose members cannot be found in the tar.
    pub num_damaged: u64,
    /// Samples without an image member.
    pub num_without_image: u64,
    /// Samples whose image has no header that can be read.
    pub num_unreadable_images: u64,
    /// Samples without a caption.
    pub num_without_caption: u64,
    /// Samples whose caption is nothing but white space.
    pub num_empty_captions: u64,
    /// Pixels of a row.
    pub width: Histogram,
    /// Rows.
    pub height: Histogram,
    /// Width by height, in hundredths.
    pub aspect_percent: Histogram,
    /// Sizes of the image files.
    pub image_bytes: Histogram,
    /// Lengths of the captions in characters.
    pub caption_chars: Histogram,
}

impl SampleStats {
    pub(super) fn new() -> Self {
        Self {
            num_samples: 0,
            num_bytes: 0,
            num_damaged: 0,
            num_without_image: 0,
            num_unreadable_images: 0,
            num_without_caption: 0,
            num_empty_captions: 0,
            width: Histogram::new(&SIDES),
            height: Histogram::new(&SIDES),
            aspect_percent: Histogram::new(&ASPECTS),
            image_bytes: Histogram::new(&FILE_BYTES),
            caption_chars: Histogram::new(&CAPTION_CHARS),
        }
    }

    pub(super) fn add(&mut self, sample: &Sample<'_>, decoder: &mut ImageDecoder) {
        match IMAGE_MEMBERS.iter().find_map(|extension| sample.member(extension)) {
            Some(image) => self.add_image(image, decoder),
            None => self.num_without_image += 1,
        }
        match sample.member("txt") {
            Some(caption) => {
                let caption = String::from_utf8_lossy(caption);
                self.num_empty_captions += u64::from(caption.trim().is_empty());
                self.caption_chars.add(caption.trim().chars().count() as u64);
            }
            None => self.num_without_caption += 1,
        }
    }

    fn add_image(&mut self, image: &[u8], decoder: &mut ImageDecoder) {
        self.image_bytes.add(image.len() as u64);
        let Ok(opened) = decoder.open(image) else {
            self.num_unreadable_images += 1;
            return;
        };
        let (width, height) = opened.size();
        self.width.add(u64::from(width));
        self.height.add(u64::from(height));
        // An image that opens has pixels, so its height is not 0.
        self.aspect_percent.add((100 * u64::from(width) + u64::from(height) / 2) / u64::from(height));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.num_samples += other.num_samples;
        self.num_bytes += other.num_bytes;
        self.num_damaged += other.num_damaged;
        self.num_without_image += other.num_without_image;
        self.num_unreadable_images += other.num_unreadable_images;
        self.num_without_caption += other.num_without_caption;
        self.num_empty_captions += other.num_empty_captions;
        self.width.merge(&other.width);
        self.height.merge(&other.height);
        self.aspect_percent.merge(&other.aspect_percent);
        self.image_bytes.merge(&other.image_bytes);
        self.caption_chars.merge(&other.caption_chars);
    }
}

/// What a dataset is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatsReport {
    /// Where it lies, without credentials.
    pub location: String,
    /// Shards of the dataset.
    pub num_shards: usize,
    /// Names of those that were read, where not all were.
    pub sampled_shards: Option<Vec<String>>,
    /// What the samples of the shards that were read are like.
    pub samples: SampleStats,
}

impl StatsReport {
    /// The report as a file that other programs read.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a report is text and numbers")
    }
}

impl fmt::Display for StatsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, num_shards, samples, .. } = self;
        let num_read = self.sampled_shards.as_ref().map_or(*num_shards, Vec::len);
        let (num_samples, num_bytes) = (samples.num_samples, samples.num_bytes);
        write!(
            f,
            "{num_samples} samples with {num_bytes} bytes in {num_read} of {num_shards} shards of `{location}`"
        )?;
        for (count, what) in [
            (samples.num_damaged, "are damaged in the tar"),
            (samples.num_without_image, "have no image"),
            (samples.num_unreadable_images, "have an image whose header cannot be read"),
            (samples.num_without_caption, "have no caption"),
            (samples.num_empty_captions, "have an empty caption"),
        ] {
            if count > 0 {
                write!(f, "\n{count} samples {what}")?;
            }
        }
        for (name, histogram) in [
            ("width in pixels", &samples.width),
            ("height in pixels", &samples.height),
            ("100 × width / height", &samples.aspect_percent),
            ("bytes of an image", &samples.image_bytes),
            ("characters of a caption", &samples.caption_chars),
        ] {
            write!(f, "\n\n{name}: {histogram}")?;
        }
        Ok(())
    }
}
