use std::path::PathBuf;

use fastclip_schemas::Digest;
use serde_json::{Map, Value};

use super::layout::Layout;
use super::outcome::{Failure, Status};
use crate::duplicates::{ExactSet, content_hash};
use crate::filters::RowFilters;
use crate::hash::{HashColumn, HashKind};
use crate::source::{Inputs, Record, SourceError, Table, text};

/// How the columns of a list are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlColumns {
    /// The URL.
    pub url: String,
    /// The caption. Without a name, `caption` is used where it exists.
    pub caption: Option<String>,
    /// Further columns to keep.
    pub additional: Vec<String>,
    /// The hash that the image must have.
    pub hash: Option<HashColumn>,
}

impl Default for UrlColumns {
    fn default() -> Self {
        Self { url: "url".to_owned(), caption: None, additional: Vec::new(), hash: None }
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
    /// What the hash of the image must be, and of which kind. Empty where the list has none.
    pub(super) hash: Option<(HashKind, String)>,
    /// Why no host is to be asked.
    pub(super) fault: Option<Failure>,
}

/// Rows in the order of the list.
pub(super) type UrlRows = Box<dyn Iterator<Item = Result<UrlRow, SourceError>> + Send>;

/// Tables with a column of URLs.
#[derive(Debug)]
pub(super) struct UrlList {
    table: Table,
    columns: UrlColumns,
    filters: RowFilters,
    /// How rows are called, if URLs that came before are refused by their names.
    unique_in: Option<Layout>,
    /// Columns that have a meaning; no others are read where that saves anything.
    wanted: Vec<String>,
}

impl UrlList {
    /// Looks the tables through, and checks that they have the columns.
    pub(super) fn open(
        inputs: &Inputs,
        columns: &UrlColumns,
        filters: &RowFilters,
    ) -> Result<Self, SourceError> {
        let table = Table::open(inputs)?;
        let additional = columns.additional.iter().map(String::as_str);
        let hash = columns.hash.as_ref().map(|hash| hash.name.as_str());
        let named = [Some(columns.url.as_str()), columns.caption.as_deref(), hash].into_iter().flatten();
        table.check_columns(named.chain(additional))?;
        let caption = columns.caption.as_deref().unwrap_or(DEFAULT_CAPTION_COLUMN);
        let wanted = [columns.url.as_str(), caption].into_iter().chain(hash).map(str::to_owned);
        let wanted = wanted.chain(columns.additional.iter().cloned()).collect();
        let (columns, filters) = (columns.clone(), filters.clone());
        Ok(Self { table, columns, filters, wanted, unique_in: None })
    }

    /// Refuses URLs that came before.
    pub(super) fn with_unique_urls(self, layout: Layout) -> Self {
        Self { unique_in: Some(layout), ..self }
    }

    pub(super) fn num_rows(&self) -> u64 {
        self.table.num_rows()
    }

    /// Paths or URLs of the tables.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.table.paths()
    }

    /// Of the rows of all tables.
    pub(super) fn digest(&self) -> Digest {
        self.table.digest()
    }

    /// Reads the rows from number `first` on.
    pub(super) fn rows(&self, first: u64) -> UrlRows {
        let (columns, filters) = (self.columns.clone(), self.filters.clone());
        let wanted = self.wanted.clone();
        let mut seen = self.unique_in.map(|layout| (ExactSet::default(), layout));
        // Which URLs are not new is known only to who has seen all rows before.
        let records = self.table.records(if seen.is_some() { 0 } else { first }, Some(wanted.clone()));
        let rows = records.map(move |(number, record)| {
            let mut row = row(number, record?, &columns, &wanted);
            let broken = filters.check(&row.url, row.caption.as_deref());
            let filtered = broken.map(|(reason, message)| Failure {
                status: Status::Filtered,
                reason: reason.identifier(),
                message,
            });
            row.fault = row.fault.or(filtered);
            if let Some((seen, layout)) = &mut seen
                && row.fault.is_none()
            {
                row.fault = check_url(seen, &row, *layout);
            }
            Ok(row)
        });
        Box::new(rows.filter(move |row| row.as_ref().map_or(true, |row: &UrlRow| row.number >= first)))
    }
}

