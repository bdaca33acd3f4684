use std::borrow::Cow;

use super::entity::unescape;
use super::fix::fix_text;

/// What is done to a caption before it is encoded: OpenCLIP's functions, by their names there.
///
/// All begin with mending what is broken (`ftfy`), resolving HTML references twice, and collapsing white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Cleaning {
    /// Nothing more. OpenCLIP's default for tokenizers of Hugging Face.
    #[default]
    Whitespace,
    /// Letters are made small, too. What CLIP's own tokenizer does.
    Lower,
    /// Letters are made small and ASCII punctuation is removed; underscores become spaces. For SigLIP's models.
    Canonicalize,
}

impl Cleaning {
    pub(super) fn clean(self, text: &str) -> String {
        let text = mend(text);
        match self {
            Self::Whitespace => collapse(&text),
            Self::Lower => collapse(&text).to_lowercase(),
            Self::Canonicalize => {
                let text =
                    text.replace('_', " ").replace(|character: char| character.is_ascii_punctuation(), "");
                collapse(&text.to_lowercase())
            }
        }
    }
}

/// What all cleaning begins with, but for the white space.
pub(super) fn mend(text: &str) -> Cow<'_, str> {
    let text = fix_text(text);
    if !text.contains('&') {
        return text;
    }
    Cow::Owned(unescape(&unescape(&text)).into_owned())
}

/// What Python's `str.split` makes of text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// What Python's `str.split` takes for space: Unicode's white space and four separators of ASCII.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

fn collapse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in words(text) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cleaning_removes_more() {
        let text = " It&rsquo;s\u{a0}A  snake_case &amp;lt;TAG&gt; ";
        assert_eq!(Cleaning::Whitespace.clean(text), "It's A snake_case <TAG>");
        assert_eq!(Cleaning::Lower.clean(text), "it's a snake_case <tag>");
        assert_eq!(Cleaning::Canonicalize.clean(text), "its a snake case tag");
    }
}
