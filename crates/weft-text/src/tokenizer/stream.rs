//! Decoding token by token, in whole characters.

use super::Tokenizer;
use crate::error::TextError;

/// Decodes ids as they are generated. What it yields, put together, is what [`Tokenizer::decode`] yields for all ids;
/// a character whose bytes come in several tokens is yielded with the last of them.
pub struct TextStream<'tokenizer> {
    tokenizer: &'tokenizer Tokenizer,
    /// Bytes of a character that has begun.
    bytes: Vec<u8>,
    /// For tokenizers without fixed bytes: ids from a place where the text was whole, and the text they gave.
    ids: Vec<u32>,
    shown: String,
}

/// Ids kept to decode a tokenizer without fixed bytes in context; spaces depend on the ids before.
const CONTEXT_IDS: usize = 8;

impl<'tokenizer> TextStream<'tokenizer> {
    pub(super) fn new(tokenizer: &'tokenizer Tokenizer) -> Self {
        Self { tokenizer, bytes: Vec::new(), ids: Vec::new(), shown: String::new() }
    }

    /// Takes the next id and returns the text that is whole now, often one piece, sometimes nothing.
    ///
    /// # Errors
    /// Only for imported tokenizers whose decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        match &self.tokenizer.inner.bytes {
            Some(table) => {
                let token = table.get(id as usize).and_then(Option::as_deref);
                self.bytes.extend_from_slice(token.unwrap_or_default());
                Ok(self.take_whole())
            }
            None => self.push_in_context(id),
        }
    }

    /// Ends the text: a character that never became whole is shown as U+FFFD.
    ///
    /// # Errors
    /// Only for imported tokenizers whose decoder fails.
    pub fn finish(mut self) -> Result<String, TextError> {
        if self.tokenizer.inner.bytes.is_some() {
            return Ok(String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned());
        }
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(text.strip_prefix(&self.shown).unwrap_or_default().to_owned())
    }

    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.bytes.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, rest) = self.bytes.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(broken) = error.error_len() else {
                        self.bytes = rest.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.bytes = rest[broken..].to_vec();
                }
            }
        }
    }

    fn push_in_context(&mut self, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        // Decoders show a character that is not whole as U+FFFD at the end; it may yet become one.
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let Some(new) = text.strip_prefix(&self.shown).map(str::to_owned) else {
            return Ok(String::new());
        };
        self.shown = text;
        if self.ids.len() >= 2 * CONTEXT_IDS {
            let context = self.ids.split_off(self.ids.len() - CONTEXT_IDS);
            let shown = self.tokenizer.decode(&context)?;
            // A context that begins inside a character would show it broken: then keep all for now.
            if shown.starts_with(char::REPLACEMENT_CHARACTER) {
                self.ids.extend(context);
            } else {
                self.ids = context;
                self.shown = shown;
            }
        }
        Ok(new)
    }
}
