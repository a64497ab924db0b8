use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// How the next token is drawn. The default draws from the model's distribution as it is.
///
/// The settings work in the order of the fields: the penalty and the temperature change the logits, then each of the
/// three filters drops the less likely tokens of what the one before it kept, and the token is drawn from what is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// Divides a positive and multiplies a negative logit of every token in the history; above 1 it makes repetition
    /// less likely, 1 changes nothing. Keskar et al. 2019 (CTRL, arXiv 1909.05858), section 4.1, with the sign taken
    /// into account, as has become usual: dividing a negative logit would make the token more likely.
    pub repetition_penalty: f32,
    /// Divides the logits: below 1 sharper, above 1 flatter, 0 always takes the most likely token. Ackley, Hinton and
    /// Sejnowski 1985, "A learning algorithm for Boltzmann machines".
    pub temperature: f32,
    /// Keeps the `top_k` most likely tokens. Fan et al. 2018 (arXiv 1805.04833), section 5.4.
    pub top_k: Option<usize>,
    /// Keeps the fewest of the most likely tokens whose probabilities sum to at least `top_p`. Holtzman et al. 2019
    /// (arXiv 1904.09751), section 3.1.
    pub top_p: Option<f32>,
    /// Keeps the tokens whose probability is at least `min_p` times that of the most likely token. Nguyen et al. 2024
    /// (arXiv 2407.01082), section 3.
    pub min_p: Option<f32>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self { repetition_penalty: 1.0, temperature: 1.0, top_k: None, top_p: None, min_p: None }
    }
}

impl SamplingConfig {
    /// Always the most likely token: a temperature of 0.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks that every setting is possible.
    ///
    /// # Errors
    /// [`DecodeError::Config`] names the first that is not.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let Self { repetition_penalty, temperature, top_k, top_p, min_p } = *self;
        if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
            return Err(DecodeError::config("repetition_penalty", repetition_penalty, "a finite number above 0"));
        }
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(DecodeError::config("temperature", temperature, "a finite number of at least 0"));
        }
        match (top_k, top_p, min_p) {
            (Some(0), _, _) => Err(DecodeError::config("top_k", 0, "at least 1")),
            (_, Some(p), _) if !(p > 0.0 && p <= 1.0) => {
                Err(DecodeError::config("top_p", p, "a number above 0 and at most 1"))
            }
            (_, _, Some(p)) if !(0.0..=1.0).contains(&p) => {
                Err(DecodeError::config("min_p", p, "a number between 0 and 1"))
            }
            _ => Ok(()),
        }
    }
}
