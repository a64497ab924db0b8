//! What a run tells the outside while it goes on.

use std::path::PathBuf;

use crate::checkpoint::PassedOver;
use crate::metrics::{TrainingRecord, ValidationRecord};
use crate::task::Translations;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A newer checkpoint is not whole and was left aside.
    PassedOver(PassedOver),
    /// The run goes on from a checkpoint.
    Resumed {
        /// The checkpoint.
        path: PathBuf,
        /// Its step.
        step: u64,
    },
    /// A step is done.
    Stepped(Progress),
    /// A line of training metrics.
    Trained(TrainingRecord),
    /// A validation.
    Validated {
        /// Its numbers.
        record: ValidationRecord,
        /// What the model made of the first validation sentences.
        translations: Option<Translations>,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Its folder.
        path: PathBuf,
        /// Its step.
        step: u64,
    },
    /// The best checkpoints were averaged.
    Averaged {
        /// The steps of the checkpoints.
        steps: Vec<u64>,
        /// How the average validates, by the run's metric.
        score: f64,
        /// How the best of them does.
        best: f64,
        /// Whether the average became the run's model.
        chosen: bool,
    },
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all, as far as it is known beforehand.
    pub total_steps: Option<u64>,
    /// Share of the budget that is used up, 0 to 1, whichever of its limits is nearest.
    pub share: f64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Loss for each target token of this step.
    pub loss: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The norm of the step's mean gradient before clipping.
    pub gradient_norm: f64,
    /// Target tokens of this step.
    pub tokens: usize,
    /// Seconds since the start of the run.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The budget is used up.
    Finished,
    /// Validations stopped getting better.
    EarlyStopped,
    /// It was asked to stop; a checkpoint was saved.
    Interrupted,
}
