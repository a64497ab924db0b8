use std::fmt;

use serde::Serialize;

use crate::MetricError;
use crate::error::check_lines;

/// How many hypotheses are their reference, character by character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ExactMatch {
    /// The number of hypotheses that are right.
    pub num_correct: usize,
    /// The number of hypotheses, at least 1.
    pub num_total: usize,
}

impl ExactMatch {
    /// The share that is right, between 0 and 1.
    pub fn rate(self) -> f64 {
        self.num_correct as f64 / self.num_total as f64
    }
}

impl fmt::Display for ExactMatch {
    /// `98.50 % exact (197 of 200)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} % exact ({} of {})", 100.0 * self.rate(), self.num_correct, self.num_total)
    }
}

/// Counts the hypotheses that equal their reference, line by line.
///
/// # Errors
/// No hypotheses, or another number of references.
pub fn exact_match<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[R],
) -> Result<ExactMatch, MetricError> {
    check_lines::<H, &[R], R>(hypotheses, &[references])?;
    let pairs = hypotheses.iter().zip(references);
    let num_correct = pairs.filter(|(hypothesis, reference)| hypothesis.as_ref() == reference.as_ref()).count();
    Ok(ExactMatch { num_correct, num_total: hypotheses.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_equal_lines() {
        let found = exact_match(&["a", "b ", "c", ""], &["a", "b", "C", ""]).unwrap();
        assert_eq!(found, ExactMatch { num_correct: 2, num_total: 4 });
        assert_eq!(found.to_string(), "50.00 % exact (2 of 4)");
        let none: [&str; 0] = [];
        assert_eq!(exact_match(&none, &none), Err(MetricError::NoHypotheses));
        assert_eq!(exact_match(&["a"], &none), Err(MetricError::Lengths { reference: 1, found: 0, wanted: 1 }));
    }
}
