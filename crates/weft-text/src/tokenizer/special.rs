//! Which tokens of a tokenizer pad, begin and end a sequence.

use tokenizers::Tokenizer as Inner;

use crate::error::TextError;

/// Names under which tokenizers of other projects have these tokens, the likeliest first.
const PAD: &[&str] = &["<pad>", "[PAD]", "<|pad|>", "<|padding|>"];
const UNKNOWN: &[&str] = &["<unk>", "[UNK]", "<|unk|>"];
const BEGIN: &[&str] = &["<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "[CLS]"];
const END: &[&str] = &["</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "[SEP]"];

/// The ids of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SpecialTokens {
    /// Fills the rest of a row.
    pub pad: u32,
    /// Stands for what has no token.
    pub unk: u32,
    /// Begins a sequence.
    pub bos: u32,
    /// Ends a sequence.
    pub eos: u32,
}

impl SpecialTokens {
    /// Finds the tokens by their usual names. Only the end is required; a missing one of the others is played by it,
    /// as GPT-2's `<|endoftext|>` does.
    pub(super) fn of(inner: &Inner) -> Result<Self, TextError> {
        let find = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let Some(eos) = find(END) else {
            return Err(TextError::MissingSpecialToken {
                role: "the end of a sequence",
                looked_for: END.iter().map(|&name| name.to_owned()).collect(),
            });
        };
        Ok(Self {
            pad: find(PAD).unwrap_or(eos),
            unk: find(UNKNOWN).unwrap_or(eos),
            bos: find(BEGIN).unwrap_or(eos),
            eos,
        })
    }
}
