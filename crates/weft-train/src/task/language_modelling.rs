//! A stream of text for a [`LanguageModel`].

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use weft_models::{LanguageModel, Noise};
use weft_text::{Tokenizer, WindowBatch, random_windows, sequential_windows};

use super::{Task, scalar};
use crate::checkpoint::DataHashes;
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::prepare::TextData;

/// Learns to predict each token from those before it, in windows at random places. An epoch is as many windows as it
/// takes to read as many tokens as the text has.
#[derive(Debug)]
pub struct LanguageModelling {
    data: TextData,
    window: usize,
    rows: usize,
    seed: u64,
    epoch: u64,
    batches: usize,
}

/// Windows of a validation batch.
const VALIDATION_ROWS: usize = 16;

impl LanguageModelling {
    /// The task of a run.
    pub fn new(config: &RunConfig, data: TextData) -> Self {
        let window = config.training.window.unwrap_or(1);
        let rows = (config.training.batch_tokens / window.max(1)).max(1);
        let batches = (data.train.len() / (rows * window).max(1)).max(1);
        Self { data, window, rows, seed: config.training.seed, epoch: 0, batches }
    }
}

impl<M: LanguageModel> Task<M> for LanguageModelling {
    fn begin_epoch(&mut self, epoch: u64) -> Result<usize, TrainError> {
        self.epoch = epoch;
        random_windows(self.data.train.len(), self.window, self.rows, self.seed, 0)?;
        Ok(self.batches)
    }

    fn loss(
        &self,
        model: &M,
        position: usize,
        noise: &mut Noise,
        device: &Device,
    ) -> Result<(Tensor<1>, usize), TrainError> {
        let step = self.epoch * self.batches as u64 + position as u64;
        let starts = random_windows(self.data.train.len(), self.window, self.rows, self.seed, step)?;
        let batch = WindowBatch::collate(&self.data.train, &starts, self.window)?;
        let tokens = batch.rows * batch.time;
        let (ids, targets) = tensors(batch, device);
        Ok((model.loss(ids, targets, noise), tokens))
    }

    fn validation_loss(&self, model: &M, device: &Device) -> Result<(f64, usize), TrainError> {
        let stream = &self.data.validation;
        let windows = sequential_windows(stream.len(), self.window, self.window)?;
        let (mut sum, mut tokens, mut noise) = (0.0, 0, Noise::none());
        for windows in windows.chunks(VALIDATION_ROWS) {
            let starts: Vec<usize> = windows.iter().map(|window| window.start).collect();
            let time = windows[0].length;
            let mut batch = WindowBatch::collate(stream, &starts, time)?;
            for (row, window) in windows.iter().enumerate() {
                batch.targets[row * time..][..window.scored_from].fill(-1);
                tokens += time - window.scored_from;
            }
            let (ids, targets) = tensors(batch, device);
            sum += scalar(&model.loss(ids, targets, &mut noise));
        }
        Ok((sum, tokens))
    }

    fn hashes(&self) -> DataHashes {
        DataHashes {
            train: self.data.train_hash.clone(),
            validation: self.data.validation_hash.clone(),
            tokenizer: self.data.tokenizer.hash().to_owned(),
            source_tokenizer: None,
        }
    }

    fn tokenizers(&self) -> (&Tokenizer, Option<&Tokenizer>) {
        (&self.data.tokenizer, None)
    }
}

fn tensors(batch: WindowBatch, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let shape = [batch.rows, batch.time];
    let tensor = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, shape), device);
    (tensor(batch.inputs), tensor(batch.targets))
}