/// Refuses a URL that an earlier row has, and remembers it otherwise. Rows that are refused for other reasons are no first.
fn check_url(seen: &mut ExactSet, row: &UrlRow, layout: Layout) -> Option<Failure> {
    let hash = content_hash(row.url.as_bytes());
    match seen.get(hash) {
        Some(first) => Some(Failure {
            status: Status::Duplicate,
            reason: "duplicate_url".to_owned(),
            message: format!("the URL of `{}`", layout.key(first)),
        }),
        None => {
            seen.insert(hash, row.number);
            None
        }
    }
}

/// Gives the columns of a record their meaning.
fn row(number: u64, record: Result<Record, String>, columns: &UrlColumns, wanted: &[String]) -> UrlRow {
    let mut record = match record {
        Ok(record) => record,
        Err(message) => {
            return UrlRow {
                number,
                url: String::new(),
                caption: None,
                additional: Map::new(),
                hash: None,
                fault: Some(malformed(message)),
            };
        }
    };
    // Before the others are taken: these may be among them.
    let hash = columns.hash.as_ref().map(|column| column.of(&record.columns));
    let kept = |name: &String| record.columns.get(name).cloned().unwrap_or(Value::Null);
    let additional = columns.additional.iter().map(|name| (name.clone(), kept(name))).collect();
    let mut take = |name: &str| record.columns.shift_remove(name);
    let url = text(take(&columns.url)).map(|url| url.trim().to_owned()).unwrap_or_default();
    let caption = text(take(columns.caption.as_deref().unwrap_or(DEFAULT_CAPTION_COLUMN)));
    let unusable = record.not_utf8.iter().find(|column| wanted.contains(column));
    let fault = unusable.map(|column| malformed(format!("column `{column}` is not UTF-8")));
    UrlRow { number, url, caption, additional, hash, fault }
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
        let list = UrlList::open(&path.into(), columns, &RowFilters::default()).unwrap();
        let rows: Vec<UrlRow> = list.rows(0).map(Result::unwrap).collect();
        assert_eq!(rows.len() as u64, list.num_rows());
        let later: Vec<UrlRow> = list.rows(1).map(Result::unwrap).collect();
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
    fn columns_that_have_a_meaning_can_be_kept_too() {
        let names = ["URL", "TEXT", "id"].map(str::to_owned);
        let columns = UrlColumns {
            url: "URL".to_owned(),
            caption: Some("TEXT".to_owned()),
            additional: names.to_vec(),
            hash: None,
        };
        let rows = rows_of("a.csv", "URL,TEXT,id\nhttp://a,a dog,7\nhttp://b,,8\n", &columns);
        assert_eq!((rows[0].url.as_str(), rows[0].caption.as_deref()), ("http://a", Some("a dog")));
        let expected = serde_json::json!({"URL": "http://a", "TEXT": "a dog", "id": "7"});
        assert_eq!(Value::Object(rows[0].additional.clone()), expected);
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
        let error = UrlList::open(&path.into(), &UrlColumns::default(), &RowFilters::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("has no column `url`, it has `link`, `caption`"), "{error}");
    }

    #[test]
    fn a_url_that_came_before_is_refused_wherever_reading_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "url,caption\na,\nb,x\na,y\nb,z\na,w\n").unwrap();
        let filters = RowFilters { min_caption_chars: 1, ..RowFilters::default() };
        let list = UrlList::open(&path.into(), &UrlColumns::default(), &filters)
            .unwrap()
            .with_unique_urls(Layout { num_rows: 5, rows_per_shard: 2 });
        let faults = |first| -> Vec<_> {
            let fault = |row: UrlRow| row.fault.map(|fault| format!("{}: {}", fault.reason, fault.message));
            list.rows(first).map(|row| fault(row.unwrap())).collect()
        };
        let all = faults(0);
        let repeated = |key: &str| Some(format!("duplicate_url: the URL of `{key}`"));
        // The first row with `a` has no caption, so that the next one that has is the first.
        assert!(all[0].as_ref().is_some_and(|fault| fault.starts_with("caption_too_short")), "{all:?}");
        assert_eq!(all[1..], [None, None, repeated("000001"), repeated("000010")]);
        assert_eq!(faults(3), all[3..]);
    }
}
