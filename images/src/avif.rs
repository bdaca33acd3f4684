use avif_decode::{Decoder, Image};
use avif_parse::AvifData;
use image::{DynamicImage, GrayImage, ImageBuffer, RgbImage, RgbaImage};

use super::{DecodeError, DecodeOptions};

/// Decodes an AVIF image, once the headers of its colours and of its transparency have been found small enough.
pub(super) fn read(bytes: &[u8], options: &DecodeOptions) -> Result<DynamicImage, DecodeError> {
    let container = AvifData::from_reader(&mut &*bytes).map_err(damaged)?;
    let colours = container.primary_item_metadata().map_err(damaged)?;
    let transparency = container.alpha_item_metadata().map_err(damaged)?;
    for item in std::iter::once(&colours).chain(&transparency) {
        options.check_size(item.max_frame_width.get().into(), item.max_frame_height.get().into())?;
    }
    let decoded = Decoder::from_avif(bytes).and_then(Decoder::to_image).map_err(damaged)?;
    dynamic(decoded).ok_or_else(|| damaged("its size and its pixels do not agree"))
}

fn dynamic(decoded: Image) -> Option<DynamicImage> {
    let side = |length: usize| u32::try_from(length).ok();
    Some(match decoded {
        Image::Gray8(image) => {
            let values = image.pixels().map(|pixel| pixel.value()).collect();
            GrayImage::from_raw(side(image.width())?, side(image.height())?, values)?.into()
        }
        Image::Gray16(image) => {
            let values = image.pixels().map(|pixel| pixel.value()).collect();
            ImageBuffer::from_raw(side(image.width())?, side(image.height())?, values)
                .map(DynamicImage::ImageLuma16)?
        }
        Image::Rgb8(image) => {
            let values = image.pixels().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect();
            RgbImage::from_raw(side(image.width())?, side(image.height())?, values)?.into()
        }
        Image::Rgb16(image) => {
            let values = image.pixels().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect();
            ImageBuffer::from_raw(side(image.width())?, side(image.height())?, values)
                .map(DynamicImage::ImageRgb16)?
        }
        Image::Rgba8(image) => {
            let values = image.pixels().flat_map(|pixel| [pixel.r, pixel.g, pixel.b, pixel.a]).collect();
            RgbaImage::from_raw(side(image.width())?, side(image.height())?, values)?.into()
        }
        Image::Rgba16(image) => {
            let values = image.pixels().flat_map(|pixel| [pixel.r, pixel.g, pixel.b, pixel.a]).collect();
            ImageBuffer::from_raw(side(image.width())?, side(image.height())?, values)
                .map(DynamicImage::ImageRgba16)?
        }
    })
}

fn damaged(error: impl ToString) -> DecodeError {
    DecodeError::Damaged { detail: error.to_string() }
}
