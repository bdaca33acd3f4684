use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use instant_clip_tokenizer::Tokenizer as Bpe;

use super::clean::{mend, words};
#[cfg(feature = "tokenizer-json")]
use super::file::{FileTokenizer, TokenizerError, TokenizerFile};

/// Tokens that every caption has: start and end.
pub(crate) const MIN_CONTEXT_LENGTH: usize = 2;

/// Merging takes time quadratic in the length of a word, and captions come from anywhere. A word of this length fills
/// any usual context, so cutting it changes no token that would be kept.
const LONGEST_WORD_BYTES: usize = 4096;

/// Words that a thread remembers, of at most this length: 2 MB.
const MOST_KNOWN: usize = 1 << 14;
const LONGEST_KNOWN_BYTES: usize = 32;

/// Turns captions into token ids: CLIP's own, or any that a `tokenizer.json` describes.
///
/// CLIP's byte pair encoding with its vocabulary of 49,408 tokens is built in. Its ids are those of OpenCLIP's
/// `SimpleTokenizer`, including its cleaning, with these exceptions:
///
/// * A long s after an apostrophe is a letter, no contraction, and an iota subscript that stands alone is none.
/// * Characters that are new in Unicode are letters and have small forms as soon as Rust knows them.
/// * Words longer than 4,096 bytes are cut, which changes no token within the first 77 (but may in longer rows), and references within references
///   are resolved 64 times.
///
/// Cheap to clone.
///
/// # Examples
/// ```
/// use fastclip_loader::Tokenizer;
///
/// let tokenizer = Tokenizer::clip();
/// let mut tokens = [0; 10];
/// let length = tokenizer.encode_into("A photo  of a cat", &mut tokens);
/// assert_eq!(length, 7);
/// assert_eq!(tokens, [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0, 0]);
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Clip(Arc<Bpe>),
    #[cfg(feature = "tokenizer-json")]
    File(Arc<FileTokenizer>),
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.kind {
            Kind::Clip(_) => "clip",
            #[cfg(feature = "tokenizer-json")]
            Kind::File(_) => "file",
        };
        f.debug_tuple("Tokenizer").field(&name).finish()
    }
}

impl Tokenizer {
    /// The first token of every caption of [`clip`](Self::clip).
    pub const START: i32 = 49_406;
    /// The last token of every caption of [`clip`](Self::clip).
    pub const END: i32 = 49_407;
    /// Size of the vocabulary of [`clip`](Self::clip).
    pub const VOCABULARY: usize = 49_408;

    /// The tokenizer of OpenAI's and OpenCLIP's models. Takes some ten milliseconds to build.
    pub fn clip() -> Self {
        Self { kind: Kind::Clip(Arc::new(Bpe::new())) }
    }

    /// The tokenizer that a file of Hugging Face describes.
    ///
    /// # Errors
    /// When the file cannot be read or used, or does not say which token fills rows up.
    #[cfg(feature = "tokenizer-json")]
    pub fn from_file(file: &TokenizerFile) -> Result<Self, TokenizerError> {
        Ok(Self { kind: Kind::File(Arc::new(FileTokenizer::open(file)?)) })
    }

    /// Ids that there are: all lie below.
    pub fn vocabulary(&self) -> usize {
        match &self.kind {
            Kind::Clip(_) => Self::VOCABULARY,
            #[cfg(feature = "tokenizer-json")]
            Kind::File(file) => file.vocabulary(),
        }
    }

    /// Writes the tokens of a caption and fills the rest of the row up. Returns how many are not padding.
    ///
    /// CLIP's rows begin with [`START`](Self::START), end with [`END`](Self::END), and are filled with zeros. A file says
    /// itself what is put around a caption and behind it. A caption with more tokens than there is room is cut, and what
    /// belongs around it stays.
    ///
    /// # Panics
    /// When there is no room for start and end.
    pub fn encode_into(&self, text: &str, out: &mut [i32]) -> usize {
        assert!(out.len() >= MIN_CONTEXT_LENGTH, "no room for start and end in {} tokens", out.len());
        match &self.kind {
            Kind::Clip(bpe) => encode_clip(bpe, text, out),
            #[cfg(feature = "tokenizer-json")]
            Kind::File(file) => file.encode_into(text, out),
        }
    }

