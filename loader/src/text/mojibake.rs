//! Text that was decoded wrongly: UTF-8 that somebody took for an encoding of single bytes.
//!
//! The rules are `ftfy`'s (6.3), in whose tests their reasons are: they were found by looking at millions of posts. Text is
//! touched only if it holds combinations of characters that hardly anybody writes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use regex::{Regex, bytes};

use super::encoding::{Kind, SINGLE_BYTE, decode_utf8_variants};
use super::entity::windows_1252;

/// Kinds of characters that appear in wrongly decoded text, as the inside of a class of a regular expression.
mod class {
    pub(super) const COMMON: &str = r"\u{a0}\u{ad}´·–-\u{2015}’…";
    pub(super) const CONTROL: &str = r"\u{80}-\u{9f}";
    pub(super) const BAD: &str = r"¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}";
    pub(super) const LAW: &str = "§¶";
    pub(super) const CURRENCY: &str = "¢£¥₧€";
    pub(super) const START: &str = r"¡©«¿΄΅‘‚“„•‹\u{f8ff}";
    pub(super) const END: &str = "®»˝”›™";
    pub(super) const NUMERIC: &str = "±-³µ¹¼-¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥";
    pub(super) const FACES: &str = "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ";
    pub(super) const UPPER: &str = "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
    pub(super) const LOWER: &str = "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ";
    pub(super) const COMMON_UPPER: &str = "ÞΆΈ-ΊΌΎΏΑ-ΫЁ-Я";
    pub(super) const COMMON_LOWER: &str = "ά-ωа-џ";
    pub(super) const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓";
}

/// Finds what hardly anybody writes.
static UNLIKELY: LazyLock<Regex> = LazyLock::new(|| {
    use class::{
        BAD, BOX, COMMON, COMMON_LOWER, COMMON_UPPER, CONTROL, CURRENCY, END, FACES, LAW, LOWER, NUMERIC,
        START, UPPER,
    };
    let space = r"\s\x1c-\x1f";
    let letter = r"\p{L}\p{N}_";
    // Classes that follow each other.
    let rows: [&[&[&str]]; 32] = [
        &[&[CONTROL]],
        &[&[BAD, LOWER, UPPER, BOX, START, END, CURRENCY, NUMERIC, LAW], &[BAD]],
        &[&["a-zA-Z"], &[COMMON_LOWER, COMMON_UPPER], &[BAD]],
        &[&[BAD], &[LOWER, UPPER, BOX, START, END, CURRENCY, NUMERIC, LAW]],
        &[&[LOWER, COMMON_LOWER, BOX, END, CURRENCY, NUMERIC], &[UPPER]],
        &[&[BOX, END, CURRENCY, NUMERIC], &[LOWER]],
        &[&[LOWER, BOX, END], &[CURRENCY]],
        &[&[space], &[UPPER], &[CURRENCY]],
        &[&[UPPER, BOX], &[NUMERIC, LAW]],
        &[&[LOWER, UPPER, BOX, CURRENCY, END], &[START], &[NUMERIC]],
        &[&[LOWER, UPPER, CURRENCY, NUMERIC, BOX, LAW], &[END], &[START]],
        &[&[CURRENCY, NUMERIC, BOX], &[START]],
        &[&["a-z"], &[UPPER], &[START, CURRENCY]],
        &[&[BOX], &[FACES]],
        &[&[LOWER, UPPER, CURRENCY, NUMERIC, START, END, LAW], &[BOX]],
        &[&[BOX], &[END]],
        &[&[LOWER, UPPER], &[START, END], &[letter]],
        &[&["Œœ"], &["^A-Za-z"]],
        &[&[UPPER], &["°"]],
        // UTF-8 as Windows-1252.
        &[&["ÂÃÎÐ"], &[r"€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´", START, END]],
        &[&["×"], &["²³"]],
        &[
            &["ØÙ"],
            &[COMMON, CURRENCY, BAD, NUMERIC, START, "ŸŠ®°µ»"],
            &["ØÙ"],
            &[COMMON, CURRENCY, BAD, NUMERIC, START, "ŸŠ®°µ»"],
        ],
        &[&["à"], &["²µ¹¼½¾"]],
        // As MacRoman.
        &[&["√"], &["±∂†≠®™´≤≥¥µø"]],
        &[&["≈"], &["°¢"]],
        &[&["‚"], &["Ä"], &["ìîïòôúùû†°¢π"]],
        &[&["‚"], &["âó"], &["àä°ê"]],
        // As Windows-1251.
        &[&["в"], &["Ђ"]],
        &[&["ВГРС"], &[CONTROL, BAD, START, END, CURRENCY, "°µ"], &["ВГРС"]],
        // As Windows-1253 and -1257.
        &[&["β"], &["€"], &[r"™\u{a0}Ά\u{ad}®°"]],
        &[&["ΒΓΞΟ"], &[CONTROL, BAD, START, END, CURRENCY, "°"], &["ΒΓΞΟ"]],
        &[&["ā"], &["€"]],
    ];
    let classes =
        |row: &&[&[&str]]| row.iter().map(|parts| format!("[{}]", parts.concat())).collect::<String>();
    let mut alternatives: Vec<String> = rows.iter().map(classes).collect();
    alternatives.extend([
        "ГўВЂВ.[A-Za-z ]".to_owned(),
        r"Ã[\u{a0}¡]".to_owned(),
        format!("[a-z][{space}]?[ÃÂ] "),
        "^[ÃÂ] ".to_owned(),
        format!("[a-z.,?!{END}]Â[ {START}{END}]"),
    ]);
    Regex::new(&alternatives.join("|")).expect("the pattern is a constant")
});

