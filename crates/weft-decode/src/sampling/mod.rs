//! Drawing the next token from a row of logits.

mod config;
#[cfg(test)]
mod tests;

pub use config::SamplingConfig;

use std::cmp::Ordering;

use crate::greedy::first_maximum;
use crate::scan::{block_maxima, exp_all};
use crate::{DecodeError, uniform};

/// Draws tokens so that a choice depends on the seed, the position and the logits alone: not on the batch, the threads
/// or the tokens drawn before.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplingConfig,
    seed: u64,
    /// Buffers, kept to allocate once: penalised logits, all weights, the tokens that a filter kept, maxima of blocks.
    logits: Vec<f32>,
    weights: Vec<f32>,
    kept: Vec<Weighted>,
    maxima: Vec<f32>,
}

/// A token with its logit and its weight: its probability up to a factor that gives the most likely token 1.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Weighted {
    logit: f32,
    weight: f32,
    token: u32,
}

impl Weighted {
    /// More likely first, and the lower id first among equals.
    fn order(&self, other: &Self) -> Ordering {
        other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal).then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// A sampler for one text.
    ///
    /// # Errors
    /// [`DecodeError::Config`] names the setting that cannot be.
    pub fn new(config: SamplingConfig, seed: u64) -> Result<Self, DecodeError> {
        config.validate()?;
        Ok(Self { config, seed, logits: Vec::new(), weights: Vec::new(), kept: Vec::new(), maxima: Vec::new() })
    }

    /// The settings.
    pub fn config(&self) -> &SamplingConfig {
        &self.config
    }

    /// Draws the token at `position` of the text from `logits`, `[vocabulary]`, minus infinity for an impossible token.
    ///
    /// `history` are the tokens that the repetition penalty makes less likely: usually the prompt and what was drawn
    /// so far. The same seed, position, logits and history give the same token.
    ///
    /// # Errors
    /// Empty logits, NaN, plus infinity, nothing but minus infinity, or a token of the history outside the vocabulary.
    pub fn sample(&mut self, logits: &[f32], history: &[u32], position: u64) -> Result<u32, DecodeError> {
        let mut buffer = std::mem::take(&mut self.logits);
        let result = self.penalise(logits, history, &mut buffer).and_then(|logits| self.draw(logits, position));
        self.logits = buffer;
        result
    }

    /// The logits under the repetition penalty, in `buffer` if it changes any.
    fn penalise<'a>(
        &self,
        logits: &'a [f32],
        history: &[u32],
        buffer: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], DecodeError> {
        let vocabulary = logits.len();
        if let Some(&token) = history.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(DecodeError::TokenOutOfRange { what: "history", token, vocabulary });
        }
        let penalty = self.config.repetition_penalty;
        if penalty == 1.0 || history.is_empty() {
            return Ok(logits);
        }
        buffer.clear();
        buffer.extend_from_slice(logits);
        for &token in history {
            // From the untouched logits: a token that appears twice is penalised once.
            let logit = logits[token as usize];
            buffer[token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
        Ok(buffer)
    }

    fn draw(&mut self, logits: &[f32], position: u64) -> Result<u32, DecodeError> {
        let max = block_maxima(logits, 0, &mut self.maxima)?;
        if self.config.temperature == 0.0 || self.config.top_k == Some(1) {
            return Ok(first_maximum(logits, max, &self.maxima));
        }
        exp_all(logits, max, self.config.temperature, &mut self.weights);
        let uniform = uniform(self.seed, position);
        Ok(if self.filter(logits) {
            pick(self.kept.iter().map(|token| (token.token, token.weight)), uniform)
        } else {
            pick((0..).zip(self.weights.iter().copied()), uniform)
        })
    }

    /// Puts the tokens that the three filters keep into `kept`; false if no filter is on, so that all tokens stay.
    ///
    /// Every filter keeps a beginning of the tokens in their order from likely to unlikely. So a filter may skip from
    /// the start what it or a later one is going to drop, and nothing has to sort the whole vocabulary.
    fn filter(&mut self, logits: &[f32]) -> bool {
        let SamplingConfig { top_k, top_p, min_p, .. } = self.config;
        let top_k = top_k.filter(|&k| k < logits.len());
        let top_p = top_p.filter(|&p| p < 1.0);
        let min_p = min_p.filter(|&p| p > 0.0);
        if top_k.is_none() && top_p.is_none() && min_p.is_none() {
            return false;
        }
        let mut total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        let least_weight = match top_p {
            // All tokens lighter than this together weigh less than what top-p drops. With top-k, top-p has a share of
            // the k tokens to keep instead, and those are few.
            Some(p) if top_k.is_none() => (1.0 - f64::from(p)) * total / logits.len() as f64 * 0.999,
            _ => 0.0,
        } as f32;
        let least_logit = top_k.map_or(f32::NEG_INFINITY, |k| nth_largest(&mut self.maxima, k));
        self.kept.clear();
        let weighted = logits.iter().zip(&self.weights).zip(0..);
        self.kept.extend(
            weighted
                .filter(|&((&logit, &weight), _)| logit >= least_logit && weight > 0.0 && weight >= least_weight)
                .map(|((&logit, &weight), token)| Weighted { logit, weight, token }),
        );
        if let Some(k) = top_k {
            if self.kept.len() > k {
                self.kept.select_nth_unstable_by(k - 1, Weighted::order);
                self.kept.truncate(k);
            }
            total = self.kept.iter().map(|token| f64::from(token.weight)).sum();
        }
        if let Some(p) = top_p {
            keep_top_p(&mut self.kept, f64::from(p) * total);
        }
        if let Some(p) = min_p {
            self.kept.retain(|token| token.weight >= p);
        }
        true
    }
}

/// The `n`-th largest maximum of a block, or minus infinity if there are fewer blocks: since `n` blocks hold a value
/// at least as large, the `n`-th largest of all values is not smaller.
fn nth_largest(maxima: &mut [f32], n: usize) -> f32 {
    if n > maxima.len() {
        return f32::NEG_INFINITY;
    }
    *maxima.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1
}

/// Keeps the shortest beginning of the tokens, from likely to unlikely, that weighs at least `mass`.
fn keep_top_p(tokens: &mut Vec<Weighted>, mass: f64) {
    let mut sorted = 0;
    let mut chunk = 64;
    let mut sum = 0.0;
    while sorted < tokens.len() {
        let rest = &mut tokens[sorted..];
        let chunk_length = chunk.min(rest.len());
        if chunk_length < rest.len() {
            rest.select_nth_unstable_by(chunk_length - 1, Weighted::order);
        }
        rest[..chunk_length].sort_unstable_by(Weighted::order);
        for (index, token) in rest[..chunk_length].iter().enumerate() {
            sum += f64::from(token.weight);
            if sum >= mass {
                tokens.truncate(sorted + index + 1);
                return;
            }
        }
        sorted += chunk_length;
        chunk *= 4;
    }
}

/// The first token at which the running sum of weights exceeds `uniform` times the whole.
fn pick(tokens: impl Iterator<Item = (u32, f32)> + Clone, uniform: f64) -> u32 {
    let total: f64 = tokens.clone().map(|(_, weight)| f64::from(weight)).sum();
    let target = uniform * total;
    let mut sum = 0.0;
    let mut last = 0;
    for (token, weight) in tokens.filter(|&(_, weight)| weight > 0.0) {
        sum += f64::from(weight);
        last = token;
        if sum > target {
            break;
        }
    }
    last
}
