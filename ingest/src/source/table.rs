use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fastclip_schemas::Digest;

use super::place::Place;
use super::record::{NumberedRecords, Records};
use super::table_file::{Survey, TableFile};
use super::{Inputs, SourceError};

/// Files that are looked through at a time: for those in stores, most of it is waiting.
const SURVEY_THREADS: usize = 8;

/// The files of an input as one table: the rows of one come after those of the file before it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    files: Vec<SurveyedFile>,
    num_rows: u64,
    digest: Digest,
}

#[derive(Debug, Clone)]
struct SurveyedFile {
    file: TableFile,
    names: Vec<String>,
    first_row: u64,
    num_rows: u64,
}

impl Table {
    /// Finds the files and looks through them. Files of text are read once for it, of parquet the footers are.
    pub(crate) fn open(inputs: &Inputs) -> Result<Self, SourceError> {
        let files = inputs.tables()?.into_iter().map(TableFile::new).collect::<Result<Vec<_>, _>>()?;
        let surveys = survey_all(&files)?;
        let mut digest = blake3::Hasher::new();
        let mut num_rows = 0;
        let mut surveyed = Vec::with_capacity(files.len());
        for (file, survey) in files.into_iter().zip(surveys) {
            digest.update(&survey.digest.0).update(&survey.num_rows.to_le_bytes());
            let first_row = num_rows;
            num_rows += survey.num_rows;
            surveyed.push(SurveyedFile { file, names: survey.names, first_row, num_rows: survey.num_rows });
        }
        if num_rows == 0 {
            return Err(SourceError::Empty { path: inputs.shown() });
        }
        let digest = Digest(*digest.finalize().as_bytes());
        Ok(Self { files: surveyed, num_rows, digest })
    }

    pub(crate) fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Equal for equal files in equal order, wherever they lie and whatever their names are.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Paths or URLs of the files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|file| file.file.place.path().to_owned())
    }

    /// The file of the first row.
    pub(super) fn first_place(&self) -> &Place {
        &self.files[0].file.place
    }

    /// The file that has this row.
    pub(super) fn place_of(&self, row: u64) -> &Place {
        let after = self.files.partition_point(|file| file.first_row <= row);
        &self.files[after.saturating_sub(1)].file.place
    }

    /// Refuses the input if one of its files lacks a wanted column.
    pub(crate) fn check_columns<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Result<(), SourceError> {
        for SurveyedFile { file, names, .. } in self.files.iter().filter(|file| file.num_rows > 0) {
            let missing = wanted.clone().into_iter().find(|column| names.iter().all(|name| name != column));
            if let Some(column) = missing {
                return Err(SourceError::Column {
                    path: file.place.path().to_owned(),
                    column: column.to_owned(),
                    found: names.join("`, `"),
                });
            }
        }
        Ok(())
    }

    /// Reads the rows from number `first` on, each with its number; memory does not grow with theirs. Where columns are named,
    /// others may be missing from the records.
    pub(crate) fn records(&self, first: u64, columns: Option<Vec<String>>) -> NumberedRecords {
        let files = self.files.clone().into_iter().filter(move |file| file.first_row + file.num_rows > first);
        Box::new(files.flat_map(move |SurveyedFile { file, first_row, num_rows, .. }| {
            let skipped = first.saturating_sub(first_row);
            let records = match file.records(skipped, columns.as_deref()) {
                Ok(records) => records,
                Err(error) => Box::new(std::iter::once(Err(error))) as Records,
            };
            let counted = Counted { path: file.place, next: skipped, num_rows, records: Some(records) };
            counted.map(move |(row, record)| (first_row + row, record))
        }))
    }
}

/// The records of a file, which must be as many as were counted: the rows of the next file have their numbers already.
struct Counted {
    path: Place,
    next: u64,
    num_rows: u64,
    records: Option<Records>,
}

