use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Deserializer, Map};

use super::SourceError;
use super::record::{Record, Records};
use super::text_file::TextFile;

/// Names of the columns and number of rows of an array of objects. The columns are those of the first.
pub(super) fn survey(path: &Path, file: TextFile) -> Result<(Vec<String>, u64), SourceError> {
    let mut names = Vec::new();
    let mut num_rows = 0;
    for record in Objects::new(path, file) {
        let record = record?;
        if num_rows == 0 {
            names = record.columns.keys().cloned().collect();
        }
        num_rows += 1;
    }
    Ok((names, num_rows))
}

/// Cells keep their JSON types.
pub(super) fn records(path: &Path, file: TextFile) -> Records {
    Box::new(Objects::new(path, file).map(|record| record.map(Ok)))
}

/// The objects of an array, one after another: the whole array may not fit into memory.
struct Objects {
    path: PathBuf,
    file: TextFile,
    num_read: u64,
    has_ended: bool,
}

impl Iterator for Objects {
    type Item = Result<Record, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let record = self.read().transpose();
        // After an error nobody knows where the next object begins.
        self.has_ended = !matches!(record, Some(Ok(_)));
        record
    }
}

impl Objects {
    fn new(path: &Path, file: TextFile) -> Self {
        Self { path: path.to_owned(), file, num_read: 0, has_ended: false }
    }

    /// Reads the next object with what stands before it.
    fn read(&mut self) -> Result<Option<Record>, SourceError> {
        let is_first = self.num_read == 0;
        match self.token()? {
            Some(b'[') if is_first => self.file.consume(1),
            Some(b',') if !is_first => self.file.consume(1),
            Some(b']') if !is_first => return self.end(),
            found => return Err(self.unexpected(if is_first { "`[`" } else { "`,` or `]`" }, found)),
        }
        match self.token()? {
            Some(b'{') => {}
            Some(b']') if is_first => return self.end(),
            found => return Err(self.unexpected("an object", found)),
        }
        // An object ends with its brace, so that not one byte after it is taken from the file.
        let columns = Map::deserialize(&mut Deserializer::from_reader(&mut self.file));
        let columns = columns.map_err(|error| match error.io_error_kind() {
            Some(_) => SourceError::read(&self.path, error.into()),
            None => self.malformed(error.to_string()),
        })?;
        self.num_read += 1;
        Ok(Some(Record { columns, ..Record::default() }))
    }

    /// Checks that nothing comes after the array.
    fn end(&mut self) -> Result<Option<Record>, SourceError> {
        self.file.consume(1);
        match self.token()? {
            None => Ok(None),
            found => Err(self.unexpected("the end of the file", found)),
        }
    }

    /// The next byte that is no white space; it stays in the file.
    fn token(&mut self) -> Result<Option<u8>, SourceError> {
        loop {
            let bytes = self.file.fill_buf().map_err(|source| SourceError::read(&self.path, source))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            match bytes.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(position) => {
                    let byte = bytes[position];
                    self.file.consume(position);
                    return Ok(Some(byte));
                }
                None => {
                    let num_bytes = bytes.len();
                    self.file.consume(num_bytes);
                }
            }
        }
    }

    fn unexpected(&self, expected: &str, found: Option<u8>) -> SourceError {
        let found = match found {
            Some(byte) => format!("`{}`", byte.escape_ascii()),
            None => "the end of the file".to_owned(),
        };
        self.malformed(format!("expected {expected}, found {found}"))
    }

    fn malformed(&self, message: String) -> SourceError {
        SourceError::JsonArray { path: self.path.clone(), row: self.num_read, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Value>, String> {
        let file = TextFile::new(Box::new(std::io::Cursor::new(text.to_vec())));
        let records: Result<Vec<_>, _> = records(Path::new("a.json"), file).collect();
        let records = records.map_err(|error| error.to_string().split(": ").skip(1).collect::<String>());
        records
            .map(|records| records.into_iter().map(|record| Value::Object(record.unwrap().columns)).collect())
    }

    #[test]
    fn what_is_no_array_of_objects_is_named_with_its_row() {
        for (text, message) in [
            ("", "row 0expected `[`, found the end of the file"),
            (r#"{"url": {"0": "a"}}"#, "row 0expected `[`, found `{`"),
            ("[1]", "row 0expected an object, found `1`"),
            (r#"[{"a": 1} {"a": 2}]"#, "row 1expected `,` or `]`, found `{`"),
            (r#"[{"a": 1},]"#, "row 1expected an object, found `]`"),
            (r#"[{"a": 1}"#, "row 1expected `,` or `]`, found the end of the file"),
            (r#"[{"a": 1}] x"#, "row 1expected the end of the file, found `x`"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err(), message, "{text}");
        }
        assert!(read(br#"[{"a": 1}, {"a" 2}]"#).unwrap_err().starts_with("row 1expected `:`"));
        assert_eq!(read(b" [ ] \n").unwrap(), Vec::<Value>::new());
    }

    proptest! {
        #[test]
        fn arrays_are_read_as_serde_json_reads_them(
            cells in prop::collection::vec(prop::collection::btree_map(".{0,9}", ".{0,99}", 0..4), 0..40),
            is_pretty: bool,
        ) {
            let expected = serde_json::to_value(&cells).unwrap();
            let text = if is_pretty { serde_json::to_vec_pretty(&cells) } else { serde_json::to_vec(&cells) };
            prop_assert_eq!(Value::Array(read(&text.unwrap()).unwrap()), expected);
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(prop::sample::select(&b"[]{},:\"a1 \\\xff"[..]), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
