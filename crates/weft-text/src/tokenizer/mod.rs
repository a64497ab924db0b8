//! Tokenizers: trained here or imported, saved as Hugging Face's `tokenizer.json`.
//!
//! Those trained here lose nothing: `decode(encode(text)) == text` for every text, whatever its spaces, symbols or
//! literal `</s>`. There is no normaliser and no clean-up, and what has no token of its own becomes bytes.

mod bpe;
mod bytes;
mod check;
mod special;
mod stream;
mod train;
mod unigram;
mod words;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer as Inner;

use crate::corpus::hexadecimal;
use crate::error::{Cause, TextError};

pub use special::SpecialTokens;
pub use stream::TextStream;

/// How text is cut into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// Byte pair encoding over characters; rare characters become bytes. For translation.
    Bpe,
    /// A unigram language model over pieces of words; rare characters become bytes. For translation.
    Unigram,
    /// Byte pair encoding over bytes, as GPT-2 has it. For language models and code.
    ByteBpe,
    /// One token for each character seen in training; others become bytes.
    Characters,
}

impl TokenizerKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Bpe, Self::Unigram, Self::ByteBpe, Self::Characters];

    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpe => "bpe",
            Self::Unigram => "unigram",
            Self::ByteBpe => "byte-bpe",
            Self::Characters => "characters",
        }
    }
}

impl std::fmt::Display for TokenizerKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A tokenizer and what a model needs to know of it. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Parts>,
}

struct Parts {
    tokenizer: Inner,
    special: SpecialTokens,
    size: usize,
    bytes: Option<bytes::TokenBytes>,
    json: String,
    hash: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Tokenizer");
        shown.field("vocab_size", &self.vocab_size()).field("special_tokens", &self.special_tokens());
        shown.field("hash", &self.hash()).finish()
    }
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Tokenizer {}

impl Tokenizer {
    /// Loads a `tokenizer.json`, trained here or by the `tokenizers` library.
    ///
    /// # Errors
    /// A file that cannot be read, that is no tokenizer, or whose tokenizer has no end-of-sequence token.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let json = std::fs::read(path).map_err(|source| TextError::Open { path: path.to_owned(), source })?;
        Self::parse(&json, path)
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// Like [`Tokenizer::load`].
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, TextError> {
        Self::parse(json.as_ref(), Path::new("tokenizer.json"))
    }

    fn parse(json: &[u8], path: &Path) -> Result<Self, TextError> {
        let bad = |source: Cause| TextError::TokenizerFile { path: path.to_owned(), source };
        let file: serde_json::Value = serde_json::from_slice(json).map_err(|error| bad(error.into()))?;
        check::check(&file).map_err(bad)?;
        let mut inner = guarded(|| Inner::from_bytes(json)).map_err(bad)?;
        // Cutting and filling belong to the batches; a limit in the file would cut texts silently.
        inner.with_truncation(None).map_err(bad)?;
        inner.with_padding(None);
        Self::from_inner(inner)
    }

    fn from_inner(mut inner: Inner) -> Result<Self, TextError> {
        let bad = |source: Cause| TextError::TokenizerFile { path: "tokenizer.json".into(), source };
        // The name of a special token in a text is text.
        inner.set_encode_special_tokens(true);
        let special = SpecialTokens::of(&inner)?;
        let size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        if size as u64 > check::MAX_ID + 1 {
            return Err(bad(format!("the largest id is {}, wanted at most {}", size - 1, check::MAX_ID).into()));
        }
        let mut json = inner.to_string(true).map_err(bad)?;
        json.push('\n');
        Ok(Self {
            inner: Arc::new(Parts {
                special,
                size,
                bytes: bytes::token_bytes(&inner, size),
                hash: hexadecimal(&Sha256::digest(json.as_bytes())),
                json,
                tokenizer: inner,
            }),
        })
    }

    /// The content of this tokenizer's `tokenizer.json`; the same for equal tokenizers, byte for byte.
    pub fn to_json(&self) -> &str {
        &self.inner.json
    }

    /// Writes a `tokenizer.json` that the `tokenizers` library opens. There, the names of special tokens in a text are
    /// text only with `encode_special_tokens = True`; here always.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TextError> {
        let path = path.as_ref();
        std::fs::write(path, self.to_json()).map_err(|source| TextError::Write { path: path.to_owned(), source })
    }

    /// The SHA-256 of [`Tokenizer::to_json`] in hexadecimal: two tokenizers with one hash encode alike.
    pub fn hash(&self) -> &str {
        &self.inner.hash
    }

    /// The largest id plus one: the number of rows of an embedding.
    pub fn vocab_size(&self) -> usize {
        self.inner.size
    }

    /// The ids of the special tokens.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.inner.special
    }

    /// The id that fills the rest of a row.
    pub fn pad_id(&self) -> u32 {
        self.inner.special.pad
    }

    /// The id for what has no token; tokenizers trained here never need it.
    pub fn unk_id(&self) -> u32 {
        self.inner.special.unk
    }

    /// The id that begins a sequence.
    pub fn bos_id(&self) -> u32 {
        self.inner.special.bos
    }

    /// The id that ends a sequence.
    pub fn eos_id(&self) -> u32 {
        self.inner.special.eos
    }

    /// The ids of a text, without any special token.
    ///
    /// # Errors
    /// Only for imported tokenizers that cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = guarded(|| self.inner.tokenizer.encode_fast(text, false));
        let encoding =
            encoding.map_err(|source| TextError::Encode { text: text.chars().take(40).collect(), source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of many texts, on all cores.
    ///
    /// # Errors
    /// Like [`Tokenizer::encode`].
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, TextError> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of some ids; special tokens and ids beyond the vocabulary are left out, and bytes that are not UTF-8
    /// become U+FFFD.
    ///
    /// # Errors
    /// Only for imported tokenizers whose decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        match &self.inner.bytes {
            Some(table) => {
                let tokens = ids.iter().filter_map(|&id| table.get(id as usize)?.as_deref());
                let bytes: Vec<u8> = tokens.flatten().copied().collect();
                Ok(String::from_utf8(bytes)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
            }
            None => guarded(|| self.inner.tokenizer.decode(ids, true))
                .map_err(|source| TextError::Decode { count: ids.len(), source }),
        }
    }

    /// Decodes ids one by one as they are generated.
    pub fn text_stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// Bytes of text that some ids stand for; special tokens have none. The denominator of bits per byte.
    ///
    /// # Errors
    /// Like [`Tokenizer::decode`].
    pub fn byte_count(&self, ids: &[u32]) -> Result<usize, TextError> {
        match &self.inner.bytes {
            Some(table) => {
                let lengths = ids.iter().filter_map(|&id| Some(table.get(id as usize)?.as_deref()?.len()));
                Ok(lengths.sum())
            }
            None => Ok(self.decode(ids)?.len()),
        }
    }

    /// A token for people, as in the labels of a plot: spaces as `▁`, invisible characters and stray bytes escaped.
    pub fn token_text(&self, id: u32) -> String {
        let bytes = self.inner.bytes.as_ref().and_then(|table| table.get(id as usize)?.as_deref());
        match (bytes, self.inner.tokenizer.id_to_token(id)) {
            (Some(bytes), _) => bytes::readable(bytes),
            (None, Some(token)) => bytes::readable(token.as_bytes()),
            (None, None) => format!("<id {id}>"),
        }
    }
}

/// Runs a call into the `tokenizers` crate; its panics on contradictory imported files become errors.
fn guarded<T>(call: impl FnOnce() -> Result<T, Cause>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(_) => Err("the file contradicts itself".into()),
    }
}
