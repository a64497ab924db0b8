//! Generation from a language model, token by token.

use burn::Tensor;
use weft_decode::{DecodeError, Sampler};

use super::token_row;
use super::translate::values;
use crate::LanguageModel;

/// What to generate from, and how much.
#[derive(Debug, Clone)]
pub struct Generation<'a> {
    /// The tokens to continue; at least one.
    pub prompt: &'a [u32],
    /// How many tokens to add.
    pub max_tokens: usize,
    /// Stops at this token, which is not part of the result.
    pub stop: Option<u32>,
}

/// A prompt is read in parts of so many tokens, which bounds the memory for their scores.
const PROMPT_TOKENS: usize = 256;

/// Generates tokens and hands each to `emit` as soon as it is chosen; `emit` returns whether to go on.
///
/// The prompt is read once; every further token costs one step. A model with limited positions stops when they are
/// used up.
///
/// # Errors
/// Scores that are NaN.
pub fn generate<M: LanguageModel>(
    model: &M,
    what: &Generation<'_>,
    sampler: &mut Sampler,
    mut emit: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>, DecodeError> {
    let mut state = model.start(1);
    let mut history = what.prompt.to_vec();
    let mut logits: Option<Tensor<2>> = None;
    let device = &model.devices()[0];
    for tokens in what.prompt.chunks(PROMPT_TOKENS) {
        let read = model.read(token_row(tokens, device), &mut state);
        logits = Some(read.narrow(1, tokens.len() - 1, 1).squeeze_dim(1));
    }
    let mut generated = Vec::new();
    while let Some(scores) = logits.take().filter(|_| generated.len() < what.max_tokens) {
        let token = sampler.sample(&values(scores), &history, generated.len() as u64)?;
        if what.stop == Some(token) {
            break;
        }
        generated.push(token);
        history.push(token);
        if !emit(token) {
            break;
        }
        if model.max_length().is_none_or(|limit| history.len() <= limit) {
            logits = Some(model.step(&[token], &mut state));
        }
    }
    Ok(generated)
}
