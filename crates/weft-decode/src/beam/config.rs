use serde::{Deserialize, Serialize};

use crate::{DecodeError, LengthPenalty};

/// When a beam search ends, besides at its maximum length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopRule {
    /// When no live hypothesis can still beat the worst of the `num_best` best ended ones.
    ///
    /// A live hypothesis of log-probability `L` and `n` tokens can reach at most the better of two scores: that of `L`
    /// ending with eos now, and that of `L` at `max_length` (its log-probability only falls, the divisor only grows).
    /// So the search returns what it would return if it went on to `max_length`. Under a penalty that divides by the
    /// length that bound is loose, and a `max_length` far beyond the sentence's real length costs many steps.
    #[default]
    Exact,
    /// As soon as `beam_size` hypotheses have ended: the rule of fairseq and of CTranslate2 (its patience 1).
    ///
    /// Without a length penalty (`none`, or an exponent of 0), as in CTranslate2: as soon as the best candidate of some
    /// step has ended and `num_best` hypotheses have.
    EnoughFinished,
}

/// The settings of a [`BeamSearch`](crate::BeamSearch).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeamConfig {
    /// How many hypotheses live side by side; 1 is greedy search.
    pub beam_size: usize,
    /// How many hypotheses are returned, at most `beam_size`.
    pub num_best: usize,
    /// Eos is impossible before this many tokens; the other tokens then share its probability.
    pub min_length: usize,
    /// A hypothesis ends at this many tokens, eos counted.
    pub max_length: usize,
    /// How hypotheses of different lengths are compared.
    pub length_penalty: LengthPenalty,
    /// When the search ends.
    pub stop: StopRule,
    /// The id of the end-of-sentence token.
    pub eos: u32,
}

impl BeamConfig {
    /// One best hypothesis by the mean log-probability per token ([`LengthPenalty::Average`]), with
    /// [`StopRule::Exact`] and no minimum length.
    pub fn new(beam_size: usize, max_length: usize, eos: u32) -> Self {
        Self {
            beam_size,
            num_best: 1,
            min_length: 0,
            max_length,
            length_penalty: LengthPenalty::default(),
            stop: StopRule::default(),
            eos,
        }
    }

    /// The settings under which CTranslate2's `translate_batch` searches by default: `length_penalty=1`,
    /// `min_decoding_length=1`, `max_decoding_length=256`, `patience=1`, one hypothesis.
    ///
    /// Its score is the summed log-probability divided by the number of tokens, eos included in both. Its default
    /// `beam_size` is 2.
    pub fn ctranslate2(beam_size: usize, eos: u32) -> Self {
        Self {
            beam_size,
            num_best: 1,
            min_length: 1,
            max_length: 256,
            length_penalty: LengthPenalty::Length { alpha: 1.0 },
            stop: StopRule::EnoughFinished,
            eos,
        }
    }

    /// Checks that every setting is possible.
    ///
    /// # Errors
    /// [`DecodeError::Config`] names the first that is not.
    pub fn validate(&self) -> Result<(), DecodeError> {
        if self.beam_size == 0 {
            return Err(DecodeError::config("beam_size", 0, "at least 1"));
        }
        if self.num_best == 0 || self.num_best > self.beam_size {
            let wanted = format!("between 1 and beam_size ({})", self.beam_size);
            return Err(DecodeError::config("num_best", self.num_best, wanted));
        }
        if self.max_length == 0 {
            return Err(DecodeError::config("max_length", 0, "at least 1"));
        }
        if self.min_length > self.max_length {
            let wanted = format!("at most max_length ({})", self.max_length);
            return Err(DecodeError::config("min_length", self.min_length, wanted));
        }
        self.length_penalty.validate()
    }
}