/// Characters that bytes of UTF-8 become.
struct Clues {
    first_of_2: HashSet<char>,
    first_of_3: HashSet<char>,
    first_of_4: HashSet<char>,
    continuation: HashSet<char>,
}

/// Of continuations, those that people write as well.
const HARMLESS: &str = " –—―‘’‚“”„•…";

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    let become_of = |first: u8, last: u8| -> HashSet<char> {
        let usual =
            SINGLE_BYTE.iter().filter(|encoding| matches!(encoding.kind, Kind::Latin1 | Kind::Windows));
        usual.flat_map(|encoding| encoding.characters(first..=last)).copied().collect()
    };
    let mut continuation = become_of(0x80, 0xbf);
    // A hard space that became a common one.
    continuation.insert(' ');
    let mut first_of_4 = become_of(0xf0, 0xf4);
    first_of_4.retain(|character| !"ñòôńņňōρςτстф".contains(*character));
    Clues { first_of_2: become_of(0xc2, 0xdf), first_of_3: become_of(0xe0, 0xef), first_of_4, continuation }
});

impl Clues {
    /// Length in characters of one that was decoded wrongly, at the start of a text.
    fn sequence(&self, text: &[char]) -> Option<usize> {
        let first = text.first()?;
        let length = if self.first_of_2.contains(first) {
            2
        } else if self.first_of_3.contains(first) {
            3
        } else if self.first_of_4.contains(first) {
            4
        } else {
            return None;
        };
        let rest = text.get(1..length)?;
        rest.iter().all(|character| self.continuation.contains(character)).then_some(length)
    }

    /// Whether nobody writes this before a sequence, so that one cannot begin here.
    fn is_within(&self, before: char) -> bool {
        self.continuation.contains(&before) && !HARMLESS.contains(before)
    }
}

/// Sequences whose hard spaces became common ones.
static ALTERED: LazyLock<bytes::Regex> = LazyLock::new(|| {
    let pattern = r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9] |[\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] |\xf0 [\x80-\xbf][\x80-\xbf]|\xf0[\x80-\xbf] [\x80-\xbf]|\xf0[\x80-\xbf][\x80-\xbf] ";
    bytes::Regex::new(pattern).expect("the pattern is a constant")
});

/// Sequences of which bytes were lost.
static LOSSY: LazyLock<bytes::Regex> = LazyLock::new(|| {
    let pattern = r"(?-u)[\xc2-\xdf]\x1a|[\xc2-\xc3]\?|\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]|\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]|[\xe0-\xef][\x1a?][\x1a\x80-\xbf]|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]|[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]|[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]|[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]|\x1a";
    bytes::Regex::new(pattern).expect("the pattern is a constant")
});