impl Iterator for Counted {
    type Item = (u64, Result<Result<super::Record, String>, SourceError>);

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next;
        let record = self.records.as_mut()?.next();
        let changed = |found| SourceError::Changed {
            path: self.path.path().to_owned(),
            found,
            expected: self.num_rows,
        };
        let record = match record {
            Some(Ok(record)) if row < self.num_rows => Ok(record),
            Some(Ok(_)) => Err(changed(row + 1)),
            Some(Err(error)) => Err(error),
            None if row < self.num_rows => Err(changed(row)),
            None => return None,
        };
        if record.is_err() {
            self.records = None;
        }
        self.next += 1;
        Some((row, record))
    }
}

/// Looks through files on a few threads. The error, if there is one, is that of the first file in order.
fn survey_all(files: &[TableFile]) -> Result<Vec<Survey>, SourceError> {
    let next = AtomicUsize::new(0);
    let surveys: Mutex<Vec<Option<Result<Survey, SourceError>>>> =
        Mutex::new(files.iter().map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..files.len().min(SURVEY_THREADS) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(number) else { return };
                    let survey = file.survey();
                    if survey.is_err() {
                        // No more files are begun.
                        next.store(files.len(), Ordering::Relaxed);
                    }
                    surveys.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(survey);
                }
            });
        }
    });
    // What was not looked at lies behind an error.
    surveys.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn urls(table: &Table, first: u64) -> Vec<(u64, String)> {
        let records = table.records(first, None);
        records.map(|(row, record)| (row, record.unwrap().unwrap().columns["url"].to_string())).collect()
    }

    fn three_files(folder: &Path) -> Table {
        std::fs::write(folder.join("a.csv"), "url\na0\na1\n").unwrap();
        std::fs::write(folder.join("b.csv"), "other,url\n").unwrap();
        std::fs::write(folder.join("c.csv"), "n,url\n1,c0\n2,c1\n3,c2\n").unwrap();
        Table::open(&folder.to_owned().into()).unwrap()
    }

    #[test]
    fn rows_of_several_files_are_counted_on() {
        let folder = tempfile::tempdir().unwrap();
        let table = three_files(folder.path());
        assert_eq!(table.num_rows(), 5);
        let all = urls(&table, 0);
        let expected = [(0, "\"a0\""), (1, "\"a1\""), (2, "\"c0\""), (3, "\"c1\""), (4, "\"c2\"")];
        assert_eq!(all, expected.map(|(row, url)| (row, url.to_owned())));
        for first in 0..6 {
            assert_eq!(urls(&table, first as u64), all[first.min(5)..], "from row {first} on");
        }
        assert!(table.place_of(1).path().ends_with("a.csv") && table.place_of(2).path().ends_with("c.csv"));
        let error = table.check_columns(["url", "n"]).unwrap_err().to_string();
        assert!(error.ends_with("a.csv` has no column `n`, it has `url`"), "{error}");
    }

    #[test]
    fn a_file_that_grows_or_shrinks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, found) in [("url\na0\n", "gave 1 rows"), ("url\na0\na1\na2\na3\n", "gave 3 rows")] {
            let table = three_files(folder.path());
            std::fs::write(folder.path().join("a.csv"), text).unwrap();
            let error = table.records(0, None).find_map(|(_, record)| record.err()).unwrap().to_string();
            assert!(error.contains("a.csv") && error.contains(found), "{error}");
        }
    }

    #[test]
    fn the_digest_is_of_the_bytes_and_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (a, b) = (write("a.csv", "url\n1\n"), write("b.csv", "url\n2\n"));
        let digest = |paths: &[&std::path::PathBuf]| {
            let paths = paths.iter().map(|path| (*path).clone()).collect();
            Table::open(&Inputs { paths, ..Inputs::default() }).unwrap().digest()
        };
        assert_eq!(digest(&[&a]), digest(&[&write("c.csv", "url\n1\n")]));
        assert_ne!(digest(&[&a, &b]), digest(&[&b, &a]));
    }
}
