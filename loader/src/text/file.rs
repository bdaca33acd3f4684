use std::fmt;
use std::path::PathBuf;

use tokenizers::{EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationDirection};

use super::Cleaning;

/// Names under which files know the token that fills rows up, unless they say so.
const USUAL_PADDING: [&str; 2] = ["<pad>", "[PAD]"];

/// A `tokenizer.json` of Hugging Face, and what OpenCLIP keeps beside it in model configs.
///
/// What stands around a caption (`[CLS]` and `[SEP]`, T5's `</s>`, or nothing) is the file's `post_processor`. Which token
/// fills rows up is the file's `padding`, or else `<pad>` or `[PAD]` if it has one; [`pad`](Self::pad) names another, as
/// SigLIP's models need, which are trained with `</s>` there. The length of rows and how captions are cut are the
/// loader's, whatever the file's `truncation` says: at the end, with all that belongs around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is done to captions before: `clean` in `tokenizer_kwargs` of a model config.
    pub cleaning: Cleaning,
    /// The token that fills rows up, where the file's own is not meant.
    pub pad: Option<String>,
}

impl TokenizerFile {
    /// A file, with OpenCLIP's default cleaning and its own padding.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cleaning: Cleaning::default(), pad: None }
    }
}

/// Why a file is no tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// It cannot be read, or does not describe a tokenizer.
    #[error("could not read the tokenizer `{}`", path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: tokenizers::Error,
    },
    /// Nothing says what fills rows up.
    #[error("the tokenizer `{}` names no padding and has neither `<pad>` nor `[PAD]`: name a token", path.display())]
    NoPadding {
        /// Where it is.
        path: PathBuf,
    },
    /// The token that should fill rows up is unknown.
    #[error("the tokenizer `{}` has no token `{token}` to fill rows up with", path.display())]
    Padding {
        /// Where it is.
        path: PathBuf,
        /// The name asked for.
        token: String,
    },
    /// An id has no place in a batch.
    #[error("the tokenizer `{}` has the id {id}, where ids end at {}", path.display(), i32::MAX - 1)]
    LargeId {
        /// Where it is.
        path: PathBuf,
        /// Its largest id.
        id: u32,
    },
}

/// A tokenizer from a file.
pub(super) struct FileTokenizer {
    tokenizer: Tokenizer,
    cleaning: Cleaning,
    pad: i32,
    /// Tokens that it puts around every caption.
    num_around: usize,
    /// All ids lie below, and below `i32::MAX`.
    vocabulary: usize,
}

impl fmt::Debug for FileTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTokenizer")
            .field("cleaning", &self.cleaning)
            .field("pad", &self.pad)
            .finish_non_exhaustive()
    }
}

impl FileTokenizer {
    pub(super) fn open(file: &TokenizerFile) -> Result<Self, TokenizerError> {
        let path = || file.path.clone();
        let mut tokenizer = Tokenizer::from_file(&file.path)
            .map_err(|source| TokenizerError::Read { path: path(), source })?;
        let id = |token: &str| tokenizer.token_to_id(token);
        let pad = match (&file.pad, tokenizer.get_padding()) {
            (Some(token), _) => {
                id(token).ok_or_else(|| TokenizerError::Padding { path: path(), token: token.clone() })?
            }
            (None, Some(padding)) => padding.pad_id,
            (None, None) => USUAL_PADDING
                .into_iter()
                .find_map(id)
                .ok_or_else(|| TokenizerError::NoPadding { path: path() })?,
        };
        let num_around = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("only a truncation can be refused");
        // What is put around a caption and behind it need not be in the vocabulary.
        let around = tokenizer.encode_fast("", true);
        let around = around.as_ref().map_or(&[][..], Encoding::get_ids).iter().copied();
        let id = tokenizer.get_vocab(true).into_values().chain(around).fold(pad, u32::max);
        if id >= i32::MAX as u32 {
            return Err(TokenizerError::LargeId { path: path(), id });
        }
        let vocabulary = id as usize + 1;
        Ok(Self { tokenizer, cleaning: file.cleaning, pad: pad as i32, num_around, vocabulary })
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(super) fn encode_into(&self, text: &str, out: &mut [i32]) -> usize {
        let text = self.cleaning.clean(text);
        let encoding = self.encode(&text, out.len().saturating_sub(self.num_around));
        let ids = encoding.as_ref().map_or(&[][..], Encoding::get_ids);
        out.fill(self.pad);
        for (place, &id) in out.iter_mut().zip(ids) {
            *place = id as i32;
        }
        ids.len().min(out.len())
    }

    /// The tokens of a text, cut to the room that there is between those around it.
    ///
    /// Nothing where the tokenizer fails: some know no token for what they do not know, and such a caption says nothing.
    fn encode(&self, text: &str, room: usize) -> Option<Encoding> {
        let mut encoding = self.tokenizer.encode_fast(EncodeInput::from(text), false).ok()?;
        encoding.truncate(room, 0, TruncationDirection::Right);
        self.tokenizer.post_process(encoding, None, true).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::Tokenizer;

    fn written(tokenizer: &Value) -> (TempDir, TokenizerFile) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, tokenizer.to_string()).unwrap();
        (folder, TokenizerFile::new(path))
    }

