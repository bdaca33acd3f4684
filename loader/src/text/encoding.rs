use std::sync::LazyLock;

use encoding_rs::{
    Encoding, ISO_8859_2, MACINTOSH, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252, WINDOWS_1253, WINDOWS_1254,
    WINDOWS_1257,
};

/// The upper half of the IBM PC's characters.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±\
                             ≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// What stands for a byte that was lost, in text and in bytes.
const LOST: (char, u8) = (char::REPLACEMENT_CHARACTER, 0x1a);

/// An encoding of one byte a character, of which the lower half is ASCII.
#[derive(Debug)]
pub(super) struct SingleByte {
    pub(super) kind: Kind,
    /// Characters of the upper half.
    upper: [char; 128],
    /// The same with their bytes, in order.
    bytes: Vec<(char, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Latin1,
    /// Bytes without a character stand for control characters, and a lost character for a byte.
    Windows,
    Macintosh,
    Other,
}

/// The encodings that text is taken for by mistake, in the order in which `ftfy` tries them.
pub(super) static SINGLE_BYTE: LazyLock<[SingleByte; 10]> = LazyLock::new(|| {
    let windows = |encoding| SingleByte::new(Kind::Windows, |byte| decode(encoding, byte));
    [
        SingleByte::new(Kind::Latin1, char::from),
        windows(WINDOWS_1252),
        windows(WINDOWS_1251),
        windows(WINDOWS_1250),
        windows(WINDOWS_1253),
        windows(WINDOWS_1254),
        windows(WINDOWS_1257),
        SingleByte::new(Kind::Other, |byte| decode(ISO_8859_2, byte)),
        SingleByte::new(Kind::Macintosh, |byte| decode(MACINTOSH, byte)),
        SingleByte::new(Kind::Other, |byte| {
            CODE_PAGE_437.chars().nth(usize::from(byte - 0x80)).expect("half of 256 characters are listed")
        }),
    ]
});

fn decode(encoding: &'static Encoding, byte: u8) -> char {
    let bytes = [byte];
    let (text, _) = encoding.decode_without_bom_handling(&bytes);
    text.chars().next().filter(|&character| character != LOST.0).unwrap_or(char::from(byte))
}

impl SingleByte {
    fn new(kind: Kind, character: impl Fn(u8) -> char) -> Self {
        let upper = std::array::from_fn(|place| character(0x80 + place as u8));
        let mut bytes: Vec<(char, u8)> = upper.into_iter().zip(0x80..=0xff).collect();
        if kind == Kind::Windows {
            bytes.push(LOST);
        }
        bytes.sort_unstable();
        Self { kind, upper, bytes }
    }

    /// The bytes of a text; nothing where it has characters that are in no byte.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars()
            .map(|character| match u8::try_from(character) {
                Ok(LOST_BYTE) if self.kind == Kind::Windows => None,
                Ok(byte) if byte.is_ascii() => Some(byte),
                _ => {
                    let place = self.bytes.binary_search_by_key(&character, |&(known, _)| known).ok()?;
                    Some(self.bytes[place].1)
                }
            })
            .collect()
    }

    /// What bytes of the upper half stand for.
    pub(super) fn characters(&self, bytes: std::ops::RangeInclusive<u8>) -> &[char] {
        &self.upper[usize::from(bytes.start() - 0x80)..=usize::from(bytes.end() - 0x80)]
    }
}

const LOST_BYTE: u8 = LOST.1;

/// Decodes UTF-8, and two variants of it that Java and old databases write: a zero in two bytes, and characters beyond 16
/// bits as two surrogates of three bytes each.
pub(super) fn decode_utf8_variants(bytes: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        match *rest {
            // Whatever follows, as `ftfy` has it where it is not cut off.
            [0xc0, 0x80, ..] => {
                out.push(0);
                rest = &rest[2..];
            }
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let number =
                    bits(a, 0x0f, 16) + bits(b, 0x3f, 10) + bits(c, 0x0f, 6) + bits(d, 0x3f, 0) + 0x1_0000;
                let character = char::from_u32(number)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[6..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}
