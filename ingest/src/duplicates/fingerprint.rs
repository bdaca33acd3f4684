use fastclip_images::{DecodeOptions, DecoderError, ImageDecoder};
use serde::{Deserialize, Serialize};

use super::DuplicateOptions;
use super::picture_hash::picture_hash;

/// What two images are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Of the bytes.
    pub(crate) content: u64,
    /// Of what they show; nothing if it is not compared, or there is too little to see.
    pub(crate) picture: Option<u64>,
}

/// Makes fingerprints of images. Each thread has its own.
#[derive(Debug)]
pub(crate) struct FingerprintMaker {
    options: DuplicateOptions,
    decoder: Option<ImageDecoder>,
}

impl FingerprintMaker {
    /// Images with more pixels than that are not decoded, and not compared by what they show.
    pub(crate) fn new(options: DuplicateOptions, max_pixels: u64) -> Result<Self, DecoderError> {
        let decoding = DecodeOptions { max_pixels, turn_upright: true, ..DecodeOptions::default() };
        let decoder =
            options.drop_near_duplicates.map(|_| ImageDecoder::with_options(decoding)).transpose()?;
        Ok(Self { options, decoder })
    }

    /// Nothing if nobody asks for it.
    pub(crate) fn make(&mut self, image: &[u8]) -> Option<Fingerprint> {
        self.options.is_any().then(|| Fingerprint {
            content: content_hash(image),
            picture: self.decoder.as_mut().and_then(|decoder| picture_hash(decoder, image)),
        })
    }
}

/// 64 bits of BLAKE3, which nobody can make two texts for at will.
pub(crate) fn content_hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}
