//! Validations and checkpoints.

use std::path::PathBuf;

use burn::tensor::Device;
use weft_kernels::on_worker;
use weft_models::checkpoint::write_whole;
use weft_models::{Architecture, checkpoint};

use super::{Observer, Trainer, first_not_finite, not_finite_loss};
use crate::checkpoint::{Best, STATE_FILE};
use crate::config::Metric;
use crate::error::TrainError;
use crate::event::Event;
use crate::metrics::{Record, ValidationRecord, draw_curve};
use crate::task::Translations;

impl Metric {
    /// Whether a score is better than another.
    pub(super) fn is_better(self, score: f64, than: f64) -> bool {
        match self {
            Self::Loss => score < than,
            Self::Bleu => score > than,
        }
    }
}

/// What a validation found.
pub(super) struct Validation {
    pub(super) loss: f64,
    pub(super) translations: Option<Translations>,
    /// Of the answers, where the task has such.
    accuracy: Option<f64>,
}

impl Validation {
    pub(super) fn score(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Loss => self.loss,
            Metric::Bleu => self.translations.as_ref().map_or(0.0, |translations| translations.bleu),
        }
    }
}

impl<M: Architecture> Trainer<M> {
    pub(super) fn validation(&mut self, model: &M) -> Result<Validation, TrainError> {
        let device: Device = self.device.clone().inner();
        let task = &mut self.task;
        on_worker(move || {
            let (sum, tokens) = task.validation_loss(model, &device)?;
            let loss = sum / tokens.max(1) as f64;
            // A model that makes no numbers cannot be searched.
            let translations = if loss.is_finite() { task.translations(model)? } else { None };
            Ok(Validation { loss, translations, accuracy: task.accuracy(model) })
        })
    }

    /// Validates, and notes whether this is the best checkpoint so far.
    pub(super) fn validate(&mut self, observer: Observer<'_>) -> Result<bool, TrainError> {
        let model = self.model();
        let validation = self.validation(&model)?;
        let (metric, step) = (self.metric(), self.state.step);
        if !validation.loss.is_finite() {
            return Err(not_finite_loss(&model, step, "validation loss", validation.loss));
        }
        let score = validation.score(metric);
        let best = self.state.best.first().is_none_or(|best| metric.is_better(score, best.score));
        // Among equals the older is the better.
        let place = self.state.best.iter().position(|other| metric.is_better(score, other.score));
        let place = place.unwrap_or(self.state.best.len());
        self.state.best.insert(place, Best { step, score });
        self.state.best.truncate(self.config.training.keep_best.max(self.config.training.average).max(1));
        self.state.validations_without_best = if best { 0 } else { self.state.validations_without_best + 1 };
        self.state.seconds = self.seconds();
        let record = ValidationRecord {
            step,
            loss: validation.loss,
            bleu: validation.translations.as_ref().map(|translations| translations.bleu),
            accuracy: validation.accuracy,
            best,
            seconds: self.state.seconds,
        };
        self.metrics.add(Record::Validation(record.clone()))?;
        observer(&Event::Validated { record, translations: validation.translations });
        Ok(best)
    }

    /// Writes a checkpoint of where the run stands, and removes those that are no longer among the best.
    pub(super) fn save(&mut self) -> Result<PathBuf, TrainError> {
        self.metrics.sync()?;
        self.state.seconds = self.seconds();
        let model = self.model.as_ref().expect("the optimizer hands it back");
        // The step after a finite loss may have broken the weights; the checkpoints before it must outlive that.
        if let Some((name, found)) = first_not_finite(model) {
            let what = format!("the parameter `{name}`");
            return Err(TrainError::NotFinite { step: self.state.step, what, found: found.to_string() });
        }
        let path = self.folder.write_checkpoint(self.state.step, |folder| {
            checkpoint::save(model, folder)?;
            self.task.save_tokenizers(folder)?;
            self.optimizer.save(model, folder)?;
            Ok(write_whole(&folder.join(STATE_FILE), self.state.to_json().as_bytes())?)
        })?;
        let mut kept: Vec<u64> = self.state.best.iter().map(|best| best.step).collect();
        kept.push(self.state.step);
        self.folder.keep_only(&kept)?;
        Ok(path)
    }

    pub(super) fn draw(&self) -> Result<(), TrainError> {
        let model = &self.config.model;
        let dial = model.size.as_deref().or(model.preset.as_deref()).unwrap_or_default();
        draw_curve(self.metrics.records(), &format!("{} {dial}", model.architecture.name()), self.folder.path())
    }
}
