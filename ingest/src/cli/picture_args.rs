use clap::ValueEnum;
use fastclip_ingest::{EncodeFormat, PictureOptions, ResizeMode};

/// Which images are taken, and what becomes of them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Images")]
pub(super) struct PictureArgs {
    /// Size that --resize-mode means, in pixels
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    image_size: u32,
    /// What becomes of an image's size
    #[arg(long, value_enum, default_value_t = Mode::Border)]
    resize_mode: Mode,
    /// Leave smaller images as small as they are
    #[arg(long)]
    resize_only_if_bigger: bool,
    /// How images are stored
    #[arg(long, value_enum, default_value_t = Format::Jpg)]
    encode_format: Format,
    /// Quality of jpg and webp, from 1 to 100. Training reads 85 half as fast again as 95
    #[arg(long, value_name = "N", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    encode_quality: u8,
    /// Decode JPEGs whose bytes are kept too, to refuse damaged ones; otherwise a header and an end are enough
    #[arg(long)]
    decode_kept: bool,
    /// Least pixels of the shorter side
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_image_size: u32,
    /// Most pixels of an image [default: no limit but --max-image-pixels]
    #[arg(long, value_name = "N")]
    max_image_area: Option<u64>,
    /// Most times that the longer side is longer than the shorter one
    #[arg(long, value_name = "RATIO")]
    max_aspect_ratio: Option<f64>,
    /// Pixels of an image by its header, beyond which it is not decoded
    #[arg(long, value_name = "N", default_value_t = PictureOptions::default().max_image_pixels)]
    max_image_pixels: u64,
}

/// [`ResizeMode`] on a command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Mode {
    /// The longer side becomes the size, white makes a square of it
    Border,
    /// The shorter side becomes the size
    KeepRatio,
    /// The longer side becomes the size
    KeepRatioLargest,
    /// The shorter side becomes the size, and the middle square is taken
    CenterCrop,
    /// It stays
    No,
}

/// [`EncodeFormat`] on a command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Jpg,
    Png,
    Webp,
}

impl PictureArgs {
    /// `skip_reencode` keeps the bytes of images that need no resizing.
    pub(super) fn resolve(self, skip_reencode: bool) -> PictureOptions {
        PictureOptions {
            image_size: self.image_size,
            resize_mode: match self.resize_mode {
                Mode::Border => ResizeMode::Border,
                Mode::KeepRatio => ResizeMode::KeepRatio,
                Mode::KeepRatioLargest => ResizeMode::KeepRatioLargest,
                Mode::CenterCrop => ResizeMode::CenterCrop,
                Mode::No => ResizeMode::No,
            },
            resize_only_if_bigger: self.resize_only_if_bigger,
            encode_format: match self.encode_format {
                Format::Jpg => EncodeFormat::Jpg,
                Format::Png => EncodeFormat::Png,
                Format::Webp => EncodeFormat::Webp,
            },
            encode_quality: self.encode_quality,
            skip_reencode,
            decode_kept: self.decode_kept,
            min_image_size: self.min_image_size,
            max_image_area: self.max_image_area,
            max_aspect_ratio: self.max_aspect_ratio,
            max_image_pixels: self.max_image_pixels,
        }
    }
}
