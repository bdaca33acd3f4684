use fastclip_schemas::foreign_json;
use serde_json::{Map, Value};

use super::ReshardOptions;
use super::input::StoredSample;
use crate::duplicates::FingerprintMaker;
use crate::filters::RowFilters;
use crate::pack::PackError;
use crate::pack::prepare::{JSON_MEMBER, Outcome, Prepared};
use crate::picture::PictureMaker;
use crate::rejection::{Reason, Rejection};
use crate::scan::IMAGE_MEMBERS;

/// Makes a sample of a sample. Each thread has its own.
#[derive(Debug)]
pub(super) struct Remaker {
    filters: RowFilters,
    pictures: PictureMaker,
    fingerprints: FingerprintMaker,
}

impl Remaker {
    pub(super) fn new(options: &ReshardOptions) -> Result<Self, PackError> {
        let failed = |error: fastclip_images::DecoderError| PackError::Start {
            what: "a JPEG decoder",
            reason: error.to_string(),
        };
        let max_pixels = options.picture.max_image_pixels;
        Ok(Self {
            filters: options.filters.clone(),
            pictures: PictureMaker::new(options.picture.clone()).map_err(failed)?,
            fingerprints: FingerprintMaker::new(options.duplicates, max_pixels).map_err(failed)?,
        })
    }

    pub(super) fn remake(&mut self, sample: StoredSample) -> Outcome {
        let StoredSample { number, name, members } = sample;
        let members = members.map_err(|message| (Reason::UnreadableFile, message));
        match members.and_then(|members| self.prepare(members, &name)) {
            Ok(prepared) => Outcome::Sample(Box::new(prepared)),
            Err((reason, message)) => {
                Outcome::Rejected(Rejection { row: number, image: name, reason, message })
            }
        }
    }

    fn prepare(
        &mut self,
        mut members: Vec<(String, Vec<u8>)>,
        name: &str,
    ) -> Result<Prepared, (Reason, String)> {
        let data = |extension: &str| {
            let member = members.iter().find(|(name, _)| name == extension);
            member.map(|(_, data)| data.as_slice())
        };
        let mut columns = data(JSON_MEMBER).map(columns).transpose()?;
        let caption = data("txt").map(std::str::from_utf8).transpose();
        let caption = caption.map_err(|error| {
            (Reason::CaptionNotUtf8, format!("not UTF-8 at byte {}", error.valid_up_to()))
        })?;
        let url = columns.as_ref().and_then(|columns| columns.get("url")).and_then(Value::as_str);
        if let Some(broken) = self.filters.check_stored(url, caption) {
            return Err(broken);
        }
        let is_image = |(extension, _): &(String, Vec<u8>)| IMAGE_MEMBERS.contains(&extension.as_str());
        let (mut image_bytes, mut fingerprint) = (0, None);
        // A sample without an image may be made of features, and is passed on as it is.
        if let Some(at) = members.iter().position(is_image) {
            let image = &members[at].1;
            fingerprint = self.fingerprints.make(image);
            let picture =
                self.pictures.make(image).map_err(|failure| (failure.reason.into(), failure.message))?;
            image_bytes = picture.bytes.len() as u64;
            if let Some(columns) = &mut columns {
                columns.insert("width".to_owned(), picture.width.into());
                columns.insert("height".to_owned(), picture.height.into());
            }
            // A member that keeps its bytes keeps its name, too.
            if picture.bytes != members[at].1 {
                members[at].0 = picture.extension.to_owned();
            }
            members[at].1 = picture.bytes;
        }
        if let Some(columns) = &mut columns {
            // Every sample gets a key of its own.
            columns.shift_remove("key");
        }
        Ok(Prepared { name: name.to_owned(), image_bytes, members, columns, fingerprint })
    }
}

fn columns(json: &[u8]) -> Result<Map<String, Value>, (Reason, String)> {
    foreign_json(json)
        .map_err(|error| (Reason::MalformedRow, format!("its JSON member is no object: {error}")))
}
