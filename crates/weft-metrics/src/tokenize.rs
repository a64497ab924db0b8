//! The tokenizers that BLEU is computed with. Each turns a line into words with whitespace between them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::MetricError;
use crate::text::is_space;

/// How a line is cut into the words whose n-grams BLEU compares. Scores are comparable only under the same tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BleuTokenizer {
    /// `13a`: that of NIST's mteval-v13a script, WMT's standard: ASCII punctuation apart, save between digits.
    #[default]
    #[serde(rename = "13a")]
    Mteval13a,
    /// `intl`: that of mteval-v14 with international tokenization: all of Unicode's punctuation and symbols apart.
    #[serde(rename = "intl")]
    International,
    /// `char`: every character is a word.
    #[serde(rename = "char")]
    Character,
    /// `zh`: every Chinese character is a word, the rest as in `13a`.
    #[serde(rename = "zh")]
    Chinese,
    /// `none`: the line is taken as tokenized.
    #[serde(rename = "none")]
    None,
}

impl BleuTokenizer {
    const ALL: [Self; 5] = [Self::Mteval13a, Self::International, Self::Character, Self::Chinese, Self::None];

    /// The name that the command line and the signature use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mteval13a => "13a",
            Self::International => "intl",
            Self::Character => "char",
            Self::Chinese => "zh",
            Self::None => "none",
        }
    }

    /// The line with whitespace between its words.
    pub fn tokenize(self, line: &str) -> Cow<'_, str> {
        let line = line.trim_end_matches(is_space);
        match self {
            Self::Mteval13a => mteval_13a(line).into(),
            Self::International => international(line).into(),
            Self::Character => line.chars().flat_map(|character| [character, ' ']).collect::<String>().into(),
            Self::Chinese => chinese(line).into(),
            Self::None => line.into(),
        }
    }
}

impl fmt::Display for BleuTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BleuTokenizer {
    type Err = MetricError;

    fn from_str(name: &str) -> Result<Self, MetricError> {
        let found = Self::ALL.into_iter().find(|tokenizer| tokenizer.name() == name);
        found.ok_or_else(|| MetricError::setting("tokenizer", name, "one of 13a, intl, char, zh, none"))
    }
}

fn mteval_13a(line: &str) -> String {
    let mut line = line.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if line.contains('&') {
        // One after the other: `&amp;lt;` becomes `&lt;` and then `<`.
        for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            line = line.replace(entity, character);
        }
    }
    split_ascii_punctuation(&format!(" {line} "))
}

/// The four substitutions of mteval-v13a, each from left to right over the result of the one before. All of them look
/// at ASCII characters and insert spaces beside them, so they work on bytes:
///
/// 1. spaces around all ASCII punctuation but `'`, `,`, `-` and `.`,
/// 2. spaces around a period or comma after anything but a digit,
/// 3. spaces around a period or comma before anything but a digit,
/// 4. spaces around a dash after a digit.
fn split_ascii_punctuation(line: &str) -> String {
    let is_stop = |byte: u8| matches!(byte, b'.' | b',');
    let is_other_punctuation =
        |byte: u8| matches!(byte, b' '..=b'&' | b'('..=b'+' | b'/' | b':'..=b'@' | b'['..=b'`' | b'{'..=b'~');
    let mut spaced = Vec::with_capacity(line.len() * 2);
    for &byte in line.as_bytes() {
        if is_other_punctuation(byte) {
            spaced.extend_from_slice(&[b' ', byte, b' ']);
        } else {
            spaced.push(byte);
        }
    }
    let spaced = substitute_pairs(&spaced, |first, second| {
        (!first.is_ascii_digit() && is_stop(second)).then_some([first, b' ', second, b' '])
    });
    let spaced = substitute_pairs(&spaced, |first, second| {
        (is_stop(first) && !second.is_ascii_digit()).then_some([b' ', first, b' ', second])
    });
    let spaced = substitute_pairs(&spaced, |first, second| {
        (first.is_ascii_digit() && second == b'-').then_some([first, b' ', second, b' '])
    });
    String::from_utf8_lossy(&spaced).into_owned()
}

/// Replaces every pair of bytes that `replace` gives something for; a replaced pair is not looked at again.
fn substitute_pairs(bytes: &[u8], replace: impl Fn(u8, u8) -> Option<[u8; 4]>) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len() + bytes.len() / 2);
    let mut index = 0;
    while index < bytes.len() {
        match bytes.get(index + 1).and_then(|&second| replace(bytes[index], second)) {
            Some(replacement) => {
                result.extend_from_slice(&replacement);
                index += 2;
            }
            None => {
                result.push(bytes[index]);
                index += 1;
            }
        }
    }
    result
}

