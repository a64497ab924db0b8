//! `metrics.jsonl`, TensorBoard events and the picture of the curve: the same numbers for tools, people and eyes.

mod curve;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use curve::draw_curve;

use crate::checkpoint::RunFolder;
use crate::error::TrainError;
use crate::tensorboard::EventWriter;

/// One line of `metrics.jsonl`. Timings (`tokens_per_second`, `seconds`) differ between runs, all else is a function of
/// configuration, data and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// Since the last line of this kind.
    Training(TrainingRecord),
    /// A validation.
    Validation(ValidationRecord),
}

/// The training since the last such record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Steps done.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Target tokens learned from since the start of the run.
    pub tokens: u64,
    /// Loss for each target token.
    pub loss: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The norm of the step's mean gradient before clipping.
    pub gradient_norm: f64,
    /// Target tokens a second.
    pub tokens_per_second: f64,
    /// Seconds since the start of the run.
    pub seconds: f64,
}

/// A validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// Steps done.
    pub step: u64,
    /// Loss for each target token, without label smoothing.
    pub loss: f64,
    /// BLEU of the first validation sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bleu: Option<f64>,
    /// The share of right answers, 0 to 1, of a task that asks for answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Whether it is the best so far.
    pub best: bool,
    /// Seconds since the start of the run.
    pub seconds: f64,
}

impl Record {
    /// Steps done.
    pub fn step(&self) -> u64 {
        match self {
            Self::Training(record) => record.step,
            Self::Validation(record) => record.step,
        }
    }
}

/// Reads `metrics.jsonl`; a torn last line is left out.
///
/// # Errors
/// A file that cannot be read, or a whole line that is no record.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>, TrainError> {
    Ok(read_lines(path)?.into_iter().map(|(record, _)| record).collect())
}

/// Records with the lines that they stand on.
fn read_lines(path: &Path) -> Result<Vec<(Record, String)>, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut records = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
        let record = serde_json::from_str(line).map_err(|error| TrainError::Damaged {
            path: path.to_owned(),
            problem: format!("line {} is no record: {error}", index + 1),
        })?;
        records.push((record, line.to_owned()));
    }
    Ok(records)
}

/// Where records go.
#[derive(Debug)]
pub(crate) struct Metrics {
    file: File,
    path: std::path::PathBuf,
    events: EventWriter,
    records: Vec<Record>,
}

impl Metrics {
    /// Opens the files of a run that has done `step` steps; what they say of later ones is cut off.
    pub(crate) fn open(folder: &RunFolder, step: u64) -> Result<Self, TrainError> {
        let path = folder.metrics_path();
        let mut lines = if path.exists() { read_lines(&path)? } else { Vec::new() };
        lines.retain(|(record, _)| record.step() <= step);
        // The lines stay as they are, to the last digit.
        let (records, lines): (Vec<Record>, Vec<String>) = lines.into_iter().unzip();
        let text = lines.concat();
        weft_models::checkpoint::write_whole(&path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(TrainError::write(&path))?;
        let events = EventWriter::create(folder.path(), (step > 0).then_some(step + 1))?;
        Ok(Self { file, path, events, records })
    }

    pub(crate) fn add(&mut self, record: Record) -> Result<(), TrainError> {
        self.file.write_all(line(&record).as_bytes()).map_err(TrainError::write(&self.path))?;
        match &record {
            Record::Training(record) => self.events.scalars(
                record.step,
                &[
                    ("loss/training", record.loss as f32),
                    ("training/learning_rate", record.learning_rate as f32),
                    ("training/gradient_norm", record.gradient_norm as f32),
                    ("training/tokens_per_second", record.tokens_per_second as f32),
                ],
            )?,
            Record::Validation(record) => {
                let mut values = vec![("loss/validation", record.loss as f32)];
                values.extend(record.bleu.map(|bleu| ("validation/bleu", bleu as f32)));
                values.extend(record.accuracy.map(|share| ("validation/accuracy", share as f32)));
                self.events.scalars(record.step, &values)?;
            }
        }
        self.records.push(record);
        Ok(())
    }

    /// Waits until everything is on the disk.
    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(TrainError::write(&self.path))?;
        Ok(self.events.sync()?)
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("numbers") + "\n"
}
