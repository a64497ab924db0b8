//! What a tokenizer is trained on: distinct words and characters with their counts.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use crate::error::TextError;

/// Where text may be cut before tokens are learnt or looked up. The alternatives cover every character, so the words
/// of a text, put together, are the text.
///
/// An English clitic; letters with their marks, or one digit, or a run of other visible characters, each with a space
/// before it; a run of white space. Letters, digits and punctuation never share a word. So no token can be learnt, nor
/// a text ever be read, as one of the names with angle brackets: `</s>` in a text is the words `</`, `s` and `>`.
const WORD_PATTERN: &str = r"['’](?:[sdmt]|ll|ve|re)\b| ?\p{L}[\p{L}\p{M}]*| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+";

/// Texts are read this many bytes at a time and their words counted side by side.
const CHUNK_BYTES: usize = 8 << 20;
/// Texts counted by one thread in one go.
const TEXTS_PER_TASK: usize = 512;

/// The pre-tokenizer that cuts text into words.
pub(super) fn word_splitter() -> Result<Split, TextError> {
    Split::new(SplitPattern::Regex(WORD_PATTERN.to_owned()), SplitDelimiterBehavior::Isolated, false)
        .map_err(|source| TextError::Encode { text: WORD_PATTERN.to_owned(), source })
}

/// Distinct words with their counts, the most frequent first, equally frequent ones in the order of their letters.
pub(super) fn count_words(
    texts: impl Iterator<Item = Result<String, TextError>>,
) -> Result<Vec<(String, u64)>, TextError> {
    let splitter = word_splitter()?;
    let mut total: HashMap<String, u64> = HashMap::new();
    in_chunks(texts, |chunk| {
        let counts: Vec<HashMap<&str, u64>> = chunk
            .par_chunks(TEXTS_PER_TASK)
            .map(|texts| {
                let mut counts = HashMap::new();
                for text in texts {
                    for (start, end) in splitter.regex.find_iter(text) {
                        *counts.entry(&text[start..end]).or_insert(0) += 1;
                    }
                }
                counts
            })
            .collect();
        for (word, count) in counts.into_iter().flatten() {
            match total.get_mut(word) {
                Some(sum) => *sum += count,
                None => drop(total.insert(word.to_owned(), count)),
            }
        }
    })?;
    let mut words: Vec<(String, u64)> = total.into_iter().collect();
    words.par_sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(words)
}

/// Distinct characters with their counts, in any order.
pub(super) fn count_characters(
    texts: impl Iterator<Item = Result<String, TextError>>,
) -> Result<HashMap<char, u64>, TextError> {
    let mut total: HashMap<char, u64> = HashMap::new();
    in_chunks(texts, |chunk| {
        for text in chunk {
            text.chars().for_each(|character| *total.entry(character).or_insert(0) += 1);
        }
    })?;
    Ok(total)
}

fn in_chunks(
    texts: impl Iterator<Item = Result<String, TextError>>,
    mut take: impl FnMut(&[String]),
) -> Result<(), TextError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for text in texts {
        let text = text?;
        bytes += text.len();
        chunk.push(text);
        if bytes >= CHUNK_BYTES {
            take(&chunk);
            chunk.clear();
            bytes = 0;
        }
    }
    take(&chunk);
    Ok(())
}

/// The characters of some words with their counts.
pub(super) fn characters_of(words: &[(String, u64)]) -> HashMap<char, u64> {
    let mut counts = HashMap::new();
    for (word, count) in words {
        word.chars().for_each(|character| *counts.entry(character).or_insert(0) += count);
    }
    counts
}

/// The characters that get a token of their own, in the order of their code points; the others are left to bytes.
///
/// All of them where they take at most half of the room, as every alphabet does; else (in Chinese, say) the most
/// frequent ones that make up 99.95% of the text, as far as there is room.
pub(super) fn choose_alphabet(counts: &HashMap<char, u64>, room: usize) -> Vec<char> {
    let mut ranked: Vec<(u64, char)> = counts.iter().map(|(&character, &count)| (count, character)).collect();
    ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    if ranked.len() > room / 2 {
        let total: u64 = counts.values().sum();
        let mut covered = 0u64;
        let enough = ranked.iter().position(|(count, _)| {
            covered += count;
            covered as f64 >= 0.9995 * total as f64
        });
        ranked.truncate(enough.map_or(ranked.len(), |position| position + 1).min(room));
    }
    let mut alphabet: Vec<char> = ranked.into_iter().map(|(_, character)| character).collect();
    alphabet.sort_unstable();
    alphabet
}