    /// A tokenizer of words, like BERT's.
    fn words() -> Value {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
        json!({
            "version": "1.0", "truncation": {"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": null,
            "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [token("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, token("[SEP]")],
                "pair": [],
                "special_tokens": {
                    "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                    "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}
                }
            },
            "decoder": null,
            "model": {
                "type": "WordLevel", "unk_token": "[UNK]",
                "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "photo": 5, "of": 6, "cat": 7, "Cat": 8}
            }
        })
    }

    /// A tokenizer of pieces like SigLIP's, which is T5's: an end but no start.
    fn pieces() -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
            },
            "decoder": null,
            "model": {
                "type": "Unigram", "unk_id": 2,
                "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.0], ["▁a", -1.0], ["▁cat", -3.0],
                          ["s", -2.5], ["▁photo", -3.0], ["t", -5.0], ["c", -5.0]]
            }
        })
    }

    #[test]
    fn what_the_file_puts_around_a_caption_stays_when_it_is_cut() {
        let (_folder, file) = written(&words());
        let tokenizer = Tokenizer::from_file(&file).unwrap();
        assert_eq!(tokenizer.vocabulary(), 9);
        let mut row = [9; 8];
        assert_eq!(tokenizer.encode_into("a  photo of a &quot;Cat", &mut row), 8);
        assert_eq!(row, [2, 4, 5, 6, 4, 1, 8, 3]);
        assert_eq!(tokenizer.encode_into("a cat", &mut row), 4);
        assert_eq!(row, [2, 4, 7, 3, 0, 0, 0, 0]);
        assert_eq!(tokenizer.encode("a photo of a cat", 4), [2, 4, 5, 3]);
        let tokenizer =
            Tokenizer::from_file(&TokenizerFile { cleaning: Cleaning::Canonicalize, ..file }).unwrap();
        assert_eq!(tokenizer.encode("A Photo, of_a CAT!", 8), [2, 4, 5, 6, 4, 7, 3, 0]);
    }

    #[test]
    fn a_named_token_fills_rows_up() {
        let (_folder, file) = written(&pieces());
        assert_eq!(Tokenizer::from_file(&file).unwrap().encode("a cats", 6), [4, 5, 6, 1, 0, 0]);
        let end = TokenizerFile { pad: Some("</s>".to_owned()), ..file.clone() };
        let tokenizer = Tokenizer::from_file(&end).unwrap();
        let mut row = [0; 6];
        assert_eq!(tokenizer.encode_into("a cats", &mut row), 4);
        assert_eq!(row, [4, 5, 6, 1, 1, 1]);
        let unknown = TokenizerFile { pad: Some("<none>".to_owned()), ..file };
        let error = Tokenizer::from_file(&unknown).unwrap_err().to_string();
        assert!(error.ends_with("has no token `<none>` to fill rows up with"), "{error}");
    }

    #[test]
    fn all_ids_lie_below_the_size_of_the_vocabulary_whatever_gaps_it_has() {
        let mut with_gap = words();
        with_gap["model"]["vocab"]["dog"] = 70.into();
        let (_folder, file) = written(&with_gap);
        let tokenizer = Tokenizer::from_file(&file).unwrap();
        assert_eq!((tokenizer.vocabulary(), tokenizer.encode("dog", 3)), (71, vec![2, 70, 3]));
        // Around every caption stands what no list names.
        with_gap["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([99]);
        let (_folder, file) = written(&with_gap);
        let tokenizer = Tokenizer::from_file(&file).unwrap();
        assert_eq!((tokenizer.vocabulary(), tokenizer.encode("dog", 3)), (100, vec![2, 70, 99]));
        for path in ["/model/vocab/dog", "/post_processor/special_tokens/[SEP]/ids/0"] {
            let mut large = with_gap.clone();
            *large.pointer_mut(path).unwrap() = 3_000_000_000_u32.into();
            let (_folder, file) = written(&large);
            let error = Tokenizer::from_file(&file).unwrap_err().to_string();
            assert!(error.ends_with("has the id 3000000000, where ids end at 2147483646"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_refused_by_name() {
        let (_folder, file) = written(&json!({"version": "1.0"}));
        let error = Tokenizer::from_file(&file).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        let mut tokenizer = pieces();
        tokenizer["model"]["vocab"][0][0] = "x".into();
        let (_folder, file) = written(&tokenizer);
        assert!(matches!(Tokenizer::from_file(&file), Err(TokenizerError::NoPadding { .. })));
    }
}
