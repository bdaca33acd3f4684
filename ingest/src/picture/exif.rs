use std::io::Cursor;

use exif::{In, Reader};
use serde_json::{Map, Value};

/// Longest record that is kept. Cameras write some kilobytes; a maker's note or a thumbnail may take megabytes.
const MAX_BYTES: usize = 1 << 14;

/// The EXIF record of an image as a JSON object of texts, as img2dataset keeps it. Nothing where there is none that can be
/// read.
pub(super) fn record(bytes: &[u8]) -> Option<String> {
    let exif = Reader::new().read_from_container(&mut Cursor::new(bytes)).ok()?;
    let fields = exif.fields().filter(|field| field.ifd_num == In::PRIMARY);
    let fields: Map<String, Value> =
        fields.map(|field| (field.tag.to_string(), field.display_value().to_string().into())).collect();
    let record = Value::Object(fields).to_string();
    (record.len() <= MAX_BYTES).then_some(record)
}
