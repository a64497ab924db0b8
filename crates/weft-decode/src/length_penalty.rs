use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// How the summed log-probability `log P` of a hypothesis becomes the score that hypotheses are compared by.
///
/// | text           | score                           | known as |
/// | -------------- | ------------------------------- | -------- |
/// | `none`         | `log P`                         | plain probability; favours short outputs |
/// | `avg`          | `log P / length`                | mean log-probability per token; the same as `length:1` |
/// | `wu:ALPHA`     | `log P / ((5 + length) / 6)^ALPHA` | Wu et al. 2016 (arXiv 1609.08144), equation 14; the paper uses 0.2, the Transformer's authors 0.6 |
/// | `length:ALPHA` | `log P / length^ALPHA`          | the `length_penalty` of CTranslate2 and `lenpen` of fairseq, both 1 by default |
///
/// Eos counts: its log-probability is part of `log P` and it is one of the `length` tokens. A hypothesis that was cut at
/// the maximum length has no eos, and none is counted. Bos never counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LengthPenalty {
    /// `log P`.
    None,
    /// `log P / length`.
    #[default]
    Average,
    /// `log P / ((5 + length) / 6)^alpha`.
    Wu {
        /// The exponent; 0 is no penalty.
        alpha: f64,
    },
    /// `log P / length^alpha`.
    Length {
        /// The exponent; 0 is no penalty.
        alpha: f64,
    },
}

impl LengthPenalty {
    /// The score of a hypothesis: `log_prob` in nats, `num_tokens` without eos, and whether it `finished` with eos.
    pub fn score(self, log_prob: f64, num_tokens: usize, finished: bool) -> f64 {
        // At least 1: only a search that has not begun has a hypothesis without any token.
        let length = (num_tokens + usize::from(finished)).max(1) as f64;
        match self {
            Self::None => log_prob,
            Self::Average => log_prob / length,
            Self::Wu { alpha } => log_prob / ((5.0 + length) / 6.0).powf(alpha),
            Self::Length { alpha } => log_prob / length.powf(alpha),
        }
    }

    /// An upper bound on the score of every hypothesis that continues one of `num_tokens` tokens (without eos) and
    /// `log_prob`, when none may be longer than `max_length` tokens with eos. Log-probabilities only fall and the
    /// divisor only grows with the length, so that the bound lies at one of the two ends.
    pub(crate) fn best_reachable(self, log_prob: f64, num_tokens: usize, max_length: usize) -> f64 {
        self.score(log_prob, num_tokens, true).max(self.score(log_prob, max_length, false))
    }

    /// Whether the score is the log-probability, whatever the length.
    pub(crate) fn is_neutral(self) -> bool {
        match self {
            Self::None => true,
            Self::Average => false,
            Self::Wu { alpha } | Self::Length { alpha } => alpha == 0.0,
        }
    }

    pub(crate) fn validate(self) -> Result<(), DecodeError> {
        match self {
            Self::Wu { alpha } | Self::Length { alpha } if !(alpha.is_finite() && alpha >= 0.0) => {
                Err(DecodeError::config("length_penalty", self, "an ALPHA that is a finite number of at least 0"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for LengthPenalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Average => f.write_str("avg"),
            Self::Wu { alpha } => write!(f, "wu:{alpha}"),
            Self::Length { alpha } => write!(f, "length:{alpha}"),
        }
    }
}

impl FromStr for LengthPenalty {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let unknown = || DecodeError::LengthPenalty { found: text.to_string() };
        let number = |alpha: &str| alpha.trim().parse::<f64>().map_err(|_| unknown());
        let penalty = match text.trim().split_once(':') {
            None => match text.trim() {
                "none" => Self::None,
                "avg" => Self::Average,
                _ => return Err(unknown()),
            },
            Some(("wu", alpha)) => Self::Wu { alpha: number(alpha)? },
            Some(("length", alpha)) => Self::Length { alpha: number(alpha)? },
            Some(_) => return Err(unknown()),
        };
        penalty.validate()?;
        Ok(penalty)
    }
}

impl TryFrom<String> for LengthPenalty {
    type Error = DecodeError;

    fn try_from(text: String) -> Result<Self, DecodeError> {
        text.parse()
    }
}

impl From<LengthPenalty> for String {
    fn from(penalty: LengthPenalty) -> Self {
        penalty.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formulas() {
        let wu = LengthPenalty::Wu { alpha: 0.6 };
        assert!((wu.score(-6.0, 6, true) - -6.0 / 2f64.powf(0.6)).abs() < 1e-15);
        assert_eq!(wu.score(-6.0, 7, false), wu.score(-6.0, 6, true));
        assert_eq!(LengthPenalty::Average.score(-6.0, 2, true), -2.0);
        assert_eq!(LengthPenalty::Average.score(-6.0, 2, false), -3.0);
        assert_eq!(LengthPenalty::Length { alpha: 1.0 }.score(-6.0, 2, true), -2.0);
        assert_eq!(LengthPenalty::Length { alpha: 2.0 }.score(-8.0, 2, false), -2.0);
        assert_eq!(LengthPenalty::Length { alpha: 0.0 }.score(-6.0, 0, true), -6.0);
        assert_eq!(LengthPenalty::None.score(-6.0, 2, true), -6.0);
    }

    #[test]
    fn text() {
        assert_eq!("wu:0.6".parse::<LengthPenalty>().unwrap(), LengthPenalty::Wu { alpha: 0.6 });
        assert_eq!(" avg ".parse::<LengthPenalty>().unwrap(), LengthPenalty::Average);
        assert_eq!("length:1".parse::<LengthPenalty>().unwrap(), LengthPenalty::Length { alpha: 1.0 });
        for wrong in ["", "wu", "wu:", "wu:x", "length", "avg:1", "none:0", "google:0.6", "WU:0.6"] {
            let error = wrong.parse::<LengthPenalty>().unwrap_err();
            assert!(matches!(&error, DecodeError::LengthPenalty { found } if found == wrong), "{wrong}: {error}");
            assert!(error.hint().is_some());
        }
        for wrong in ["wu:-0.5", "length:inf", "wu:NaN"] {
            let error = wrong.parse::<LengthPenalty>().unwrap_err();
            assert!(matches!(error, DecodeError::Config { field: "length_penalty", .. }), "{wrong}: {error}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(alpha in 0.0..10.0f64, kind in 0..4) {
            let penalty = match kind {
                0 => LengthPenalty::None,
                1 => LengthPenalty::Average,
                2 => LengthPenalty::Wu { alpha },
                _ => LengthPenalty::Length { alpha },
            };
            prop_assert_eq!(penalty.to_string().parse::<LengthPenalty>().unwrap(), penalty);
            let json = serde_json::to_string(&penalty).unwrap();
            prop_assert_eq!(serde_json::from_str::<LengthPenalty>(&json).unwrap(), penalty);
        }

        #[test]
        fn nothing_beats_the_bound(
            alpha in 0.0..3.0f64, kind in 0..4, log_prob in -50.0..0.0f64, loss in 0.0..5.0f64, start in 0usize..10, more in 0usize..10,
        ) {
            let penalty = match kind {
                0 => LengthPenalty::None,
                1 => LengthPenalty::Average,
                2 => LengthPenalty::Wu { alpha },
                _ => LengthPenalty::Length { alpha },
            };
            let max_length = start + more + 1;
            let bound = penalty.best_reachable(log_prob, start, max_length);
            for length in start..max_length {
                prop_assert!(penalty.score(log_prob - loss, length, true) <= bound);
            }
            prop_assert!(penalty.score(log_prob - loss, max_length, false) <= bound);
        }
    }
}
