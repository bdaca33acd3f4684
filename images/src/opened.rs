use super::jpeg::OpenedJpeg;
use super::{DecodeError, ImageDecoder, Part, Window};

/// An image of which as much has been read as must be to know its size.
#[derive(Debug)]
pub struct OpenedImage<'a> {
    pub(super) decoder: &'a mut ImageDecoder,
    /// Nothing where the image has been decoded already.
    pub(super) jpeg: Option<OpenedJpeg<'a>>,
}

impl<'a> OpenedImage<'a> {
    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        match &self.jpeg {
            Some(jpeg) => jpeg.size(),
            None => (self.decoder.image.width, self.decoder.image.height),
        }
    }

    /// Whether it can be decoded at a fraction of its size, in less time.
    pub fn is_scalable(&self) -> bool {
        self.jpeg.as_ref().is_some_and(OpenedJpeg::has_parts)
    }

    /// Decodes a window around a part, which lies in the image.
    ///
    /// # Errors
    /// When the image is damaged.
    pub fn decode(self, part: &Part) -> Result<Window<'a>, DecodeError> {
        let Self { decoder, jpeg } = self;
        let (left, top) = match jpeg {
            Some(jpeg) => {
                let decoded = decoder.jpeg.decode(&jpeg, part, &decoder.options, &mut decoder.image)?;
                (decoded.columns.start, decoded.rows.start)
            }
            None => (0, 0),
        };
        let image = &decoder.image;
        Ok(Window { bytes: &image.pixels, left, top, width: image.width, height: image.height })
    }
}
