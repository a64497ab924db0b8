//! What can be wrong with a model's configuration.

/// A configuration that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A size that must be positive is zero.
    #[error("`{field}` is 0")]
    Zero {
        /// The field in config.json.
        field: &'static str,
    },
    /// Heads must divide the width.
    #[error("`{field}` is {heads}, which does not divide `{width_field}` = {width}")]
    Heads {
        /// The field with the number of heads.
        field: &'static str,
        /// Its value.
        heads: usize,
        /// The field with the width.
        width_field: &'static str,
        /// Its value.
        width: usize,
    },
    /// A number outside its range.
    #[error("`{field}` is {found}, not {wanted}")]
    Range {
        /// The field in config.json.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it may say.
        wanted: &'static str,
    },
}

impl ConfigError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Zero { field } => Some(format!("set `{field}` to 1 or more")),
            Self::Heads { width, .. } => {
                let divisors: Vec<String> =
                    (1..=64usize.min(*width)).filter(|&n| width.is_multiple_of(n)).map(|n| n.to_string()).collect();
                Some(format!("numbers of heads that divide {width}: {}", divisors.join(", ")))
            }
            Self::Range { .. } => None,
        }
    }
}

/// The field must not be zero.
pub(crate) fn positive(field: &'static str, value: usize) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::Zero { field }) } else { Ok(()) }
}

/// Heads must divide the width.
pub(crate) fn divides(
    field: &'static str,
    heads: usize,
    width_field: &'static str,
    width: usize,
) -> Result<(), ConfigError> {
    positive(field, heads)?;
    positive(width_field, width)?;
    if width.is_multiple_of(heads) { Ok(()) } else { Err(ConfigError::Heads { field, heads, width_field, width }) }
}

/// A probability of dropping must lie in 0..1.
pub(crate) fn probability(field: &'static str, value: f64) -> Result<(), ConfigError> {
    if (0.0..1.0).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::Range { field, found: value.to_string(), wanted: "a probability, at least 0 and below 1" })
    }
}

/// A translator's special tokens, padding, end and start, must be in the target's vocabulary.
pub(crate) fn special_tokens(ids: [u32; 3], vocab_size: usize) -> Result<(), ConfigError> {
    match ids.into_iter().find(|&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(id) => Err(ConfigError::Range {
            field: "pad/eos/decoder_start_token_id",
            found: id.to_string(),
            wanted: "below the size of the vocabulary",
        }),
    }
}

/// The steps at the start of training, shortest and longest.
pub(crate) fn initial_steps(least: f64, most: f64) -> Result<(), ConfigError> {
    if least > 0.0 && least <= most {
        Ok(())
    } else {
        let (found, wanted) = (least.to_string(), "above 0 and at most `time_step_max`");
        Err(ConfigError::Range { field: "time_step_min", found, wanted })
    }
}

/// The value must be one that we compute.
pub(crate) fn one_of(
    field: &'static str,
    found: &str,
    known: &[&str],
    wanted: &'static str,
) -> Result<(), ConfigError> {
    if known.contains(&found) {
        Ok(())
    } else {
        Err(ConfigError::Range { field, found: format!("\"{found}\""), wanted })
    }
}
