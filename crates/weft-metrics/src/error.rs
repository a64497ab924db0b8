/// Why a metric could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// There is nothing to measure.
    #[error("there are no hypotheses to score")]
    NoHypotheses,
    /// There is nothing to compare with.
    #[error("there are no references to compare with")]
    NoReferences,
    /// A reference has not one line per hypothesis.
    #[error("reference {reference} has {found} lines for {wanted} hypotheses")]
    Lengths {
        /// Which list of references, counted from 1.
        reference: usize,
        /// Its number of lines.
        found: usize,
        /// The number of hypotheses.
        wanted: usize,
    },
    /// A setting is outside what it may be.
    #[error("{field} is {found}, wanted {wanted}")]
    Setting {
        /// The setting's name.
        field: &'static str,
        /// The value that was given.
        found: String,
        /// The values that are possible.
        wanted: &'static str,
    },
}

impl MetricError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lengths { .. } => Some(
                "hypotheses and references belong together line by line: check for lost, added or wrapped lines"
                    .to_string(),
            ),
            _ => None,
        }
    }

    pub(crate) fn setting(field: &'static str, found: impl std::fmt::Display, wanted: &'static str) -> Self {
        Self::Setting { field, found: found.to_string(), wanted }
    }
}

/// Checks that there are hypotheses, references, and a line of each reference for each hypothesis.
pub(crate) fn check_lines<H, L, R>(hypotheses: &[H], references: &[L]) -> Result<(), MetricError>
where
    L: AsRef<[R]>,
{
    if hypotheses.is_empty() {
        return Err(MetricError::NoHypotheses);
    }
    if references.is_empty() {
        return Err(MetricError::NoReferences);
    }
    for (index, lines) in references.iter().enumerate() {
        let found = lines.as_ref().len();
        if found != hypotheses.len() {
            return Err(MetricError::Lengths { reference: index + 1, found, wanted: hypotheses.len() });
        }
    }
    Ok(())
}
