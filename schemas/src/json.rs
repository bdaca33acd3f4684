use serde::de::DeserializeOwned;

/// What Python's `json` writes for floating-point numbers that are none, and what JSON does not know.
const NOT_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Reads JSON that another tool wrote, most likely in Python: `NaN`, `Infinity` and `-Infinity` stand for null. img2dataset
/// writes them where a table has no number.
///
/// # Errors
/// When it is no JSON otherwise, or not of this type.
pub fn foreign_json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).or_else(|error| {
        let is_foreign = NOT_NUMBERS.iter().any(|word| bytes.windows(word.len()).any(|place| place == *word));
        if is_foreign { serde_json::from_slice(&with_nulls(bytes)) } else { Err(error) }
    })
}

fn with_nulls(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let (mut rest, mut in_string) = (bytes, false);
    while let Some(&byte) = rest.first() {
        let word = NOT_NUMBERS.iter().find(|word| !in_string && rest.starts_with(word));
        let (written, num_read): (&[u8], usize) = match word {
            Some(word) => (b"null", word.len()),
            // A quotation mark behind it ends nothing.
            None if byte == b'\\' => (&rest[..rest.len().min(2)], rest.len().min(2)),
            None => (&rest[..1], 1),
        };
        in_string ^= written == b"\"";
        out.extend_from_slice(written);
        rest = &rest[num_read..];
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_no_number_is_null_outside_of_strings() {
        let text = br#"{"caption": "NaN \"Infinity\\", "a": NaN, "b": [-Infinity, Infinity, -1.5], "NaN": "-Infinity"}"#;
        let expected = json!({
            "caption": "NaN \"Infinity\\", "a": null, "b": [null, null, -1.5], "NaN": "-Infinity"
        });
        assert_eq!(foreign_json::<Value>(text).unwrap(), expected);
        assert_eq!(foreign_json::<Value>(b"[1]").unwrap(), json!([1]));
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["NaN1", "{\"a\": -NaN}", "[NaN", "\"NaN\\", "[1] NaN", "nan", "{NaN: 1}", ""] {
            assert!(foreign_json::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
