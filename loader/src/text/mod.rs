//! Captions: which one of a sample, cleaned, as token ids.
//!
//! OpenCLIP cleans captions with `ftfy` and Python's `html` before it encodes them, and models were trained on what came
//! out. So the same is done here, function by function; the test `open_clip` compares ids with the original.
//!
//! | module | is what Python calls |
//! |---|---|
//! | `entity` | `html.unescape`, and `ftfy`'s more careful one |
//! | `fix` | `ftfy.fix_text` |
//! | `mojibake`, `encoding` | `ftfy.fix_encoding`, and the encodings that it knows |
//! | `clean`, `cleaning` | OpenCLIP's `get_clean_fn` |
//! | `tokenizer` | `SimpleTokenizer`, and `HFTokenizer` for files |
//! | `caption` | nothing: webdataset's users write it themselves |

mod caption;
mod clean;
#[cfg(feature = "tokenizer-json")]
mod cleaning;
mod encoding;
mod entity;
#[cfg(feature = "tokenizer-json")]
mod file;
mod fix;
mod mojibake;
#[cfg(test)]
mod open_clip;
mod tokenizer;

pub(crate) use caption::CaptionFault;
pub use caption::{CaptionSource, Captions};
#[cfg(feature = "tokenizer-json")]
pub use cleaning::Cleaning;
#[cfg(feature = "tokenizer-json")]
pub use file::{TokenizerError, TokenizerFile};
pub(crate) use tokenizer::MIN_CONTEXT_LENGTH;
pub use tokenizer::Tokenizer;
