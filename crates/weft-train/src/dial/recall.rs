//! What follows where a task makes the texts.

use std::path::PathBuf;

use weft_text::{RecallKind, RecallTask, TextError, TokenizerKind};

use super::{Dial, range};
use crate::config::{ArchitectureKind, Overrides, RunConfig};
use crate::error::TrainError;

/// Steps, tokens of a step and the highest learning rate where nobody says otherwise: what small GPTs learned soonest with
/// (docs/experiments.md); other architectures were not tuned.
pub(super) const STEPS: u64 = 1000;
pub(super) const BATCH_TOKENS: usize = 4096;
pub(super) const LEARNING_RATE: f64 = 2e-3;

/// The deviation of a GPT's initial weights, and why: GPT-2's is meant for wider models; in a narrow one it takes twice the
/// steps to learn the task's first part (docs/experiments.md).
pub(super) fn deviation(hidden_size: usize) -> (f64, &'static str) {
    let deviation = (hidden_size as f64).powf(-0.5);
    (format!("{deviation:.1e}").parse().unwrap_or(deviation), "hidden^-0.5: narrow models learn the task sooner")
}

/// Checks that there are texts of this length with so many pairs.
pub(super) fn check_texts(config: &RunConfig, overrides: &Overrides) -> Result<(), TrainError> {
    match config.recall_task().map_or(Ok(()), |task| task.check()) {
        Err(TextError::Setting { field, found, wanted }) => {
            let key = if field == "pairs" { "data.pairs" } else { "training.window" };
            Err(range(overrides, key, found.to_string(), wanted.to_owned()))
        }
        other => Ok(other?),
    }
}

impl Dial<'_> {
    /// The task, if there is one: language models learn it, and nothing else is read.
    pub(super) fn recall_kind(&self, architecture: ArchitectureKind) -> Result<Option<RecallKind>, TrainError> {
        let task = self.fixed("data.task")?;
        if task.is_none() {
            return Ok(None);
        }
        let origin = |key: &str| self.overrides.origin_or(key, key);
        if architecture.is_translator() {
            let (key, architecture) = ("data.task", architecture.name());
            return Err(TrainError::NotApplicable { origin: origin(key), key: key.to_owned(), architecture });
        }
        let is_named =
            |key| Ok::<_, TrainError>(self.fixed::<Vec<PathBuf>>(key)?.is_some_and(|paths| !paths.is_empty()));
        let others = [
            ("data.train", is_named("data.train")?),
            ("data.validation", is_named("data.validation")?),
            ("training.epochs", self.fixed::<u64>("training.epochs")?.is_some()),
        ];
        match others.into_iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(TrainError::NotOfTask { origin: origin(key), key: key.to_owned() }),
            None => Ok(task),
        }
    }

    /// Pairs in a text of the task.
    pub(super) fn recall_pairs(&self, task: Option<RecallKind>) -> Result<Option<usize>, TrainError> {
        let Some(kind) = task else {
            return match self.fixed::<usize>("data.pairs")? {
                Some(found) => Err(self.range("data.pairs", found.to_string(), "a `data.task` besides".into())),
                None => Ok(None),
            };
        };
        let pairs = RecallTask::new(kind).pairs;
        let why = match kind {
            RecallKind::Needle => "the needle".to_owned(),
            RecallKind::Recall => format!("guessing is right once in {pairs}"),
        };
        Ok(Some(self.value("data.pairs", pairs, why)?))
    }

    /// The tokenizer of a task.
    pub(super) fn recall_tokenizer(&self) -> Result<TokenizerKind, TrainError> {
        let kind = self.value("tokenizer.kind", TokenizerKind::Characters, "the task's letters and digits")?;
        match kind {
            TokenizerKind::Characters => Ok(kind),
            other => Err(self.range("tokenizer.kind", other.name().into(), "`characters` for a task".into())),
        }
    }
}
