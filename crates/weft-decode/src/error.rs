/// Why scores could not be turned into a choice.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A setting is outside what it may be.
    #[error("{field} is {found}, wanted {wanted}")]
    Config {
        /// The setting's name, as in the configuration.
        field: &'static str,
        /// The value that was given.
        found: String,
        /// The values that are possible.
        wanted: String,
    },
    /// The text of a length penalty could not be read.
    #[error("unknown length penalty `{found}`, wanted `wu:ALPHA`, `avg`, `length:ALPHA` or `none`")]
    LengthPenalty {
        /// The text that was given.
        found: String,
    },
    /// There are no scores to choose from.
    #[error("the scores are empty: the vocabulary has no tokens")]
    EmptyVocabulary,
    /// The number of scores does not divide into rows of equal length.
    #[error("{found} scores for {rows} live rows, wanted the same number for each row")]
    Shape {
        /// The number of scores handed over.
        found: usize,
        /// The number of rows expected.
        rows: usize,
    },
    /// The rows have another length than in the step before.
    #[error("rows of {found} scores after rows of {wanted}: the vocabulary changed during the search")]
    VocabularyChanged {
        /// The length of this step's rows.
        found: usize,
        /// The length of the earlier rows.
        wanted: usize,
    },
    /// A token id lies outside the vocabulary.
    #[error("{what} token {token} lies outside the vocabulary of {vocabulary} tokens")]
    TokenOutOfRange {
        /// The role of the token: `eos`, `history`.
        what: &'static str,
        /// The token's id.
        token: u32,
        /// The number of tokens in the vocabulary.
        vocabulary: usize,
    },
    /// A score is NaN.
    #[error("the score of token {token} in row {row} is not a number")]
    NotANumber {
        /// The row of the score.
        row: usize,
        /// The token the score belongs to.
        token: usize,
    },
    /// A score is plus infinity.
    #[error("the score of token {token} in row {row} is infinite")]
    Infinite {
        /// The row of the score.
        row: usize,
        /// The token the score belongs to.
        token: usize,
    },
    /// Every token of a row is impossible.
    #[error("every score in row {row} is minus infinity: no token is possible")]
    NothingPossible {
        /// The row without a possible token.
        row: usize,
    },
    /// A score that should be a log-probability is above zero.
    #[error("the score of token {token} in row {row} is {found}, but a log-probability is at most 0")]
    NotALogProbability {
        /// The row of the score.
        row: usize,
        /// The token the score belongs to.
        token: usize,
        /// The score.
        found: f32,
    },
    /// No hypothesis can be continued and none has finished.
    #[error("no hypothesis can be continued after {step} tokens and none has finished")]
    DeadEnd {
        /// The number of steps taken before this one.
        step: usize,
    },
    /// A search was advanced after its end.
    #[error("the search is done and cannot be advanced")]
    Done,
}

impl DecodeError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::LengthPenalty { .. } => {
                "for example `wu:0.6` (Wu et al. 2016), `avg` (mean log-probability per token), \
                 `length:1` (as CTranslate2) or `none`"
            }
            Self::NotANumber { .. } | Self::Infinite { .. } | Self::NothingPossible { .. } => {
                "the model's output is broken: check that training did not diverge and that the checkpoint is whole"
            }
            Self::NotALogProbability { .. } => "logits go to `advance_logits`, log-probabilities to `advance`",
            Self::DeadEnd { .. } => "a smaller min_length leaves room for the end of the sentence",
            _ => return None,
        };
        Some(hint.to_string())
    }

    pub(crate) fn config(field: &'static str, found: impl std::fmt::Display, wanted: impl Into<String>) -> Self {
        Self::Config { field, found: found.to_string(), wanted: wanted.into() }
    }
}
