use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::entity::{unescape_certain, windows_1252};
use super::mojibake::decode_again;

/// Mistakes within mistakes that are mended. `ftfy` knows no end, and `&amp;amp;amp;…` would take it hours.
const MOST_PASSES: usize = 64;

/// Mends text as `ftfy.fix_text` does: references, wrong decoding, ligatures, full-width letters, curly quotes, line breaks,
/// terminal escapes, control characters, combining marks.
pub(super) fn fix_text(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut is_markup = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // What has tags is HTML, and from there on its references are meant.
        is_markup |= line.contains('<');
        out.push_str(&fix_line(line, is_markup));
    }
    Cow::Owned(out)
}

/// Whether a byte, among others of the kind, leaves nothing to mend.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'%' | b'\''..=b'~' | b'\t' | b'\n' | b'\x0c')
}

fn fix_line(line: &str, is_markup: bool) -> Cow<'_, str> {
    let mut line = Cow::Borrowed(line);
    // One mistake may hide another: `&amp;amp;`.
    for _ in 0..MOST_PASSES {
        let fixed = fix_once(&line, is_markup);
        if fixed == line {
            break;
        }
        line = Cow::Owned(fixed.into_owned());
    }
    line
}

fn fix_once(line: &str, is_markup: bool) -> Cow<'_, str> {
    let text = if is_markup { Cow::Borrowed(line) } else { unescape_certain(line) };
    let text = then(text, decode_again);
    let text = then(text, fix_characters);
    let text = then(text, remove_terminal_escapes);
    let text = then(text, remove_control_characters);
    then(text, compose)
}

/// Applies a change that seldom has anything to do.
fn then<'a>(text: Cow<'a, str>, change: impl Fn(&str) -> Option<String>) -> Cow<'a, str> {
    change(&text).map_or(text, Cow::Owned)
}

/// Replaces characters that stand for others, one by one.
fn fix_characters(text: &str) -> Option<String> {
    if text.is_ascii() && !text.contains('\r') {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\r' => {
                characters.next_if_eq(&'\n');
                out.push('\n');
            }
            '\u{80}'..='\u{9f}' => push_straight(windows_1252(character as u8), &mut out),
            '\u{3000}' => out.push(' '),
            '\u{ff01}'..='\u{ffef}' => std::iter::once(character).nfkc().for_each(|wide| out.push(wide)),
            _ => match letters(character) {
                Some(letters) => out.push_str(letters),
                None => push_straight(character, &mut out),
            },
        }
    }
    Some(out)
}

/// Appends a character, a quotation mark without its curl.
fn push_straight(character: char, out: &mut String) {
    out.push(match character {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        other => other,
    });
}

/// The letters of a Latin ligature or digraph.
fn letters(character: char) -> Option<&'static str> {
    Some(match character {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        // Its apostrophe is a curly one.
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Removes what colours text on terminals.
fn remove_terminal_escapes(text: &str) -> Option<String> {
    static ESCAPE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("the pattern is a constant"));
    text.contains('\u{1b}').then(|| ESCAPE.replace_all(text, "").into_owned())
}

/// Removes characters that show nothing and that nobody meant to write.
fn remove_control_characters(text: &str) -> Option<String> {
    let is_control = |character: char| {
        matches!(
            character,
            '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffc}'
        )
    };
    text.contains(is_control).then(|| text.replace(is_control, ""))
}

/// Puts letters and their marks together.
fn compose(text: &str) -> Option<String> {
    (!text.is_ascii() && !is_nfc(text)).then(|| text.nfc().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_mended_also_where_one_hides_another() {
        for (text, expected) in [
            ("plain text, <b> & all", "plain text, <b> & all"),
            ("ﬂuﬃeﬆ", "fluffiest"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ Ｕﾀｰﾝ", "LOUD NOISES Uターン"),
            ("“It’s” ‚low‛", "\"It's\" 'low'"),
            ("&amp;amp; &ldquo;", "& \""),
            ("a\r\nb\rc\u{2028}d\u{85}e", "a\nb\nc\nd…e"),
            ("\u{1b}[36;44mblue\u{1b}[0m \u{1b}x", "blue x"),
            ("\u{feff}a\u{0}b\u{7f}c\u{200d}", "abc\u{200d}"),
            ("e\u{301} \u{212b}", "é Å"),
            ("\u{91}windows\u{92}", "'windows'"),
            ("ŉ &#x149;", "'n 'n"),
        ] {
            assert_eq!(fix_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn mistakes_within_mistakes_without_end_are_left_in_time() {
        let nested = format!("&{}lt;", "amp;".repeat(1 << 16));
        let fixed = fix_text(&nested);
        assert_eq!(fixed.len(), nested.len() - 4 * MOST_PASSES);
    }

    #[test]
    fn references_of_markup_are_left_alone_from_its_first_line_on() {
        assert_eq!(fix_text("a &amp; b\n<i> &amp; c\nd &amp; e"), "a & b\n<i> &amp; c\nd &amp; e");
    }
}
