use std::borrow::Cow;

use html_escape::NAMED_ENTITIES;

/// Names that HTML also knows without a semicolon.
const WITHOUT_SEMICOLON: [&str; 106] = [
    "AElig", "AMP", "Aacute", "Acirc", "Agrave", "Aring", "Atilde", "Auml", "COPY", "Ccedil", "ETH",
    "Eacute", "Ecirc", "Egrave", "Euml", "GT", "Iacute", "Icirc", "Igrave", "Iuml", "LT", "Ntilde", "Oacute",
    "Ocirc", "Ograve", "Oslash", "Otilde", "Ouml", "QUOT", "REG", "THORN", "Uacute", "Ucirc", "Ugrave",
    "Uuml", "Yacute", "aacute", "acirc", "acute", "aelig", "agrave", "amp", "aring", "atilde", "auml",
    "brvbar", "ccedil", "cedil", "cent", "copy", "curren", "deg", "divide", "eacute", "ecirc", "egrave",
    "eth", "euml", "frac12", "frac14", "frac34", "gt", "iacute", "icirc", "iexcl", "igrave", "iquest",
    "iuml", "laquo", "lt", "macr", "micro", "middot", "nbsp", "not", "ntilde", "oacute", "ocirc", "ograve",
    "ordf", "ordm", "oslash", "otilde", "ouml", "para", "plusmn", "pound", "quot", "raquo", "reg", "sect",
    "shy", "sup1", "sup2", "sup3", "szlig", "thorn", "times", "uacute", "ucirc", "ugrave", "uml", "uuml",
    "yacute", "yen", "yuml",
];

/// Longest name that Python looks at, in characters.
const LONGEST_NAME: usize = 32;
/// Longest name that `ftfy` looks at.
const LONGEST_CERTAIN_NAME: usize = 24;

/// Resolves references as Python's `html.unescape`: with or without a semicolon, as HTML 5 defines them.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, |reference, out| {
        let rest = &reference[1..];
        if let Some(digits) = rest.strip_prefix('#') {
            let (number, length) = number(digits)?;
            push_number(number, out);
            return Some(2 + length);
        }
        let end = rest
            .char_indices()
            .take(LONGEST_NAME)
            .find(|(_, character)| matches!(character, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';'))
            .or_else(|| rest.char_indices().nth(LONGEST_NAME))
            .map_or(rest.len(), |(at, _)| at);
        let name = &rest[..end];
        if rest[end..].starts_with(';')
            && let Some(value) = named(name)
        {
            out.push_str(value);
            return Some(1 + end + 1);
        }
        // Else as much of it as is the name of something.
        let ends = (2..=name.len()).rev().filter(|&end| name.is_char_boundary(end));
        let known =
            ends.map(|end| &name[..end]).find(|name| WITHOUT_SEMICOLON.binary_search(name).is_ok())?;
        out.push_str(named(known)?);
        Some(1 + known.len())
    })
}

/// Resolves references that can hardly be meant otherwise, as `ftfy` does: those with a semicolon. Names written in
/// capitals by mistake are known, too.
pub(super) fn unescape_certain(text: &str) -> Cow<'_, str> {
    replace(text, |reference, out| {
        let rest = &reference[1..];
        let is_number = rest.starts_with('#');
        let start = usize::from(is_number);
        let end = start + rest[start..].find(|character: char| !character.is_ascii_alphanumeric())?;
        if !(1..=LONGEST_CERTAIN_NAME).contains(&(end - start)) || !rest[end..].starts_with(';') {
            return None;
        }
        if is_number {
            let (number, length) = number(&rest[1..])?;
            // All of it, and not to what separates references.
            if length != rest[1..end].len() + 1 || number == u32::from(';') {
                return None;
            }
            push_number(number, out);
        } else {
            match named(&rest[..end]) {
                Some(value) => out.push_str(value),
                None => out.push_str(&in_capitals(&rest[..end])?),
            }
        }
        Some(1 + end + 1)
    })
}

