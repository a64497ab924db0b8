//! How a run is trained: budget, schedule, optimizer, validations.

use weft_text::RecallTask;

use super::{Dial, Facts, range, recall, sizes};
use crate::config::{ArchitectureKind, DataConfig, Metric, ModelConfig, Overrides, TrainingConfig};
use crate::error::TrainError;
use crate::schedule::ScheduleKind;

/// About two thousand years.
const MOST_MINUTES: f64 = 1e9;

/// Checks what ends a run, wherever it is set.
pub(crate) fn check_budget(
    steps: Option<u64>,
    epochs: Option<u64>,
    minutes: Option<f64>,
    overrides: &Overrides,
) -> Result<(), TrainError> {
    for (key, value) in [("training.steps", steps), ("training.epochs", epochs)] {
        if value == Some(0) {
            return Err(range(overrides, key, "0".into(), "at least 1".into()));
        }
    }
    match minutes.filter(|&minutes| !(minutes > 0.0 && minutes <= MOST_MINUTES)) {
        Some(minutes) => {
            let wanted = format!("above 0, at most {MOST_MINUTES}");
            Err(range(overrides, "training.minutes", minutes.to_string(), wanted))
        }
        None => Ok(()),
    }
}

impl Dial<'_> {
    pub(super) fn training(
        &self,
        architecture: ArchitectureKind,
        facts: &Facts,
        data: &DataConfig,
        model: &ModelConfig,
    ) -> Result<TrainingConfig, TrainError> {
        let translates = architecture.is_translator();
        let (mut steps, mut epochs, minutes) = (
            self.fixed::<u64>("training.steps")?,
            self.fixed::<u64>("training.epochs")?,
            self.fixed::<f64>("training.minutes")?,
        );
        check_budget(steps, epochs, minutes, self.overrides)?;
        if steps.is_none() && epochs.is_none() && minutes.is_none() {
            if translates {
                let many = (3_000_000 / facts.examples.max(1)).clamp(3, 60) as u64;
                epochs = Some(self.value("training.epochs", many, "about three million sentences in all")?);
            } else {
                let (many, why) = match data.task {
                    Some(_) => (recall::STEPS, "a few minutes of a small model"),
                    None => (5000, "enough for a few megabytes of text"),
                };
                steps = Some(self.value("training.steps", many, why)?);
            }
        }
        let wide = model.hidden_size >= 512;
        let batch_tokens = match (translates, wide) {
            (true, false) => (4096, "a few hundred short sentences"),
            (true, true) => (8192, "wide models like large batches"),
            (false, _) if data.task.is_some() => {
                (recall::BATCH_TOKENS, "a hundred texts: with a quarter of them nothing is looked up")
            }
            (false, _) => (4096, "sixteen windows of 256"),
        };
        let batch_tokens = self.within("training.batch_tokens", batch_tokens.0, (1, 1 << 26), batch_tokens.1)?;
        let batch_sentences: Option<usize> = self.fixed("training.batch_sentences")?;
        if let Some(most) = batch_sentences {
            self.check("training.batch_sentences", most, (1, 1 << 26))?;
        }
        let accumulate = self.fixed("training.accumulate")?.unwrap_or(1);
        self.check("training.accumulate", accumulate, (1, 1 << 20))?;
        let window = if translates {
            None
        } else {
            let longest = model.max_positions.unwrap_or(1 << 20);
            let (window, why) = match data.task {
                Some(kind) => (RecallTask::new(kind).length, "one text of the task"),
                None => (sizes::WINDOW, "a page of text"),
            };
            Some(self.within("training.window", window.min(longest), (1, longest), why)?)
        };
        // What one step sees, against what there is: about four bytes a token.
        let tokens = facts.bytes as u64 / if translates { 8 } else { 1 };
        let per_epoch = (tokens / (batch_tokens * accumulate) as u64).max(1);
        let expected = match (steps, epochs) {
            (Some(steps), Some(epochs)) => steps.min(epochs.saturating_mul(per_epoch)),
            (Some(steps), None) => steps,
            (None, Some(epochs)) => epochs.saturating_mul(per_epoch),
            // How fast the machine is shows only later: about a step a second is in the middle.
            (None, None) => minutes.map_or(1000, |minutes| (60.0 * minutes) as u64),
        };
        let pace = match (steps, epochs) {
            (None, None) => ", at about a step a second",
            _ => "",
        };
        let tenth = (expected / 10).clamp(20, 4000);
        let warmup = match architecture {
            ArchitectureKind::Transformer => (tenth, "a tenth of the run, at most the paper's 4000"),
            _ => (tenth.min(200), "Adam's moments settle in a few steps"),
        };
        let why = format!("{}{pace}", warmup.1);
        let warmup_steps = self.within("training.warmup_steps", warmup.0, (0, 1 << 40), why)?;
        let hidden = model.hidden_size as f64;
        let (rate, why) = match architecture {
            _ if data.task.is_some() => (recall::LEARNING_RATE, "small models look things up after some hundred steps"),
            ArchitectureKind::Transformer => (
                (hidden.powf(-0.5) * (warmup_steps.max(1) as f64).powf(-0.5)).min(2e-3),
                "the paper's peak, hidden^-0.5 warmup^-0.5, at most 0.002",
            ),
            ArchitectureKind::Gpt | ArchitectureKind::Llama | ArchitectureKind::Rwkv4 | ArchitectureKind::Rwkv7 => {
                (1e-3 * (384.0 / hidden).sqrt().min(2.0), "0.001 at 384 wide, less when wider")
            }
            ArchitectureKind::RnnEncoderDecoder => (1e-3, "Adam's own"),
            ArchitectureKind::Mamba | ArchitectureKind::Mamba2 => {
                (2e-3 * (384.0 / hidden).sqrt().min(2.0), "twice GPT's; the paper takes five times")
            }
            ArchitectureKind::RecurrentLm => (2e-3, "recurrent networks of this size stand it"),
        };
        // Two digits are as much as such a rule knows.
        let rate = format!("{rate:.1e}").parse().unwrap_or(rate);
        let learning_rate = self.within("training.learning_rate", rate, (1e-12, 10.0), why)?;
        let schedule = match architecture {
            ArchitectureKind::Transformer => self.value(
                "training.schedule",
                ScheduleKind::InverseSquareRoot,
                "the paper's; needs no end to be known beforehand",
            )?,
            _ => self.value("training.schedule", ScheduleKind::Cosine, "best when the end of the run is known")?,
        };
        let (decay, why) = match architecture {
            _ if data.task.is_some() => (0.0, "no text comes twice"),
            ArchitectureKind::Gpt | ArchitectureKind::Llama | ArchitectureKind::Mamba | ArchitectureKind::Mamba2 => {
                (0.1, "GPT's")
            }
            ArchitectureKind::Rwkv7 => (0.1, "the paper's"),
            ArchitectureKind::RecurrentLm => (0.01, "a little"),
            _ => (0.0, "none in the paper: Adam"),
        };
        let (betas, why_betas) = match architecture {
            ArchitectureKind::Transformer => ([0.9, 0.98], "the paper's"),
            ArchitectureKind::Gpt | ArchitectureKind::Llama | ArchitectureKind::Mamba | ArchitectureKind::Mamba2 => {
                ([0.9, 0.95], "GPT-3's")
            }
            ArchitectureKind::Rwkv4 | ArchitectureKind::Rwkv7 => ([0.9, 0.99], "the authors'"),
            _ => ([0.9, 0.999], "Adam's own"),
        };
        let betas: [f64; 2] = self.value("training.betas", betas, why_betas)?;
        if !betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return Err(self.range("training.betas", format!("{betas:?}"), "two numbers from 0 to below 1".into()));
        }
        let weight_decay = self.within("training.weight_decay", decay, (0.0, 10.0), why)?;
        let epsilon = if architecture == ArchitectureKind::Transformer { 1e-9 } else { 1e-8 };
        let interval = (expected / 20).clamp(10, 1000);
        let why = format!("twenty in a run{pace}");
        let interval = self.within("training.validation_interval", interval, (1, 1 << 40), why)?;
        let metric = self.metric(translates)?;
        let bleu_sentences = match translates {
            true => Some(self.within("training.bleu_sentences", 200, (0, 1 << 40), "a quick look")?),
            false => None,
        };
        if metric == Metric::Bleu && bleu_sentences == Some(0) {
            let wanted = "at least 1, because `training.metric` is bleu".to_owned();
            return Err(self.range("training.bleu_sentences", "0".into(), wanted));
        }
        let keep_best = self.within("training.keep_best", 5, (1, 1000), "enough to average")?;
        Ok(TrainingConfig {
            steps,
            epochs,
            minutes,
            batch_tokens,
            batch_sentences,
            accumulate,
            window,
            learning_rate,
            schedule,
            warmup_steps,
            floor_ratio: self.within("training.floor_ratio", 0.05, (0.0, 1.0), "a twentieth at the end")?,
            betas,
            epsilon: self.within("training.epsilon", epsilon, (1e-16, 1.0), "the paper's")?,
            weight_decay,
            clip_norm: self.within("training.clip_norm", 1.0, (0.0, 1e9), "the usual")?,
            label_smoothing: match translates {
                true => Some(self.within("training.label_smoothing", 0.1, (0.0, 0.99), "the paper's")?),
                false => None,
            },
            seed: self.fixed("training.seed")?.unwrap_or(42),
            log_interval: {
                let every = self.fixed("training.log_interval")?.unwrap_or(10);
                self.check("training.log_interval", every, (1, 1 << 40))?;
                every
            },
            validation_interval: interval,
            checkpoint_interval: self.within(
                "training.checkpoint_interval",
                interval,
                (1, 1 << 40),
                "with every validation",
            )?,
            patience: self.fixed("training.patience")?.unwrap_or(0),
            metric,
            keep_best,
            average: self.within("training.average", keep_best, (0, 1000), "all that are kept")?,
            beam: match translates {
                true => Some(self.within("training.beam", 1, (1, 1000), "greedy is quick and orders models alike")?),
                false => None,
            },
            bleu_sentences,
        })
    }

    fn metric(&self, translates: bool) -> Result<Metric, TrainError> {
        let metric = self.value("training.metric", Metric::Loss, "it is measured on every token")?;
        if metric == Metric::Bleu && !translates {
            return Err(self.range("training.metric", "bleu".into(), "`loss` for a language model".into()));
        }
        Ok(metric)
    }
}
