//! TensorBoard event files, written by hand.
//!
//! A file is a row of TFRecords, each an `Event` in protobuf. We need a few fields of some messages, which is less than
//! a protobuf crate with generated code would cost: its schema, its build step and a second crc32c.
//!
//! ```text
//! record   u64 length | u32 masked crc32c of length | data | u32 masked crc32c of data      all little-endian
//! Event    1: double wall_time   2: int64 step   3: string file_version   5: Summary   7: SessionLog
//! Summary  1: repeated Value { 1: string tag   2: float simple_value   4: Image   5: Histogram   8: Tensor   9: Metadata }
//! Image      1: int32 height   2: int32 width   3: int32 colorspace (3 = RGB)   4: bytes encoded_image_string
//! Histogram  1: double min   2: double max   3: double num   4: double sum   5: double sum_squares
//!            6: packed double bucket_limit   7: packed double bucket
//! Tensor     1: enum dtype (7 = string)   2: Shape { 2: Dim { 1: int64 size } }   8: repeated bytes string_val
//! Metadata   1: PluginData { 1: string plugin_name }
//! SessionLog  1: enum status (1 = START)
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Histogram, Picture};

/// Writes one event file. Each event reaches the operating system before the call returns.
#[derive(Debug)]
pub(super) struct EventWriter {
    path: PathBuf,
    file: File,
    num_bytes: u64,
}

impl EventWriter {
    /// Starts a new file in `folder` that makes readers forget what earlier files say of steps from `first_step` on.
    pub(super) fn create(folder: &Path, first_step: u64, now: SystemTime) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        // Readers go through the files in the order of their names. A run that is resumed within the second, or after
        // the clock was set back, must still come after the session before it.
        let newest = newest_second(folder)?;
        let second = newest.map_or(since_epoch.as_secs(), |newest| since_epoch.as_secs().max(newest + 1));
        let path = folder.join(format!("{FILE_PREFIX}{second:010}.fastclip"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let mut writer = Self { path, file, num_bytes: 0 };
        writer.event(since_epoch, 0, |event| event.bytes(3, b"brain.Event:2"))?;
        writer.event(since_epoch, first_step, |event| {
            event.message(7, |session| session.varint(1, 1));
        })?;
        Ok(writer)
    }

    /// Returns where the file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes named values of one step.
    pub(super) fn scalars(
        &mut self,
        step: u64,
        now: SystemTime,
        scalars: &[(&'static str, f64)],
    ) -> io::Result<()> {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.event(since_epoch, step, |event| {
            event.message(5, |summary| {
                for (tag, value) in scalars {
                    summary.message(1, |entry| {
                        entry.bytes(1, tag.as_bytes());
                        entry.float(2, *value as f32);
                    });
                }
            });
        })
    }

    /// Writes how many values of one step lie in each of some ranges.
    pub(super) fn histogram(
        &mut self,
        step: u64,
        now: SystemTime,
        tag: &str,
        histogram: &Histogram,
    ) -> io::Result<()> {
        self.value(step, now, tag, |value| {
            value.message(5, |message| {
                let Histogram { min, max, num, sum, sum_squares, limits, counts } = histogram;
                for (field, number) in (1..).zip([min, max, num, sum, sum_squares]) {
                    message.double(field, *number);
                }
                for (field, numbers) in [(6, limits), (7, counts)] {
                    let packed: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                    message.bytes(field, &packed);
                }
            });
        })
    }

    /// Writes an image of one step.
    pub(super) fn image(
        &mut self,
        step: u64,
        now: SystemTime,
        tag: &str,
        picture: &Picture,
    ) -> io::Result<()> {
        self.value(step, now, tag, |value| {
            value.message(4, |image| {
                image.varint(1, picture.side.into());
                image.varint(2, picture.side.into());
                image.varint(3, 3);
                image.bytes(4, &picture.jpeg);
            });
        })
    }

    /// Writes text of one step, in Markdown.
    pub(super) fn text(&mut self, step: u64, now: SystemTime, tag: &str, markdown: &str) -> io::Result<()> {
        self.value(step, now, tag, |value| {
            value.message(9, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"text")));
            value.message(8, |tensor| {
                tensor.varint(1, 7);
                tensor.message(2, |shape| shape.message(2, |dim| dim.varint(1, 1)));
                tensor.bytes(8, markdown.as_bytes());
            });
        })
    }

    fn value(
        &mut self,
        step: u64,
        now: SystemTime,
        tag: &str,
        fill: impl FnOnce(&mut Message),
    ) -> io::Result<()> {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.event(since_epoch, step, |event| {
            event.message(5, |summary| {
                summary.message(1, |value| {
                    value.bytes(1, tag.as_bytes());
                    fill(value);
                });
            });
        })
    }

    fn event(&mut self, time: Duration, step: u64, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        let mut event = Message::default();
        event.double(1, time.as_secs_f64());
        event.varint(2, step);
        fill(&mut event);
        let record = framed(&event.bytes);
        let written = self.file.write_all(&record);
        match written {
            Ok(()) => self.num_bytes += record.len() as u64,
            // A part of a record would hide all that come after it.
            Err(_) => drop(self.file.set_len(self.num_bytes)),
        }
        written
    }
}

const FILE_PREFIX: &str = "events.out.tfevents.";

/// Returns the largest time stamp in the names of the event files in `folder`.
fn newest_second(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let stamp = name.to_str().and_then(|name| name.strip_prefix(FILE_PREFIX)?.split('.').next());
        newest = newest.max(stamp.and_then(|stamp| stamp.parse().ok()));
    }
    Ok(newest)
}