/// Has `resolve` write what stands for a reference at the start of a text, and say how long it is.
fn replace(text: &str, resolve: impl Fn(&str, &mut String) -> Option<usize>) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut done, mut from) = (0, 0);
    while let Some(at) = text[from..].find('&').map(|at| from + at) {
        let before = out.len();
        out.push_str(&text[done..at]);
        match resolve(&text[at..], &mut out) {
            Some(length) => (done, from) = (at + length, at + length),
            None => {
                out.truncate(before);
                from = at + 1;
            }
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

fn named(name: &str) -> Option<&'static str> {
    let found = NAMED_ENTITIES.binary_search_by(|(known, _)| known.cmp(&name.as_bytes()));
    found.ok().map(|place| NAMED_ENTITIES[place].1)
}

/// The capital of what a name means that should have been written small.
fn in_capitals(name: &str) -> Option<String> {
    if name.contains(|character: char| character.is_ascii_lowercase()) {
        return None;
    }
    // `&GTDOT;` means `>DOT;` to a browser.
    let begins_with_another =
        (2..=name.len()).any(|end| WITHOUT_SEMICOLON.binary_search(&&name[..end]).is_ok());
    let value = named(&name.to_ascii_lowercase()).filter(|_| !begins_with_another)?;
    Some(value.to_uppercase())
}

/// Reads a number in decimal, or after an x in hexadecimal, and a semicolon if there is one. Returns how long it is.
fn number(digits: &str) -> Option<(u32, usize)> {
    let (radix, start) = if digits.starts_with(['x', 'X']) { (16, 1) } else { (10, 0) };
    let is_digit = |character: char| character.is_digit(radix);
    let end = digits[start..].find(|character| !is_digit(character)).map_or(digits.len(), |at| start + at);
    if end == start {
        return None;
    }
    // What is too large for the type is too large for a character.
    let number = u32::from_str_radix(&digits[start..end], radix).unwrap_or(u32::MAX);
    Some((number, end + usize::from(digits[end..].starts_with(';'))))
}

fn push_number(number: u32, out: &mut String) {
    match number {
        0 => out.push(char::REPLACEMENT_CHARACTER),
        0x80..=0x9f => out.push(windows_1252(number as u8)),
        // Neither characters nor forbidden in so many words: nothing.
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => {}
        _ if number & 0xfffe == 0xfffe && number <= 0x0010_ffff => {}
        _ => out.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

/// What Windows shows for a byte, or the control character where it shows nothing.
pub(super) fn windows_1252(byte: u8) -> char {
    const FROM_80: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => FROM_80[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_what_python_takes_them_for() {
        for (text, expected) in [
            ("no reference", "no reference"),
            ("&lt;a&gt; &amp;amp; &#38; &#x26;&#X26", "<a> &amp; & &&"),
            ("this&not that &notit; &notin;", "this¬ that ¬it; ∉"),
            ("&ampersand & &; &#; &#x; &", "&ersand & &; &#; &#x; &"),
            ("&#0;&#128;&#x9d;&#1;&#xd800;&#x110000;&#65535;", "\u{fffd}€\u{9d}\u{fffd}\u{fffd}"),
            ("&#99999999999999999999;", "\u{fffd}"),
            ("&CounterClockwiseContourIntegral;", "∳"),
            ("&größe; &&amp;", "&größe; &&"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn only_certain_references_are_resolved_where_text_may_hold_others() {
        for (text, expected) in [
            ("&lt;&notin; this&not that &amp &ampx;", "<∉ this&not that &amp &ampx;"),
            ("P&EACUTE;REZ BUNDESSTRA&SZLIG;E &nTILDE; &GTDOT;", "PÉREZ BUNDESSTRASSE &nTILDE; &GTDOT;"),
            ("&#59; &#x3b; &#65; &#65x; &#12", "&#59; &#x3b; A &#65x; &#12"),
        ] {
            assert_eq!(unescape_certain(text), expected, "{text}");
        }
    }
}
