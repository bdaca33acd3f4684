//! Numbers as people read them.

use std::borrow::Cow;

/// Makes text safe inside an element or a quoted attribute.
pub fn escaped(text: &str) -> Cow<'_, str> {
    html_escape::encode_quoted_attribute(text)
}

/// Words a fraction as a percentage, with digits where they tell something.
pub fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    let decimals = if percent >= 99.95 || percent == 0.0 {
        0
    } else if percent >= 1.0 {
        1
    } else {
        2
    };
    format!("{percent:.decimals$} %")
}

/// Words a count with a thin space before each group of three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// Words a measured value with about three significant digits.
pub fn measure(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if size >= 10_000.0 {
        count(value.round() as u64)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 0.01 {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

/// Words a length of time.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{} h {minutes:02} min", count(hours)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_would_write_them() {
        assert_eq!(
            [0.0, 0.00213, 0.0125, 0.5, 1.0].map(percent),
            ["0 %", "0.21 %", "1.2 %", "50.0 %", "100 %"]
        );
        assert_eq!(
            [7, 999, 1_000, 3_200_000].map(count),
            ["7", "999", "1\u{2009}000", "3\u{2009}200\u{2009}000"]
        );
        assert_eq!(
            [0.0, 12_345.6, 312.4, 31.24, 3.124, 0.0312, 0.000_25].map(measure),
            ["0", "12\u{2009}346", "312", "31.2", "3.12", "0.031", "2.5e-4"]
        );
        assert_eq!([0.4, 59.0, 61.0, 7_265.0].map(duration), ["0 s", "59 s", "1 min 01 s", "2 h 01 min"]);
    }

    #[test]
    fn text_cannot_leave_its_element_or_attribute() {
        assert_eq!(escaped("<script>\"a\" & 'b'"), "&lt;script&gt;&quot;a&quot; &amp; &#x27;b&#x27;");
    }
}
