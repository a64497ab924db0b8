//! From text to a tokenizer.

use ahash::AHashMap;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::bytes::byte_characters;
use super::words::{characters_of, choose_alphabet, count_characters, count_words, word_splitter};
use super::{Tokenizer, TokenizerKind, bpe, unigram};
use crate::error::{Cause, TextError};

/// The special tokens of every tokenizer trained here; the place is the id.
pub(super) const SPECIAL_TOKENS: [&str; 4] = ["<pad>", "<unk>", "<s>", "</s>"];

impl Tokenizer {
    /// Trains a tokenizer of at most `vocab_size` tokens.
    ///
    /// The vocabulary begins with `<pad>`, `<unk>`, `<s>`, `</s>` (ids 0 to 3) and a token for each of the 256 bytes
    /// (ids 4 to 259), so that every text can be encoded. It stays smaller than asked for where the text has nothing
    /// more to merge. The same texts give the same tokenizer, byte for byte, on any number of threads.
    ///
    /// # Errors
    /// Errors of the texts themselves; no text at all; a vocabulary that has no room beside the fixed tokens.
    ///
    /// ```
    /// use weft_text::{Tokenizer, TokenizerKind};
    ///
    /// let texts = ["low lower lowest", "new newer newest"].map(|text| Ok(text.to_owned()));
    /// let tokenizer = Tokenizer::train(TokenizerKind::Bpe, 300, texts.into_iter())?;
    /// let ids = tokenizer.encode("the newest  <pad> 🦉")?;
    /// assert_eq!(tokenizer.decode(&ids)?, "the newest  <pad> 🦉");
    /// # Ok::<(), weft_text::TextError>(())
    /// ```
    pub fn train(
        kind: TokenizerKind,
        vocab_size: usize,
        texts: impl Iterator<Item = Result<String, TextError>>,
    ) -> Result<Self, TextError> {
        let fixed = SPECIAL_TOKENS.len() + 256;
        let room = vocab_size.saturating_sub(fixed);
        if room == 0 {
            return Err(TextError::VocabularyTooSmall { wanted: vocab_size, minimum: fixed + 1 });
        }
        let inner = match kind {
            TokenizerKind::Characters => characters(room, texts),
            TokenizerKind::Bpe => character_bpe(vocab_size, room, texts),
            TokenizerKind::ByteBpe => byte_bpe(vocab_size, texts),
            TokenizerKind::Unigram => unigram_tokenizer(room, texts),
        }?;
        Self::from_inner(with_special_tokens(inner).map_err(own_fault)?)
    }
}

/// An error of the `tokenizers` crate on what was built here.
fn own_fault(source: Cause) -> TextError {
    TextError::TokenizerFile { path: "(a tokenizer in training)".into(), source }
}

fn with_special_tokens(mut inner: Inner) -> Result<Inner, Cause> {
    inner.add_special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)))?;
    Ok(inner)
}

fn special_pieces() -> Vec<String> {
    SPECIAL_TOKENS.map(str::to_owned).to_vec()
}

/// Special tokens and the 256 byte tokens as the crate's byte fallback names them.
fn fixed_pieces() -> Vec<String> {
    let mut pieces = special_pieces();
    pieces.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    pieces
}

fn bpe_model(pieces: Vec<String>, merges: &[(u32, u32)], byte_fallback: bool) -> Result<BPE, Cause> {
    let text = |id: u32| pieces[id as usize].clone();
    let merges: Vec<(String, String)> = merges.iter().map(|&(first, second)| (text(first), text(second))).collect();
    let vocabulary: AHashMap<String, u32> = pieces.into_iter().zip(0..).collect();
    let builder = BPE::builder().vocab_and_merges(vocabulary, merges).unk_token(SPECIAL_TOKENS[1].to_owned());
    builder.byte_fallback(byte_fallback).build()
}

fn with_byte_fallback(inner: &mut Inner) {
    let decoders = vec![ByteFallback::new().into(), Fuse::new().into()];
    inner.with_decoder(Some(DecoderSequence::new(decoders)));
}

fn characters(room: usize, texts: impl Iterator<Item = Result<String, TextError>>) -> Result<Inner, TextError> {
    let counts = count_characters(texts)?;
    if counts.is_empty() {
        return Err(TextError::NoTrainingText);
    }
    let mut ranked: Vec<(char, u64)> = counts.into_iter().collect();
    ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(room);
    ranked.sort_unstable();
    let mut pieces = fixed_pieces();
    pieces.extend(ranked.into_iter().map(|(character, _)| character.to_string()));
    let mut inner = Inner::new(bpe_model(pieces, &[], true).map_err(own_fault)?);
    with_byte_fallback(&mut inner);
    Ok(inner)
}