/// Puts `data` into a TFRecord.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// TFRecord masks its checksums because a crc of data that itself holds crcs is weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf message in the making.
#[derive(Debug, Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, field: u8, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u8, value: f64) {
        self.key(field, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.key(field, 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn message(&mut self, field: u8, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.bytes);
    }

    fn key(&mut self, field: u8, wire_type: u8) {
        // Fields up to 15 have keys of one byte; we use none beyond 9.
        self.bytes.push(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a reader finds in an event file.
    #[derive(Debug, PartialEq)]
    pub(in crate::metrics) enum Event {
        Version(String),
        SessionStart {
            step: u64,
        },
        Scalar {
            step: u64,
            tag: String,
            value: f32,
        },
        /// Anything else that has a tag, by the number of its field and the bytes of that.
        Other {
            step: u64,
            tag: String,
            field: u64,
            bytes: Vec<u8>,
        },
    }

    /// A field as protobuf has it on the wire.
    enum Field<'a> {
        Number(u64),
        Bytes(&'a [u8]),
    }

    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(len);
        *bytes = tail;
        head
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Field::Number(varint(&mut bytes)),
                1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let len = varint(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, len))
                }
                5 => Field::Number(u64::from(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()))),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    /// Reads a file as TensorBoard would, checksums included.
    pub(in crate::metrics) fn decode(mut file: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !file.is_empty() {
            let length = take(&mut file, 8);
            assert_eq!(take(&mut file, 4), masked_crc(length).to_le_bytes(), "checksum of a length");
            let data = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(take(&mut file, 4), masked_crc(data).to_le_bytes(), "checksum of an event");
            let event = fields(data);
            let step = event.iter().find_map(|(number, field)| match field {
                Field::Number(step) if *number == 2 => Some(*step),
                _ => None,
            });
            let step = step.expect("every event has its step");
            for (number, field) in event {
                match (number, field) {
                    (3, Field::Bytes(version)) => {
                        events.push(Event::Version(String::from_utf8(version.to_vec()).unwrap()));
                    }
                    (5, Field::Bytes(summary)) => events.extend(scalars(step, summary)),
                    (7, Field::Bytes(session)) => {
                        assert_eq!(session, [8, 1], "a status of START");
                        events.push(Event::SessionStart { step });
                    }
                    _ => {}
                }
            }
        }
        events
    }

    fn scalars(step: u64, summary: &[u8]) -> Vec<Event> {
        let entries = fields(summary).into_iter().map(|(_, field)| match field {
            Field::Bytes(entry) => fields(entry),
            Field::Number(_) => panic!("a summary holds values only"),
        });
        entries
            .map(|entry| match &entry[..] {
                [(1, Field::Bytes(tag)), (2, Field::Number(value))] => Event::Scalar {
                    step,
                    tag: String::from_utf8(tag.to_vec()).unwrap(),
                    value: f32::from_bits(*value as u32),
                },
                [(1, Field::Bytes(tag)), .., (field, Field::Bytes(bytes))] => Event::Other {
                    step,
                    tag: String::from_utf8(tag.to_vec()).unwrap(),
                    field: *field,
                    bytes: bytes.to_vec(),
                },
                _ => panic!("a value has a tag and something more"),
            })
            .collect()
    }

    // Bytes that TensorFlow itself wrote for a length of 24, as every one of its files begins.
    #[test]
    fn the_mask_of_the_checksum_is_that_of_tensorflow() {
        assert_eq!(masked_crc(&24u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn an_event_file_is_read_back_with_intact_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 300, SystemTime::now()).unwrap();
        writer.scalars(301, SystemTime::now(), &[("train/loss", 2.5), ("train/tau", 0.07)]).unwrap();
        writer.scalars(1 << 40, SystemTime::now(), &[("train/loss", -1.0)]).unwrap();
        let scalar = |step, tag: &str, value| Event::Scalar { step, tag: tag.to_owned(), value };
        assert_eq!(
            decode(&std::fs::read(writer.path()).unwrap()),
            [
                Event::Version("brain.Event:2".to_owned()),
                Event::SessionStart { step: 300 },
                scalar(301, "train/loss", 2.5),
                scalar(301, "train/tau", 0.07),
                scalar(1 << 40, "train/loss", -1.0),
            ]
        );
    }

    #[test]
    fn histograms_pictures_and_words_have_the_fields_of_their_messages() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 0, SystemTime::now()).unwrap();
        let histogram = Histogram {
            min: -1.0,
            max: 3.0,
            num: 4.0,
            sum: 2.0,
            sum_squares: 14.0,
            limits: vec![1.0, 3.0],
            counts: vec![3.0, 1.0],
        };
        writer.histogram(7, SystemTime::now(), "u", &histogram).unwrap();
        writer.image(7, SystemTime::now(), "i", &Picture { jpeg: b"jpeg".to_vec(), side: 300 }).unwrap();
        writer.text(7, SystemTime::now(), "t", "**words**").unwrap();
        let events = decode(&std::fs::read(writer.path()).unwrap());
        let found = |index: usize| match &events[2 + index] {
            Event::Other { step: 7, tag, field, bytes } => (tag.clone(), *field, bytes.clone()),
            other => panic!("{other:?}"),
        };
        let double = |value: f64| value.to_le_bytes();
        let (tag, field, bytes) = found(0);
        assert_eq!((&*tag, field), ("u", 5));
        let numbers = fields(&bytes);
        let packed = [[double(1.0), double(3.0)].concat(), [double(3.0), double(1.0)].concat()];
        assert!(matches!(numbers[5], (6, Field::Bytes(limits)) if limits == packed[0]));
        assert!(matches!(numbers[6], (7, Field::Bytes(counts)) if counts == packed[1]));
        assert!(matches!(numbers[4], (5, Field::Number(bits)) if f64::from_bits(bits) == 14.0));
        let (tag, field, bytes) = found(1);
        assert_eq!((&*tag, field), ("i", 4));
        assert!(matches!(
            fields(&bytes)[..],
            [
                (1, Field::Number(300)),
                (2, Field::Number(300)),
                (3, Field::Number(3)),
                (4, Field::Bytes(b"jpeg"))
            ]
        ));
        let (tag, field, bytes) = found(2);
        assert_eq!((&*tag, field), ("t", 8));
        assert!(matches!(fields(&bytes)[2], (8, Field::Bytes(b"**words**"))));
    }

    #[test]
    fn a_session_that_starts_within_the_same_second_is_read_after_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let earlier = now - Duration::from_secs(3600);
        let names: Vec<_> = [now, now, earlier]
            .map(|time| EventWriter::create(folder.path(), 0, time).unwrap().path().to_owned())
            .to_vec();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
