use serde_json::{Map, Value};

use super::place::Place;
use super::{Columns, Content, ImageFile, OtherColumns, Pair, Row, Text};
use crate::rejection::Reason;

/// Column that holds the class where none was named.
const DEFAULT_CLASS_COLUMN: &str = "cls";

/// A row of a table before anybody asked what its columns mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) columns: Map<String, Value>,
    /// Columns whose bytes are no text. In `columns` they stand with replacement characters, or as null.
    pub(crate) not_utf8: Vec<String>,
    /// Columns that hold bytes. In `columns` stands the path that came with them, or null.
    pub(crate) images: Vec<(String, Vec<u8>)>,
}

/// Records in the order of the table. The inner error is about one row, as text for the report.
pub(crate) type Records = Box<dyn Iterator<Item = Result<Result<Record, String>, super::SourceError>> + Send>;

/// Records with the numbers of their rows, from 0.
pub(crate) type NumberedRecords =
    Box<dyn Iterator<Item = (u64, Result<Result<Record, String>, super::SourceError>)> + Send>;

/// Gives the columns of a record of this table their meaning.
pub(super) fn row(number: u64, record: Result<Record, String>, table: &Place, columns: &Columns) -> Row {
    let mut record = match record {
        Ok(record) => record,
        Err(message) => {
            let content = Content::Fault(Reason::MalformedRow, message);
            return Row { number, image: String::new(), content };
        }
    };
    let image = text(record.columns.shift_remove(&columns.image)).unwrap_or_default();
    let content = content(record, &image, table, columns);
    Row { number, image, content }
}

fn content(mut record: Record, image: &str, table: &Place, columns: &Columns) -> Content {
    if let Some(split) = &columns.split
        && record.columns.get(&split.column).and_then(|value| text(Some(value.clone()))).as_deref()
            != Some(&split.value)
    {
        return Content::OtherSplit;
    }
    let embedded = record.images.iter().position(|(column, _)| *column == columns.image);
    let embedded = embedded.map(|at| record.images.swap_remove(at).1);
    if embedded.is_some() {
        record.not_utf8.retain(|column| *column != columns.image);
    }
    if let Some(column) = record.not_utf8.first() {
        let reason = if record.not_utf8.contains(&columns.caption) {
            Reason::CaptionNotUtf8
        } else {
            Reason::MalformedRow
        };
        return Content::Fault(reason, format!("column `{column}` is not UTF-8"));
    }
    let image = match embedded {
        Some(bytes) => ImageFile::Embedded(bytes),
        None if !image.is_empty() => ImageFile::Place(table.beside(image)),
        None => {
            let message = format!("column `{}` is empty", columns.image);
            return Content::Fault(Reason::MissingFile, message);
        }
    };
    let class = columns.class.as_deref().unwrap_or(DEFAULT_CLASS_COLUMN);
    Content::Pair(Box::new(Pair {
        image,
        caption: Text::Inline(text(record.columns.shift_remove(&columns.caption))),
        class: Text::Inline(text(record.columns.shift_remove(class))),
        columns: OtherColumns::Inline(record.columns),
    }))
}

/// A cell as text. Empty cells and null are none.
pub(crate) fn text(cell: Option<Value>) -> Option<String> {
    match cell? {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Split;
    use super::*;

    fn row_of(columns: Value, options: &Columns) -> Row {
        let Value::Object(columns) = columns else { panic!("not an object") };
        let table = Place::local("data/table.jsonl".into());
        row(3, Ok(Record { columns, ..Record::default() }), &table, options)
    }

    #[test]
    fn columns_get_their_meaning_and_the_rest_is_kept() {
        let columns = json!({"width": 3, "image": "a/b.jpg", "caption": "a dog", "cls": 7, "url": null});
        let row = row_of(columns, &Columns::default());
        assert_eq!((row.number, row.image.as_str()), (3, "a/b.jpg"));
        let Content::Pair(pair) = row.content else { panic!("{row:?}") };
        assert_eq!(pair.image, ImageFile::Place(Place::local("data/a/b.jpg".into())));
        assert_eq!(pair.caption, Text::Inline(Some("a dog".to_owned())));
        assert_eq!(pair.class, Text::Inline(Some("7".to_owned())));
        let OtherColumns::Inline(rest) = pair.columns else { panic!() };
        assert_eq!(Value::Object(rest), json!({"width": 3, "url": null}));
    }

    #[test]
    fn rows_of_other_splits_ask_for_nothing() {
        let split = Some(Split { column: "split".to_owned(), value: "train".to_owned() });
        let options = Columns { split, ..Columns::default() };
        let row = |split: &str| row_of(json!({"image": "a.jpg", "caption": "x", "split": split}), &options);
        assert!(matches!(row("train").content, Content::Pair(_)));
        assert_eq!(row("test").content, Content::OtherSplit);
        assert_eq!(row_of(json!({"image": "a.jpg"}), &options).content, Content::OtherSplit);
    }

    #[test]
    fn rows_without_an_image_say_which_column_is_empty() {
        let row = row_of(json!({"image": "", "caption": "x"}), &Columns::default());
        assert_eq!(row.content, Content::Fault(Reason::MissingFile, "column `image` is empty".to_owned()));
    }
}