fn character_bpe(
    vocab_size: usize,
    room: usize,
    texts: impl Iterator<Item = Result<String, TextError>>,
) -> Result<Inner, TextError> {
    let words = count_words(texts)?;
    if words.is_empty() {
        return Err(TextError::NoTrainingText);
    }
    let alphabet = choose_alphabet(&characters_of(&words), room);
    let mut pieces = fixed_pieces();
    let fixed = pieces.len();
    pieces.extend(alphabet.iter().map(char::to_string));
    let ids: std::collections::HashMap<char, u32> = alphabet.into_iter().zip(fixed as u32..).collect();
    let mut parts = Vec::new();
    for (word, count) in words {
        // A character that is left to bytes ends a word.
        let tokens: Vec<Option<u32>> = word.chars().map(|character| ids.get(&character).copied()).collect();
        for part in tokens.split(Option::is_none).filter(|part| part.len() > 1) {
            parts.push(bpe::Word { tokens: part.iter().flatten().copied().collect(), count });
        }
    }
    let merges = bpe::learn_merges(&mut parts, &mut pieces, fixed, vocab_size);
    let mut inner = Inner::new(bpe_model(pieces, &merges, true).map_err(own_fault)?);
    inner.with_pre_tokenizer(Some(word_splitter()?));
    with_byte_fallback(&mut inner);
    Ok(inner)
}

fn byte_bpe(vocab_size: usize, texts: impl Iterator<Item = Result<String, TextError>>) -> Result<Inner, TextError> {
    let words = count_words(texts)?;
    if words.is_empty() {
        return Err(TextError::NoTrainingText);
    }
    let mut pieces = special_pieces();
    let special = pieces.len();
    pieces.extend(byte_characters().iter().map(char::to_string));
    let mut parts: Vec<bpe::Word> = words
        .into_iter()
        .map(|(word, count)| bpe::Word {
            tokens: word.bytes().map(|byte| special as u32 + u32::from(byte)).collect(),
            count,
        })
        .collect();
    let merges = bpe::learn_merges(&mut parts, &mut pieces, special, vocab_size);
    let mut inner = Inner::new(bpe_model(pieces, &merges, false).map_err(own_fault)?);
    let byte_level = ByteLevel::new(false, false, false);
    let steps = vec![PreTokenizerWrapper::from(word_splitter()?), PreTokenizerWrapper::from(byte_level)];
    inner.with_pre_tokenizer(Some(Sequence::new(steps)));
    inner.with_decoder(Some(byte_level));
    Ok(inner)
}

fn unigram_tokenizer(room: usize, texts: impl Iterator<Item = Result<String, TextError>>) -> Result<Inner, TextError> {
    let words = count_words(texts)?;
    if words.is_empty() {
        return Err(TextError::NoTrainingText);
    }
    let alphabet = choose_alphabet(&characters_of(&words), room);
    let mut parts: Vec<(Vec<char>, u64)> = Vec::new();
    for (word, count) in words {
        let word: Vec<char> = word.chars().collect();
        let parts_of_word = word.split(|character| alphabet.binary_search(character).is_err());
        parts.extend(parts_of_word.filter(|part| !part.is_empty()).map(|part| (part.to_vec(), count)));
    }
    // Six decimals are plenty, and short numbers are read back from JSON to the bit everywhere.
    let learnt = unigram::learn_pieces(&parts, room);
    let learnt: Vec<(String, f64)> =
        learnt.into_iter().map(|(piece, score)| (piece, (score * 1e6).round() / 1e6)).collect();
    // Bytes stand in for characters without a piece and never compete with pieces; no word ever holds their names.
    let lowest = learnt.iter().map(|(_, score)| *score).fold(0.0, f64::min);
    let special = SPECIAL_TOKENS.len();
    let fixed = fixed_pieces().into_iter().enumerate();
    let mut vocabulary: Vec<(String, f64)> =
        fixed.map(|(id, piece)| (piece, if id < special { 0.0 } else { lowest })).collect();
    vocabulary.extend(learnt);
    let mut inner = Inner::new(Unigram::from(vocabulary, Some(1), true).map_err(own_fault)?);
    inner.with_pre_tokenizer(Some(word_splitter()?));
    with_byte_fallback(&mut inner);
    Ok(inner)
}
