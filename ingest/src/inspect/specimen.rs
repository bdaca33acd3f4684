use fastclip_images::DecoderError;
use fastclip_schemas::SampleId;
use fastclip_shards::Sample;

use crate::picture::{PictureMaker, PictureOptions, ResizeMode};
use crate::scan::IMAGE_MEMBERS;

/// Longer side of a picture on the page: the width of a card on a screen with two pixels per point, nearly.
const SIZE: u32 = 384;
const QUALITY: u8 = 80;

/// A sample that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specimen {
    /// Its id.
    pub id: SampleId,
    /// Its key.
    pub key: String,
    /// Name of the shard that holds it.
    pub shard: String,
    /// Its caption, if it has one.
    pub caption: Option<String>,
    /// Extension and size in bytes of each member.
    pub members: Vec<(String, u64)>,
    /// Its image made small, or why there is none.
    pub picture: Result<Thumbnail, String>,
}

/// An image made small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// The small image.
    pub jpeg: Vec<u8>,
    /// Pixels of a row of the image itself.
    pub width: u32,
    /// Rows of the image itself.
    pub height: u32,
    /// Size of its file.
    pub num_bytes: u64,
}

/// Makes what is shown of samples.
pub(super) struct SpecimenMaker {
    pictures: PictureMaker,
}

impl SpecimenMaker {
    pub(super) fn new() -> Result<Self, DecoderError> {
        let options = PictureOptions {
            image_size: SIZE,
            resize_mode: ResizeMode::KeepRatioLargest,
            resize_only_if_bigger: true,
            encode_quality: QUALITY,
            ..PictureOptions::default()
        };
        Ok(Self { pictures: PictureMaker::new(options)? })
    }

    pub(super) fn make(&mut self, sample: &Sample<'_>, shard: &str) -> Specimen {
        let caption = sample.member("txt").map(|text| String::from_utf8_lossy(text).trim().to_owned());
        Specimen {
            id: sample.id(),
            key: sample.key().to_owned(),
            shard: shard.to_owned(),
            caption,
            members: sample.members().map(|(name, data)| (name.to_owned(), data.len() as u64)).collect(),
            picture: self.picture(sample),
        }
    }

    fn picture(&mut self, sample: &Sample<'_>) -> Result<Thumbnail, String> {
        let image = IMAGE_MEMBERS.iter().find_map(|extension| sample.member(extension));
        let image = image.ok_or("it has no image")?;
        let picture = self.pictures.make(image).map_err(|failure| failure.message)?;
        Ok(Thumbnail {
            jpeg: picture.bytes,
            width: picture.original_width,
            height: picture.original_height,
            num_bytes: image.len() as u64,
        })
    }
}
