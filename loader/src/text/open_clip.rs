//! OpenCLIP's own tokenizer on captions of every kind: the proof of [`Tokenizer::clip`](super::Tokenizer::clip).

use std::fs;
use std::path::Path;

use fastclip_testkit::Python;
use tempfile::TempDir;

use super::Tokenizer;
use super::entity::windows_1252;
use super::fix::fix_text;
use crate::plan::{Draws, Purpose};

const SCRIPT: &str = include_str!("../../testdata/open_clip_tokens.py");
const NUM_CAPTIONS: u64 = 21_000;
const CONTEXT_LENGTH: usize = 77;

const WORDS: [&str; 36] = [
    "a",
    "photo",
    "of",
    "the",
    "cat",
    "it's",
    "they'll",
    "we've",
    "I'd",
    "ROCK'N'ROLL",
    "Dr.",
    "2,000",
    "No.7",
    "e-mail",
    "https://example.com/a?b=1&c=2",
    "don't",
    "STRASSE",
    "Straße",
    "ΟΔΥΣΣΕΥΣ",
    "Σ",
    "İstanbul",
    "ILIK",
    "ışık",
    "naïve",
    "café",
    "ñandú",
    "Ærøskøbing",
    "smörgåsbord",
    "<end_of_text>",
    "<START_OF_TEXT>",
    "#tag",
    "@user",
    "___",
    "...",
    "C++",
    "(sic)",
];
const PIECES: [&str; 48] = [
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "👍🏽",
    "🇩🇪🇫🇷",
    "❤️❤️",
    "😂😂😂",
    "🏴󠁧󠁢󠁷󠁬󠁳󠁿",
    "写真の猫",
    "一只猫",
    "고양이 사진",
    "ｆｕｌｌ　ｗｉｄｔｈ",
    "ﾊﾝｶｸ",
    "사진",
    "กล้อง",
    "फ़ोटो",
    "صورة قطة",
    "תמונה",
    "\u{202e}rtl\u{202c}",
    "\u{200f}mark",
    "zero\u{200b}width",
    "soft\u{ad}hyphen",
    "no\u{a0}break",
    "thin\u{2009}space",
    "line\u{2028}break",
    "\u{3000}",
    "tab\there",
    "\r\n",
    "\u{1c}",
    "\u{85}",
    "bell\u{7}",
    "nul\u{0}",
    "\u{feff}bom",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{fffc}",
    "e\u{301}t\u{e9}",
    "A\u{30a}ngstro\u{308}m",
    "q\u{323}\u{307}",
    "Z\u{351}\u{36b}\u{343}a\u{489}l\u{334}g\u{300}o",
    "ﬁne ﬂuﬀy",
    "ĳs ǆep ŉ",
    "“curly” ‘quotes’",
    "x² ½ Ⅷ ①",
    "١٢٣ ४५",
    "ßẞſ",
    "\\ud83d\\ude00",
    "☕️ ™ ©",
    "𝕱𝖗𝖆𝖐𝖙𝖚𝖗 𝟙𝟚",
    "\u{e000}\u{10ffff}",
];
const REFERENCES: [&str; 24] = [
    "&amp;",
    "&amp;amp;",
    "&amp;lt;b&amp;gt;",
    "&lt;",
    "&nbsp;",
    "&eacute;",
    "&EACUTE;",
    "&copy",
    "&notit;",
    "&not",
    "&#39;",
    "&#x27;",
    "&#128512;",
    "&#xD83D;&#xDE00;",
    "&#0;",
    "&#150;",
    "&#7;",
    "&#59;",
    "&ldquo;",
    "&CounterClockwiseContourIntegral;",
    "&unknown;",
    "&;",
    "&",
    "<br>",
];

fn pick<'a>(draws: &mut Draws, from: &[&'a str]) -> &'a str {
    from[draws.below(from.len() as u32) as usize]
}

