//! `state.json`: where a run stands.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// The file's name.
pub(crate) const STATE_FILE: &str = "state.json";

/// Everything beside weights and moments that a run needs to go on as if it had never stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// The epoch of the next micro-batch, from 0.
    pub epoch: u64,
    /// The next micro-batch's place in its epoch.
    pub position: usize,
    /// Target tokens learned from so far.
    pub tokens: u64,
    /// The sum of the losses since the last line of training metrics.
    #[serde(with = "crate::exact")]
    pub unreported_loss: f64,
    /// The target tokens of that sum.
    pub unreported_tokens: u64,
    /// Seconds spent so far, validations included.
    pub seconds: f64,
    /// The best checkpoints, the best first.
    pub best: Vec<Best>,
    /// Validations since the best one.
    pub validations_without_best: u64,
    /// What the run is about.
    pub data: DataHashes,
    /// The full configuration as TOML, which keeps numbers to the last digit; empty in checkpoints that older versions
    /// wrote.
    #[serde(default)]
    pub config: String,
    /// The version that wrote this.
    pub weft_version: String,
}

/// A checkpoint and how it validated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// The metric's value.
    #[serde(with = "crate::exact")]
    pub score: f64,
}

/// SHA-256 of what a run learns from, hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataHashes {
    /// Of the training corpus.
    pub train: String,
    /// Of the validation corpus.
    pub validation: String,
    /// Of the (target) tokenizer.
    pub tokenizer: String,
    /// Of the source tokenizer where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_tokenizer: Option<String>,
}

impl DataHashes {
    /// Checks that these are the data that a run began with.
    ///
    /// # Errors
    /// Names the first that changed.
    pub(crate) fn check(&self, now: &Self) -> Result<(), TrainError> {
        let none = String::new;
        let pairs = [
            ("training corpus", self.train.clone(), now.train.clone()),
            ("validation corpus", self.validation.clone(), now.validation.clone()),
            ("tokenizer", self.tokenizer.clone(), now.tokenizer.clone()),
            (
                "source tokenizer",
                self.source_tokenizer.clone().unwrap_or_else(none),
                now.source_tokenizer.clone().unwrap_or_else(none),
            ),
        ];
        match pairs.into_iter().find(|(_, was, is)| was != is) {
            Some((what, was, is)) => Err(TrainError::Changed { what, was, is }),
            None => Ok(()),
        }
    }
}

impl RunState {
    /// Reads a checkpoint's state.
    ///
    /// # Errors
    /// A file that cannot be read or is not a state.
    pub fn read(checkpoint: &Path) -> Result<Self, TrainError> {
        let path = checkpoint.join(STATE_FILE);
        let text = std::fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text)
            .map_err(|error| TrainError::Damaged { path, problem: format!("it is no state of a run: {error}") })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings") + "\n"
    }
}
