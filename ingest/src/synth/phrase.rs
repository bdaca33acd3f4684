/// Fills a template: `{name}` becomes the text of that slot, and a part in brackets is left out when a slot
/// in it is empty.
///
/// `{main}[ {setting}][, with {others}]` gives `a red disc on snow` when there are no others.
///
/// # Panics
/// If the template has an unclosed brace or bracket: templates are constants, and a test fills each of them.
pub(super) fn fill<'a>(template: &str, slot: impl Fn(&str) -> &'a str) -> String {
    let mut text = String::with_capacity(96);
    let mut rest = template;
    while let Some(open) = rest.find('[') {
        let close = open + rest[open..].find(']').expect("every bracket of a template is closed");
        substitute(&rest[..open], &slot, &mut text);
        let before = text.len();
        if !substitute(&rest[open + 1..close], &slot, &mut text) {
            text.truncate(before);
        }
        rest = &rest[close + 1..];
    }
    substitute(rest, &slot, &mut text);
    text
}

/// Appends `part` with its slots filled; whether all of them had a text.
fn substitute<'a>(part: &str, slot: &impl Fn(&str) -> &'a str, text: &mut String) -> bool {
    let mut is_full = true;
    let mut rest = part;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}').expect("every brace of a template is closed");
        let value = slot(&rest[open + 1..close]);
        is_full &= !value.is_empty();
        text.push_str(&rest[..open]);
        text.push_str(value);
        rest = &rest[close + 1..];
    }
    text.push_str(rest);
    is_full
}

/// The words with `a` or `an` before them.
pub(super) fn with_article(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {words}")
}

/// The text as a sentence: with a capital letter and a full stop.
pub(super) fn as_sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).chain(['.']).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_without_text_are_left_out() {
        let slot = |name: &str| if name == "main" { "a ring" } else { "" };
        assert_eq!(fill("photo: {main}[ {place}][, with {others}]", slot), "photo: a ring");
        assert_eq!(fill("[{place}, ]{main}", slot), "a ring");
    }

    #[test]
    fn parts_with_text_stay_in_their_order() {
        assert_eq!(fill("{b}[ and {a}]!", |name| if name == "a" { "one" } else { "two" }), "two and one!");
    }

    #[test]
    fn articles_follow_the_first_letter() {
        assert_eq!(with_article("emerald ring"), "an emerald ring");
        assert_eq!(with_article("red ring"), "a red ring");
    }

    #[test]
    fn sentences_start_large_and_end_with_a_stop() {
        assert_eq!(as_sentence("a ring"), "A ring.");
        assert_eq!(as_sentence(""), "");
    }
}
