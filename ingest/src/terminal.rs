/// Text from outside, in one line that does nothing to a terminal.
pub(crate) fn one_line(text: &str, max_chars: usize) -> String {
    let mut line: String = text
        .chars()
        .take(max_chars)
        .map(|character| match character {
            _ if character.is_whitespace() => ' ',
            // Some invisible ones turn the direction of what follows.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            _ if character.is_control() => '\u{fffd}',
            _ => character,
        })
        .collect();
    if text.chars().nth(max_chars).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_command_a_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\r\n\u{202e}c\u{9b}31m", 99), "a\u{fffd}[2Jb  \u{fffd}c\u{fffd}31m");
        assert_eq!(one_line("größer", 4), "größ…");
    }
}
