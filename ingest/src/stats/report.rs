use std::fmt;
use std::sync::Arc;

use fastclip_images::{DecoderError, ImageDecoder};
use fastclip_shards::Sample;
use instant_clip_tokenizer::{Token, Tokenizer};
use serde::Serialize;

use super::histogram::Histogram;
use crate::scan::IMAGE_MEMBERS;
use crate::tables::RowStats;

/// Pixels of a side.
const SIDES: [u64; 13] = [32, 64, 96, 128, 160, 224, 256, 288, 336, 384, 512, 768, 1024];

/// Hundreds stand for squares.
const ASPECTS: [u64; 11] = [25, 33, 50, 67, 80, 99, 100, 125, 150, 200, 300];

/// Bytes of a file.
const FILE_BYTES: [u64; 10] =
    [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20];

/// Characters of a caption.
const CAPTION_CHARS: [u64; 9] = [0, 8, 16, 32, 64, 128, 256, 512, 1024];

/// CLIP tokens of a caption. The last bound is what the models read.
const CAPTION_TOKENS: [u64; 9] = [4, 8, 12, 16, 24, 32, 48, 64, CONTEXT_TOKENS];

/// Tokens that the text encoders of CLIP read, start and end included.
const CONTEXT_TOKENS: u64 = 77;

/// Characters of a caption that are looked at for its tokens: whatever follows is far beyond what is read.
const MAX_TOKENIZED_CHARS: usize = 2000;

/// Looks at samples, keeping its memory between them.
pub(crate) struct SampleReader {
    decoder: ImageDecoder,
    tokenizer: Arc<Tokenizer>,
    tokens: Vec<Token>,
}

impl SampleReader {
    /// Many can share a tokenizer, which takes a while to make.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, DecoderError> {
        Ok(Self { decoder: ImageDecoder::new()?, tokenizer, tokens: Vec::new() })
    }

    /// Tokens of a caption with its start and end. It is not cleaned before, as it is for training, which hardly changes the
    /// number.
    fn num_tokens(&mut self, caption: &str) -> u64 {
        let end = caption.char_indices().nth(MAX_TOKENIZED_CHARS).map_or(caption.len(), |(at, _)| at);
        self.tokens.clear();
        self.tokenizer.encode(&caption[..end], &mut self.tokens);
        self.tokens.len() as u64 + 2
    }
}

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
    /// Lengths of the captions in tokens of CLIP, start and end included. Models do not see what is in the last range.
    pub caption_tokens: Histogram,
}

impl SampleStats {
    pub(crate) fn new() -> Self {
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
            caption_tokens: Histogram::new(&CAPTION_TOKENS),
        }
    }

    pub(crate) fn add(&mut self, sample: &Sample<'_>, reader: &mut SampleReader) {
        self.num_samples += 1;
        match IMAGE_MEMBERS.iter().find_map(|extension| sample.member(extension)) {
            Some(image) => self.add_image(image, &mut reader.decoder),
            None => self.num_without_image += 1,
        }
        match sample.member("txt") {
            Some(caption) => {
                let caption = String::from_utf8_lossy(caption);
                self.num_empty_captions += u64::from(caption.trim().is_empty());
                self.caption_chars.add(caption.trim().chars().count() as u64);
                self.caption_tokens.add(reader.num_tokens(caption.trim()));
            }
            None => self.num_without_caption += 1,
        }
    }

    pub(crate) fn add_damaged(&mut self) {
        self.num_samples += 1;
        self.num_damaged += 1;
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

    pub(crate) fn merge(&mut self, other: &Self) {
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
        self.caption_tokens.merge(&other.caption_tokens);
    }

    /// Captions of which models see the beginning only.
    pub fn num_cut_captions(&self) -> u64 {
        self.caption_tokens.counts.last().copied().unwrap_or_default()
    }

    /// What samples lack or suffer from: how many, and what.
    pub fn faults(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let faults = [
            (self.num_damaged, "are damaged in the tar"),
            (self.num_without_image, "have no image"),
            (self.num_unreadable_images, "have an image whose header cannot be read"),
            (self.num_without_caption, "have no caption"),
            (self.num_empty_captions, "have an empty caption"),
        ];
        faults.into_iter().filter(|(count, _)| *count > 0)
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
    /// What became of the rows of the list, where tables beside these shards tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowStats>,
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
        for (count, what) in samples.faults() {
            write!(f, "\n{count} samples {what}")?;
        }
        for (name, histogram) in [
            ("width in pixels", &samples.width),
            ("height in pixels", &samples.height),
            ("100 × width / height", &samples.aspect_percent),
            ("bytes of an image", &samples.image_bytes),
            ("characters of a caption", &samples.caption_chars),
            ("CLIP tokens of a caption", &samples.caption_tokens),
        ] {
            write!(f, "\n\n{name}: {histogram}")?;
        }
        match &self.rows {
            Some(rows) => write!(f, "\n\n{rows}"),
            None => Ok(()),
        }
    }
}
