//! Generation from a language model, token by token.

use burn::Tensor;
use weft_decode::{DecodeError, Sampler};
use weft_kernels::on_worker;

use super::translate::values;
use super::{Session, token_row};
use crate::LanguageModel;

/// What to generate, and how much.
#[derive(Debug, Clone)]
pub struct Generation<'a> {
    /// The next tokens of the text, to be continued; if there are none, the text so far is.
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
/// What the session has read is not read again; every further token costs one step. A model with limited positions
/// stops when they are used up. Nothing is generated where there is nothing unread to begin with.
///
/// # Errors
/// Scores that are NaN.
pub fn generate<M: LanguageModel>(
    model: &M,
    session: &mut Session<M>,
    what: &Generation<'_>,
    sampler: &mut Sampler,
    mut emit: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>, DecodeError> {
    session.tokens.extend_from_slice(what.prompt);
    let mut generated = Vec::new();
    while generated.len() < what.max_tokens {
        if model.max_length().is_some_and(|limit| session.tokens.len() > limit) {
            break;
        }
        let Some(logits) = read(model, session) else { break };
        let token = sampler.sample(&values(logits), &session.tokens, session.drawn)?;
        session.drawn += 1;
        if what.stop == Some(token) {
            break;
        }
        generated.push(token);
        session.tokens.push(token);
        if !emit(token) {
            break;
        }
    }
    Ok(generated)
}

/// Reads what is unread and returns the logits of the next token, `[1, vocab]`, if there was anything.
fn read<M: LanguageModel>(model: &M, session: &mut Session<M>) -> Option<Tensor<2>> {
    let device = &model.devices()[0];
    let mut logits = None;
    for tokens in session.tokens[session.read..].chunks(PROMPT_TOKENS) {
        let state = &mut session.state;
        let scores = on_worker(|| model.read(token_row(tokens, device), state));
        logits = Some(scores.narrow(1, tokens.len() - 1, 1).squeeze_dim(1));
    }
    session.read = session.tokens.len();
    logits
}
