use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::outcome::{Outcome, Report};

/// Size at which a file is closed for writing. Its space returns to the disk when the last outcome has left it.
const FILE_BYTES: u64 = 64 << 20;

/// Puts outcomes back into the order of the rows. Those that come early wait in files that have no name and are gone with the
/// process; in memory there is only where each lies.
#[derive(Debug)]
pub(super) struct Spool {
    /// By number; the last one is being written.
    files: BTreeMap<u64, SpoolFile>,
    early: BTreeMap<u64, Place>,
    next: u64,
    next_file: u64,
}

#[derive(Debug)]
struct SpoolFile {
    file: File,
    end: u64,
    /// Outcomes that lie in it.
    waiting: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    shard: u64,
    file: u64,
    offset: u64,
    report_bytes: u32,
    image_bytes: u32,
}

impl Spool {
    /// Waits for the outcome of the first row.
    pub(super) fn new() -> Self {
        Self { files: BTreeMap::new(), early: BTreeMap::new(), next: 0, next_file: 0 }
    }

    /// Takes an outcome. Returns it if it is the next one.
    pub(super) fn push(&mut self, outcome: Outcome) -> io::Result<Option<Outcome>> {
        if outcome.ordinal == self.next {
            self.next += 1;
            return Ok(Some(outcome));
        }
        let report = serde_json::to_vec(&outcome.report).expect("a report is text and numbers");
        let too_long = |_| io::Error::other("an outcome of more than 4 GiB");
        let report_bytes = u32::try_from(report.len()).map_err(too_long)?;
        let image_bytes = u32::try_from(outcome.image.len()).map_err(too_long)?;
        let (number, file) = self.open_file()?;
        let place = Place { shard: outcome.shard, file: number, offset: file.end, report_bytes, image_bytes };
        file.file.write_all_at(&report, place.offset)?;
        file.file.write_all_at(&outcome.image, place.offset + u64::from(report_bytes))?;
        file.end += u64::from(report_bytes) + u64::from(image_bytes);
        file.waiting += 1;
        self.early.insert(outcome.ordinal, place);
        Ok(None)
    }

    /// Takes the next outcome out, if it has come.
    pub(super) fn pop(&mut self) -> io::Result<Option<Outcome>> {
        let Some(place) = self.early.remove(&self.next) else { return Ok(None) };
        let file = self.files.get_mut(&place.file).expect("a file stays while outcomes wait in it");
        let mut report = vec![0; place.report_bytes as usize];
        file.file.read_exact_at(&mut report, place.offset)?;
        let report: Report = serde_json::from_slice(&report).map_err(io::Error::other)?;
        let mut image = vec![0; place.image_bytes as usize];
        file.file.read_exact_at(&mut image, place.offset + u64::from(place.report_bytes))?;
        file.waiting -= 1;
        if file.waiting == 0 {
            self.files.remove(&place.file);
        }
        let outcome = Outcome { ordinal: self.next, shard: place.shard, report, image };
        self.next += 1;
        Ok(Some(outcome))
    }

    /// The file to write to, and its number.
    fn open_file(&mut self) -> io::Result<(u64, &mut SpoolFile)> {
        let is_open = self.files.last_key_value().is_some_and(|(_, file)| file.end < FILE_BYTES);
        if !is_open {
            let file = SpoolFile { file: tempfile::tempfile()?, end: 0, waiting: 0 };
            self.files.insert(self.next_file, file);
            self.next_file += 1;
        }
        let (number, file) = self.files.iter_mut().next_back().expect("one was just made");
        Ok((*number, file))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::super::outcome::Status;
    use super::*;

    fn outcome(row: u64, number: f64) -> Outcome {
        let report = Report {
            // Rows may be left out between one and the next.
            row: row * 3,
            url: format!("http://host/{row}"),
            caption: row.is_multiple_of(2).then(|| "a \"dog\"\n".to_owned()),
            additional: Map::from_iter([("score".to_owned(), number.into())]),
            status: Status::Success,
            failure: None,
            image: None,
            fingerprint: None,
        };
        Outcome { ordinal: row, shard: row / 7, report, image: vec![row as u8; (row * 37 % 101) as usize] }
    }

    proptest! {
        #[test]
        fn outcomes_come_out_in_order_whatever_order_they_came_in(
            rows in Just((0..60).collect::<Vec<u64>>()).prop_shuffle(),
            numbers in proptest::collection::vec(proptest::num::f64::NORMAL, 60),
        ) {
            let outcome = |row: u64| outcome(row, numbers[row as usize]);
            let mut spool = Spool::new();
            let mut seen = Vec::new();
            for row in rows {
                let mut next = spool.push(outcome(row)).unwrap();
                while let Some(ready) = next {
                    seen.push(ready);
                    next = spool.pop().unwrap();
                }
            }
            prop_assert_eq!(seen, (0..60).map(outcome).collect::<Vec<_>>());
            prop_assert!(spool.files.is_empty(), "{:?}", spool.files);
        }
    }
}
