use super::clean::{mend, words};

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