fn international(line: &str) -> String {
    // In the words of mteval-v14: punctuation apart unless it stands between numbers, symbols apart anywhere.
    static SUBSTITUTIONS: LazyLock<[(Regex, &str); 3]> = LazyLock::new(|| {
        let compile = |pattern| Regex::new(pattern).expect("the pattern is a constant");
        [(compile(r"(\P{N})(\p{P})"), "$1 $2 "), (compile(r"(\p{P})(\P{N})"), " $1 $2"), (compile(r"(\p{S})"), " $1 ")]
    });
    let mut line = line.to_string();
    for (pattern, replacement) in SUBSTITUTIONS.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&line, *replacement) {
            line = replaced;
        }
    }
    line
}

fn chinese(line: &str) -> String {
    let mut spaced = String::with_capacity(line.len() * 2);
    for character in line.trim_matches(is_space).chars() {
        if is_chinese(character) {
            spaced.extend([' ', character, ' ']);
        } else {
            spaced.push(character);
        }
    }
    split_ascii_punctuation(&spaced)
}

/// The ranges of sacrebleu's `zh` tokenizer. Two of them were meant as planes beyond U+FFFF (U+20000 to U+2A6D6,
/// U+2F800 to U+2FA1D) but are written there in a way that means U+2001 to U+2A6D and U+2F81 to U+2FA1; published
/// scores depend on it, so it is kept.
fn is_chinese(character: char) -> bool {
    matches!(character,
        '\u{2001}'..='\u{2a6d}' // most of general punctuation, arrows, mathematical operators
        | '\u{2e80}'..='\u{2eff}' // radicals
        | '\u{2f00}'..='\u{2fdf}' // Kangxi radicals
        | '\u{2ff0}'..='\u{303f}' // structure of characters, punctuation
        | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' // phonetic symbols
        | '\u{31c0}'..='\u{31ef}' // strokes
        | '\u{3200}'..='\u{33ff}' // enclosed and squared
        | '\u{3400}'..='\u{4db5}' | '\u{4e00}'..='\u{9fbb}' // ideographs
        | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}' | '\u{fa70}'..='\u{fad9}' // compatibility ideographs
        | '\u{fe10}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe4f}' // vertical and compatibility forms
        | '\u{ff00}'..='\u{ffef}' // full and half width
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The substitutions of mteval-v13a as regular expressions, to compare with.
    fn with_expressions(line: &str) -> String {
        let substitutions = [
            (r"([\{-\~\[-\` -\&\(-\+\:-\@/])", " $1 "),
            (r"([^0-9])([\.,])", "$1 $2 "),
            (r"([\.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ];
        let mut line = line.to_string();
        for (pattern, replacement) in substitutions {
            line = Regex::new(pattern).unwrap().replace_all(&line, replacement).into_owned();
        }
        line
    }

    proptest! {
        #[test]
        fn bytes_do_what_the_expressions_do(line in "[a-c0-9.,\\-'\"&/:éß中 \\n]{0,40}|\\PC{0,30}") {
            prop_assert_eq!(split_ascii_punctuation(&line), with_expressions(&line));
        }

        #[test]
        fn no_line_panics_and_no_word_is_lost(line in "\\PC{0,60}") {
            for tokenizer in BleuTokenizer::ALL {
                let only = |text: &str| text.chars().filter(|&c| !is_space(c)).collect::<String>();
                let tokenized = tokenizer.tokenize(&line);
                if tokenizer != BleuTokenizer::Mteval13a || !line.contains(['&', '<']) {
                    prop_assert_eq!(only(&tokenized), only(&line));
                }
            }
        }
    }

    #[test]
    fn names_round_trip() {
        for tokenizer in BleuTokenizer::ALL {
            assert_eq!(tokenizer.to_string().parse::<BleuTokenizer>().unwrap(), tokenizer);
            assert_eq!(serde_json::to_string(&tokenizer).unwrap(), format!("\"{tokenizer}\""));
        }
        let error = "moses".parse::<BleuTokenizer>().unwrap_err();
        assert_eq!(error.to_string(), "tokenizer is moses, wanted one of 13a, intl, char, zh, none");
    }
}
