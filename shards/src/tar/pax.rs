/// Splits PAX data into its records, each `LENGTH KEY=VALUE\n` with the length of the whole record.
///
/// The iterator ends after the first malformed record.
pub(super) fn records(data: &[u8]) -> impl Iterator<Item = Result<(&str, &[u8]), &'static str>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        // Some programs pad with NULs inside the stated size.
        if rest.first().is_none_or(|&byte| byte == 0) {
            return None;
        }
        match split_record(rest) {
            Ok((record, after)) => {
                rest = after;
                Some(Ok(record))
            }
            Err(reason) => {
                rest = &[];
                Some(Err(reason))
            }
        }
    })
}

/// A decimal number, as PAX writes them.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

type Record<'a> = (&'a str, &'a [u8]);

fn split_record(rest: &[u8]) -> Result<(Record<'_>, &[u8]), &'static str> {
    let space = rest.iter().position(|&byte| byte == b' ').ok_or("a record has no length")?;
    let length = number(&rest[..space]).ok_or("a record has no length")?;
    let length = usize::try_from(length).map_err(|_| "a record is longer than its header says")?;
    if length > rest.len() {
        return Err("a record is longer than its header says");
    }
    let (record, after) = rest.split_at(length);
    let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n"));
    let body = body.ok_or("a record does not end in a line feed")?;
    let equals = body.iter().position(|&byte| byte == b'=').ok_or("a record has no `=`")?;
    let key = std::str::from_utf8(&body[..equals]).map_err(|_| "a key is not UTF-8")?;
    Ok(((key, &body[equals + 1..]), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_by_their_lengths() {
        let data = b"12 path=a=b\n11 mtime=1\n\0\0";
        let records: Result<Vec<_>, _> = records(data).collect();
        assert_eq!(records.unwrap(), [("path", &b"a=b"[..]), ("mtime", b"1")]);
    }

    #[test]
    fn malformed_records_end_the_list_with_a_reason() {
        for data in [
            &b"x"[..],
            b"99 path=a\n",
            b"5 a=b\n",
            b"2 a=b\n",
            b"6 abc\n",
            b"99999999999999999999 a=b\n",
            b"0 a=b\n",
        ] {
            let records: Vec<_> = records(data).collect();
            assert!(records.last().is_some_and(Result::is_err), "{data:?} gave {records:?}");
        }
    }
}
