use std::path::Path;

use serde_json::{Map, Value};

use super::filters::RowFilters;
use super::outcome::{Failure, Status};
use crate::source::{Record, SourceError, Table, text};

/// How the columns of a list are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlColumns {
    /// The URL.
    pub url: String,
    /// The caption. Without a name, `caption` is used where it exists.
    pub caption: Option<String>,
    /// Further columns to keep.
    pub additional: Vec<String>,
}

impl Default for UrlColumns {
    fn default() -> Self {
        Self { url: "url".to_owned(), caption: None, additional: Vec::new() }
    }
}

/// Column that holds the caption where none was named.
const DEFAULT_CAPTION_COLUMN: &str = "caption";

/// One row of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct UrlRow {
    /// From 0; a header does not count.
    pub(super) number: u64,
    /// Empty where there is none.
    pub(super) url: String,
    pub(super) caption: Option<String>,
    pub(super) additional: Map<String, Value>,
    /// Why no host is to be asked.
    pub(super) fault: Option<Failure>,
}

/// Rows in the order of the list.
pub(super) type UrlRows = Box<dyn Iterator<Item = Result<UrlRow, SourceError>> + Send>;

/// A table with a column of URLs.
#[derive(Debug)]
pub(super) struct UrlList {
    table: Table,
    columns: UrlColumns,
    filters: RowFilters,
    num_rows: u64,
}

impl UrlList {
    /// Looks a table through once, and checks that it has the columns.
    pub(super) fn open(path: &Path, columns: &UrlColumns, filters: &RowFilters) -> Result<Self, SourceError> {
        let table = Table::open(path)?;
        let (names, num_rows) = table.survey()?;
        if num_rows == 0 {
            return Err(SourceError::Empty { path: path.to_owned() });
        }
        let additional = columns.additional.iter().map(String::as_str);
        let named = [Some(columns.url.as_str()), columns.caption.as_deref()].into_iter().flatten();
        table.check_columns(&names, named.chain(additional))?;
        Ok(Self { table, columns: columns.clone(), filters: filters.clone(), num_rows })
    }

    pub(super) fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Reads the rows from number `first` on.
    pub(super) fn rows(&self, first: u64) -> Result<UrlRows, SourceError> {
        let (columns, filters) = (self.columns.clone(), self.filters.clone());
        let records = self.table.records(first)?;
        let rows = records.map(move |(number, record)| {
            let mut row = row(number, record?, &columns);
            row.fault = row.fault.or_else(|| filters.check(&row.url, row.caption.as_deref()));
            Ok(row)
        });
        Ok(Box::new(rows))
    }
}

/// Gives the columns of a record their meaning.
fn row(number: u64, record: Result<Record, String>, columns: &UrlColumns) -> UrlRow {
    let mut record = match record {
        Ok(record) => record,
        Err(message) => {
            return UrlRow {
                number,
                url: String::new(),
                caption: None,
                additional: Map::new(),
                fault: Some(malformed(message)),
            };
        }
    };
    let mut take = |name: &str| record.columns.shift_remove(name);
    let url = text(take(&columns.url)).map(|url| url.trim().to_owned()).unwrap_or_default();
    let caption = text(take(columns.caption.as_deref().unwrap_or(DEFAULT_CAPTION_COLUMN)));
    let additional =
        columns.additional.iter().map(|name| (name.clone(), take(name).unwrap_or(Value::Null))).collect();
    let fault = record.not_utf8.first().map(|column| malformed(format!("column `{column}` is not UTF-8")));
    UrlRow { number, url, caption, additional, fault }
}

fn malformed(message: String) -> Failure {
    Failure { status: Status::FailedToDownload, reason: "malformed_row".to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(name: &str, text: &str, columns: &UrlColumns) -> Vec<UrlRow> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let list = UrlList::open(&path, columns, &RowFilters::default()).unwrap();
        let rows: Vec<UrlRow> = list.rows(0).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len() as u64, list.num_rows());
        let later: Vec<UrlRow> = list.rows(1).unwrap().map(Result::unwrap).collect();
        assert_eq!(later, rows[1..], "rows from the second on");
        rows
    }

    #[test]
    fn tables_and_plain_lists_give_rows() {
        let columns = UrlColumns { additional: vec!["id".to_owned()], ..UrlColumns::default() };
        let rows =
            rows_of("a.csv", "url,caption,id,other\nhttp://a/b.jpg,a dog,7,x\n http://c ,,8,y\n", &columns);
        assert_eq!((rows[0].url.as_str(), rows[0].caption.as_deref()), ("http://a/b.jpg", Some("a dog")));
        assert_eq!(Value::Object(rows[0].additional.clone()), serde_json::json!({"id": "7"}));
        assert_eq!((rows[1].url.as_str(), rows[1].caption.as_deref(), rows[1].number), ("http://c", None, 1));
        let rows = rows_of("a.txt", "http://a\r\n\nhttp://b\n", &UrlColumns::default());
        assert_eq!(rows.iter().map(|row| row.url.as_str()).collect::<Vec<_>>(), ["http://a", "http://b"]);
    }

    #[test]
    fn rows_that_cannot_be_read_say_why() {
        let rows = rows_of("a.jsonl", "{\"url\": \"http://a\"}\n[1]\n", &UrlColumns::default());
        assert_eq!(rows[0].fault, None);
        assert!(
            rows[1].fault.as_ref().is_some_and(|fault| fault.message.contains("no JSON object")),
            "{:?}",
            rows[1]
        );
    }

    #[test]
    fn a_column_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "link,caption\nhttp://a,b\n").unwrap();
        let error =
            UrlList::open(&path, &UrlColumns::default(), &RowFilters::default()).unwrap_err().to_string();
        assert!(error.contains("has no column `url`, it has `link`, `caption`"), "{error}");
    }
}