/// Parts of Unicode without gaps, which all libraries know alike however old they are. The one character left out in their
/// midst is the iota subscript, a documented exception.
const BLOCKS: [(u32, u32); 19] = [
    (0x0, 0x20),
    (0x21, 0x7e),
    (0x7f, 0x9f),
    (0xa0, 0x24f),
    (0x250, 0x344),
    (0x391, 0x3a1),
    (0x3a3, 0x3ff),
    (0x400, 0x527),
    (0x5d0, 0x5ea),
    (0x620, 0x652),
    (0x904, 0x939),
    (0x1e00, 0x1f15),
    (0x2000, 0x2064),
    (0x2100, 0x23cf),
    (0x3041, 0x3096),
    (0x4e00, 0x9fa5),
    (0xac00, 0xd7a3),
    (0xff01, 0xffbe),
    (0x1_f300, 0x1_f5ff),
];

/// Any character of any block.
fn character(draws: &mut Draws) -> char {
    let (first, last) = BLOCKS[draws.below(BLOCKS.len() as u32) as usize];
    char::from_u32(first + draws.below(last - first + 1)).expect("no block holds surrogates")
}

/// Text whose UTF-8 was taken for Windows-1252.
fn mojibake(text: &str) -> String {
    text.bytes().map(windows_1252).collect()
}

fn caption(number: u64) -> String {
    let mut draws = Draws::new(Purpose::Caption, 1, 2, number);
    let mut text = String::new();
    let num_parts = match draws.below(100) {
        0 => 200 + draws.below(800),
        1 => 0,
        _ => 1 + draws.below(16),
    };
    let kind = number % 5;
    for _ in 0..num_parts {
        match (kind, draws.below(10)) {
            (0, _) | (_, 0..=4) => text.push_str(pick(&mut draws, &WORDS)),
            (1, _) => text.push_str(pick(&mut draws, &REFERENCES)),
            (2, _) | (_, 5..=6) => text.push_str(pick(&mut draws, &PIECES)),
            (3, _) => (0..draws.below(6)).for_each(|_| text.push(character(&mut draws))),
            _ => text.push_str(&mojibake(pick(
                &mut draws,
                &["“quoted”", "schön", "naïve café", "写真", "日本", "it’s", "№ 5"],
            ))),
        }
        if draws.below(5) > 0 {
            text.push_str([" ", " ", " ", "  ", "\t", "\n", "-", ", "][draws.below(8) as usize]);
        }
    }
    text
}

fn rows(folder: &Path, name: &str) -> Vec<[i32; CONTEXT_LENGTH]> {
    let bytes = fs::read(folder.join(name)).unwrap();
    let ids: Vec<i32> = bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect();
    ids.as_chunks().0.to_vec()
}

#[test]
fn ids_are_open_clips_on_captions_of_every_kind() {
    let folder = TempDir::new().unwrap();
    let captions: Vec<String> = (0..NUM_CAPTIONS).map(caption).collect();
    fs::write(folder.path().join("captions.json"), serde_json::to_string(&captions).unwrap()).unwrap();
    Python::new().run(SCRIPT, &[folder.path()]);
    let theirs = rows(folder.path(), "tokens.i32");
    let undecoded = rows(folder.path(), "undecoded.i32");
    assert_eq!((theirs.len(), undecoded.len()), (captions.len(), captions.len()));

    let tokenizer = Tokenizer::clip();
    let mut differing = Vec::new();
    let mut num_undecoded = 0;
    // Newer tables of Unicode than ours may know such characters, and call them letters.
    let unknown = regex::Regex::new(r"\p{Cn}").unwrap();
    let mut num_unknown = 0;
    for ((caption, theirs), undecoded) in captions.iter().zip(&theirs).zip(&undecoded) {
        let ours = tokenizer.encode(caption, CONTEXT_LENGTH);
        num_undecoded += usize::from(theirs != undecoded);
        if unknown.is_match(&fix_text(caption)) {
            num_unknown += 1;
        } else if ours != *theirs {
            differing.push(caption);
        }
    }
    assert!(
        num_undecoded > 1000,
        "the captions hold too little text that was decoded wrongly: {num_undecoded}"
    );
    assert!(num_unknown < captions.len() / 20, "{num_unknown} captions are not compared");
    println!(
        "{} captions, {num_undecoded} of them decoded wrongly before, {num_unknown} not compared",
        captions.len()
    );
    let shown: Vec<String> = differing.iter().take(20).map(|caption| format!("{caption:?}")).collect();
    assert!(differing.is_empty(), "{} captions differ, first\n{}", differing.len(), shown.join("\n"));
}