    /// Returns the tokens of a caption in a row of the given length.
    ///
    /// # Panics
    /// When there is no room for start and end.
    pub fn encode(&self, text: &str, context_length: usize) -> Vec<i32> {
        let mut tokens = vec![0; context_length];
        self.encode_into(text, &mut tokens);
        tokens
    }
}

fn encode_clip(bpe: &Bpe, text: &str, out: &mut [i32]) -> usize {
    out.fill(0);
    out[0] = Tokenizer::START;
    let room = out.len() - MIN_CONTEXT_LENGTH;
    let mut length = 1;
    // Tokens never cross space, so that words can be taken one by one, and no more of them than fit. Letters are made
    // small by the encoder.
    for word in words(&mend(text)) {
        if length > room {
            break;
        }
        with_tokens(bpe, word, |tokens| {
            let kept = &tokens[..tokens.len().min(room + 1 - length)];
            out[length..length + kept.len()].copy_from_slice(kept);
            length += kept.len();
        });
    }
    out[length] = Tokenizer::END;
    length + 1
}

/// Encodes a word, or remembers it: captions say the same few thousand words again and again, and merging takes most of
/// the time. A thread's memory needs no lock.
fn with_tokens<T>(bpe: &Bpe, word: &str, take: impl FnOnce(&[i32]) -> T) -> T {
    thread_local! {
        static KNOWN: RefCell<HashMap<Box<str>, Box<[i32]>>> = RefCell::default();
    }
    let encode = || {
        let mut tokens = Vec::new();
        bpe.encode(shorten(word), &mut tokens);
        tokens.into_iter().map(|token| i32::from(token.to_u16())).collect::<Box<[i32]>>()
    };
    if word.len() > LONGEST_KNOWN_BYTES {
        return take(&encode());
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(tokens) = known.get(word) {
            return take(tokens);
        }
        let tokens = encode();
        let result = take(&tokens);
        if known.len() < MOST_KNOWN {
            known.insert(word.into(), tokens);
        }
        result
    })
}

fn shorten(word: &str) -> &str {
    &word[..word.floor_char_boundary(LONGEST_WORD_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<i32> {
        let mut tokens = vec![0; 77];
        let length = Tokenizer::clip().encode_into(text, &mut tokens);
        assert!(tokens[length..].iter().all(|&token| token == 0));
        tokens.truncate(length);
        tokens
    }

    #[test]
    fn known_captions_have_their_known_tokens() {
        assert_eq!(ids("a photo of a cat"), [49406, 320, 1125, 539, 320, 2368, 49407]);
        assert_eq!(ids("Hi there"), [49406, 1883, 997, 49407]);
        assert_eq!(ids("How are you?"), [49406, 829, 631, 592, 286, 49407]);
        assert_eq!(ids(""), [49406, 49407]);
    }

    #[test]
    fn captions_are_cleaned_before_they_are_encoded() {
        let plain = ids("a photo of a cat & a dog");
        for same in [
            "  A Photo\tof a\n\nCAT & a dog ",
            "a photo of a cat &amp; a dog",
            "a photo of a cat &amp;amp; a dog",
            "a photo\u{a0}of\u{3000}a c\u{1f}at &#38; a dog",
        ] {
            assert_eq!(ids(same), plain, "{same:?}");
        }
        assert_eq!(ids("&lt;br&gt;"), ids("<br>"));
    }

    #[test]
    fn a_caption_beyond_the_context_is_cut_and_still_ends() {
        let tokenizer = Tokenizer::clip();
        let whole = tokenizer.encode("a photo of a cat", 7);
        assert_eq!(whole, [49406, 320, 1125, 539, 320, 2368, 49407]);
        assert_eq!(tokenizer.encode("a photo of a cat", 6), [49406, 320, 1125, 539, 320, 49407]);
        assert_eq!(tokenizer.encode("a photo of a cat", 2), [49406, 49407]);
        let mut tokens = [0; 77];
        assert_eq!(tokenizer.encode_into(&"cat ".repeat(5000), &mut tokens), 77);
        assert_eq!((tokens[75], tokens[76]), (2368, Tokenizer::END));
    }

    #[test]
    fn a_word_without_end_is_encoded_in_time_and_like_its_beginning() {
        let endless = "kjqzxvw".repeat(1 << 17);
        assert_eq!(ids(&endless), ids(&endless[..LONGEST_WORD_BYTES]));
        assert_eq!(ids(&"\u{4e2d}".repeat(1 << 16)).len(), 77);
    }
}
