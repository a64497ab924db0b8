//! Text as sacrebleu sees it: Python's idea of whitespace, which has four control characters more than Unicode's.

/// Python's `str.isspace`.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Python's `str.split()`: the words between whitespace.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(is_space).filter(|word| !word.is_empty())
}

/// The line, in lower case if asked for.
pub(crate) fn fold_case(line: &str, lowercase: bool) -> std::borrow::Cow<'_, str> {
    if lowercase { line.to_lowercase().into() } else { line.into() }
}
