//! Images small enough to be part of a page.

use fastclip_loader::{Augmentation, ImageTransformer, Transform, decode_rgb};
use fastclip_schemas::SampleId;
use turbojpeg::{Image, PixelFormat, Subsamp};

use crate::metrics::Picture;

/// Extensions of images that browsers show, and what they call them.
pub(super) const MEDIA_TYPES: [(&str, &str); 4] =
    [("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("png", "image/png"), ("webp", "image/webp")];

/// A file up to this size goes into the page as it is; 48 of them make 2 MB at most.
const MAX_BYTES: usize = 32 << 10;

/// Side of what a larger one is shrunk to: the width of a card on a screen with two pixels per point, nearly.
const SIZE: u32 = 384;

const QUALITY: i32 = 82;

/// Returns an image as a `data:` address, shrunk if it is large.
pub(super) fn data_url(media: &str, bytes: &[u8]) -> String {
    let shrunk = if bytes.len() > MAX_BYTES { shrink(bytes) } else { None };
    match shrunk {
        Some(Picture { jpeg, .. }) => fastclip_pages::data_url("image/jpeg", &jpeg),
        None => fastclip_pages::data_url(media, bytes),
    }
}

/// Makes the square that the model sees, in more pixels. Nothing if that fails: the browser may then know better, and a
/// report is not the place to lose a run for an image.
pub(super) fn shrink(bytes: &[u8]) -> Option<Picture> {
    let image = decode_rgb(bytes).ok()?;
    let side = SIZE.min(image.width.min(image.height));
    let transform = Transform::eval(side);
    let mut planes = vec![0; transform.image_bytes()];
    let unused = Augmentation { seed: 0, epoch: 0, sample: SampleId(0) };
    ImageTransformer::new().transform(&image, &transform, unused, &mut planes);
    let size = side as usize;
    let plane = size * size;
    let pixels: Vec<u8> =
        (0..plane).flat_map(|pixel| [0, 1, 2].map(|channel| planes[channel * plane + pixel])).collect();
    let image =
        Image { pixels: &pixels[..], width: size, pitch: 3 * size, height: size, format: PixelFormat::RGB };
    Some(Picture { jpeg: turbojpeg::compress(image, QUALITY, Subsamp::Sub2x2).ok()?.to_vec(), side })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use fastclip_testkit::Pair;

    use super::*;

    #[test]
    fn a_small_image_stays_as_it_is_and_a_large_one_shrinks() {
        let small = Pair::new(3, 32).jpeg;
        assert_eq!(
            data_url("image/jpeg", &small),
            format!("data:image/jpeg;base64,{}", STANDARD.encode(&small))
        );

        let large = Pair::new(3, 2000).jpeg;
        assert!(large.len() > MAX_BYTES);
        let shrunk = data_url("image/png", &large);
        let shrunk = STANDARD.decode(shrunk.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let header = turbojpeg::read_header(&shrunk).unwrap();
        assert_eq!((header.width, header.height), (384, 384));
        assert!(shrunk.len() < MAX_BYTES, "{} bytes", shrunk.len());
    }

    #[test]
    fn a_large_file_that_is_no_image_is_left_to_the_browser() {
        let noise = vec![7; MAX_BYTES + 1];
        assert!(data_url("image/webp", &noise).starts_with("data:image/webp;base64,BwcH"));
    }
}
