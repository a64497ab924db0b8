//! What both sides are told about training and searching.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use weft_train::OptimizerSettings;

/// Of the kinds `gpt` and `transformer`.
#[derive(Debug, Deserialize)]
pub(crate) struct TrainingOptions {
    /// On embeddings and residual branches.
    #[serde(default)]
    pub(crate) dropout: f64,
    #[serde(default)]
    pub(crate) label_smoothing: f32,
    /// Of every step.
    pub(crate) learning_rate: f64,
    beta_1: f64,
    beta_2: f64,
    epsilon: f64,
    weight_decay: f64,
    /// The longest gradient; 0 for no limit.
    #[serde(default)]
    max_norm: f64,
}

impl TrainingOptions {
    /// What the optimizer needs of them.
    pub(crate) fn optimizer(&self) -> OptimizerSettings {
        OptimizerSettings {
            betas: [self.beta_1, self.beta_2],
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            clip_norm: self.max_norm,
        }
    }
}

/// Of the kind `translate`.
#[derive(Debug, Deserialize)]
pub(crate) struct SearchOptions {
    /// Hypotheses side by side.
    pub(crate) beam: usize,
    /// The exponent of the length by which log-probabilities are divided.
    pub(crate) length_penalty: f64,
    /// Tokens of an output.
    pub(crate) max_length: usize,
}

/// Reads a JSON file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not understood", path.display()))
}
