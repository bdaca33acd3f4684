use std::iter::Peekable;
use std::ops::Range;
use std::vec;

use bytes::Bytes;
use fastclip_shards::Store;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::super::DownloadError;
use super::super::layout::Layout;
use super::super::metadata::read_table;
use super::super::outcome::Status;
use super::super::records::table_file;

/// A row as the table beside a shard has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TableRow {
    /// Its number in the list.
    pub(super) number: u64,
    pub(super) status: Status,
    /// Identifier of the failure; empty where there was none.
    pub(super) reason: String,
    pub(super) url: String,
    pub(super) caption: Option<String>,
    pub(super) additional: Map<String, Value>,
}

/// Where tables lie, and how they are read.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) store: Store,
    pub(super) runtime: Handle,
    pub(super) layout: Layout,
    /// Columns of the list that were kept.
    pub(super) additional: Vec<String>,
}

impl Tables {
    /// The rows of these shards' tables, which are in the order of the list. One table is in memory at a time.
    pub(super) fn rows(&self, shards: Range<u64>) -> TableRows {
        TableRows { tables: self.clone(), shards, rows: Vec::new().into_iter() }
    }

    fn read(&self, shard: u64) -> Result<Vec<TableRow>, DownloadError> {
        let name = table_file(shard);
        let refused = |problem: String| {
            let location = self.store.location().to_owned();
            DownloadError::Table { location, name: name.clone(), problem }
        };
        let bytes =
            self.runtime.block_on(self.store.get(&name)).map_err(|error| refused(error.to_string()))?;
        self.decode(bytes).map_err(refused)
    }

    fn decode(&self, bytes: Bytes) -> Result<Vec<TableRow>, String> {
        let rows = read_table(bytes, &self.additional).map_err(|error| error.to_string())?;
        let rows = rows.into_iter().map(|mut fields| {
            let mut take = |name: &str| match fields.shift_remove(name) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let key = take("key").unwrap_or_default();
            let number = self.layout.row_of(&key).ok_or_else(|| format!("`{key}` is no key of this list"))?;
            let reason = take("error_message").unwrap_or_default();
            let reason = reason.split(':').next().unwrap_or_default().to_owned();
            let status = take("status").and_then(|status| serde_json::from_value(status.into()).ok());
            let status = status.ok_or_else(|| format!("row `{key}` has no status"))?;
            let url = take("url").unwrap_or_default();
            let caption = take("caption");
            let additional = self
                .additional
                .iter()
                .map(|name| (name.clone(), fields.shift_remove(name).unwrap_or(Value::Null)));
            let additional = additional.collect();
            Ok(TableRow { number, status, reason, url, caption, additional })
        });
        rows.collect()
    }
}

/// See [`Tables::rows`].
#[derive(Debug)]
pub(super) struct TableRows {
    tables: Tables,
    shards: Range<u64>,
    rows: vec::IntoIter<TableRow>,
}

impl Iterator for TableRows {
    type Item = Result<TableRow, DownloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            match self.tables.read(self.shards.next()?) {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => {
                    self.shards = 0..0;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Joins the rows of a list with those that were tried again, each in the order of the list: the newest outcome of every row.
pub(super) fn newest<I>(passes: impl IntoIterator<Item = I>) -> Newest<I>
where
    I: Iterator<Item = Result<TableRow, DownloadError>>,
{
    Newest { passes: passes.into_iter().map(Iterator::peekable).collect() }
}

/// See [`newest`].
pub(super) struct Newest<I: Iterator> {
    /// The oldest first.
    passes: Vec<Peekable<I>>,
}

impl<I: Iterator<Item = Result<TableRow, DownloadError>>> Iterator for Newest<I> {
    type Item = Result<TableRow, DownloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let numbers = self.passes.iter_mut().filter_map(|pass| match pass.peek()? {
            Ok(row) => Some(row.number),
            // Before all others: an error ends it.
            Err(_) => Some(0),
        });
        let number = numbers.min()?;
        let is_next =
            |row: &Result<TableRow, DownloadError>| row.as_ref().map_or(true, |row| row.number == number);
        let mut newest = None;
        for pass in &mut self.passes {
            match pass.next_if(is_next) {
                Some(Ok(row)) => newest = Some(row),
                Some(Err(error)) => return Some(Err(error)),
                None => {}
            }
        }
        newest.map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, reason: &str) -> TableRow {
        TableRow {
            number,
            status: Status::FailedToDownload,
            reason: reason.to_owned(),
            url: String::new(),
            caption: None,
            additional: Map::new(),
        }
    }

    fn pass(rows: &[(u64, &str)]) -> vec::IntoIter<Result<TableRow, DownloadError>> {
        rows.iter().map(|(number, reason)| Ok(row(*number, reason))).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn the_newest_outcome_of_a_row_counts() {
        let list = pass(&[(0, "a"), (1, "b"), (2, "c"), (5, "d")]);
        let (first, second) = (pass(&[(1, "x"), (5, "y")]), pass(&[(5, "z")]));
        let rows: Vec<TableRow> = newest([list, first, second]).map(Result::unwrap).collect();
        assert_eq!(rows, [row(0, "a"), row(1, "x"), row(2, "c"), row(5, "z")]);
    }

    #[test]
    fn a_table_that_cannot_be_read_ends_it() {
        let error = DownloadError::Rows { found: 0, expected: 1 };
        let broken = vec![Ok(row(0, "a")), Err(error)].into_iter();
        let mut rows = newest([pass(&[(0, "b"), (1, "c")]), broken]);
        assert_eq!(rows.next().unwrap().unwrap(), row(0, "a"));
        assert!(rows.next().unwrap().is_err());
    }
}