/// Decodes text anew, as often as it was decoded wrongly. Nothing where it was not.
pub(super) fn decode_again(text: &str) -> Option<String> {
    let mut decoded = step(text)?;
    while let Some(better) = step(&decoded) {
        decoded = better;
    }
    Some(decoded)
}

/// Decodes text anew once, unless that leaves it as it is.
fn step(text: &str) -> Option<String> {
    if text.is_ascii() || !UNLIKELY.is_match(text) {
        return None;
    }
    let mut is_latin1 = false;
    for encoding in SINGLE_BYTE.iter() {
        let Some(mut bytes) = encoding.encode(text) else { continue };
        is_latin1 |= encoding.kind == Kind::Latin1;
        // Of MacRoman it would be a dash with a space behind it.
        if encoding.kind != Kind::Macintosh && ALTERED.is_match(&bytes) {
            bytes = restore_hard_spaces(&bytes);
        }
        if encoding.kind == Kind::Windows {
            bytes = LOSSY.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
        }
        if let Some(decoded) = decode_utf8_variants(&bytes) {
            return Some(decoded).filter(|decoded| decoded != text);
        }
    }
    if let Some(decoded) = decode_parts(text) {
        return Some(decoded);
    }
    let is_control = |character: char| matches!(character, '\u{80}'..='\u{9f}');
    let is_undefined = |character: char| is_control(character) && windows_1252(character as u8) == character;
    let of_windows =
        || text.chars().map(|c| if is_control(c) { windows_1252(c as u8) } else { c }).collect::<String>();
    if is_latin1 && text.contains(is_control) && !text.contains(is_undefined) {
        return Some(of_windows());
    }
    text.contains(is_control).then(of_windows).filter(|decoded| decoded != text)
}

/// Undoes the loss of hard spaces where that makes UTF-8.
fn restore_hard_spaces(bytes: &[u8]) -> Vec<u8> {
    // After Ã most often "à", a word of its own, with its space; except in Portuguese words that begin with it.
    const WITHOUT_SPACE: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut spaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        match after.strip_prefix(b" ") {
            Some(word) if first == 0xc3 && !WITHOUT_SPACE.iter().any(|start| word.starts_with(start)) => {
                spaced.extend_from_slice(b"\xc3\xa0 ");
                rest = word;
            }
            _ => {
                spaced.push(first);
                rest = after;
            }
        }
    }
    let hard = |found: &bytes::Captures<'_>| -> Vec<u8> {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect()
    };
    ALTERED.replace_all(&spaced, hard).into_owned()
}

/// Decodes the parts of a text that were decoded wrongly, where others were not.
fn decode_parts(text: &str) -> Option<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut is_changed = false;
    let mut at = 0;
    while at < characters.len() {
        let start = at;
        if start == 0 || !CLUES.is_within(characters[start - 1]) {
            while let Some(length) = CLUES.sequence(&characters[at..]) {
                at += length;
            }
        }
        if at == start {
            out.push(characters[at]);
            at += 1;
            continue;
        }
        let part: String = characters[start..at].iter().collect();
        // Of a whole text the question has been answered already.
        let decoded = (at - start < characters.len()).then(|| decode_again(&part)).flatten();
        is_changed |= decoded.is_some();
        out.push_str(&decoded.map_or(Cow::Borrowed(&part[..]), Cow::Owned));
    }
    is_changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decoded_wrongly_is_decoded_again_and_nothing_else() {
        for (text, expected) in [
            ("schÃ¶n", "schön"),
            ("voilÃ  le travail", "voilà le travail"),
            ("âœ” No problems", "✔ No problems"),
            ("â€œquotedâ€\u{9d}", "“quoted”"),
            ("â€œ lost â€\u{fffd}", "“ lost \u{fffd}"),
            ("l’humanitÃ©", "l’humanité"),
            ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
            ("Ã©tÃ© â€” 日本", "été — 日本"),
            ("\u{91}windows\u{92}", "‘windows’"),
        ] {
            assert_eq!(decode_again(text).as_deref(), Some(expected), "{text}");
        }
        for sound in [
            "schön",
            "Ærøskøbing",
            "naïve café",
            "写真",
            "“quoted”",
            "À la carte",
            "¿Qué?",
            "50 £",
            "ÁRVÍZTŰRŐ",
        ] {
            assert_eq!(decode_again(sound), None, "{sound}");
        }
    }
}
