use std::borrow::Cow;

use super::entity::unescape;
use super::fix::fix_text;

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
