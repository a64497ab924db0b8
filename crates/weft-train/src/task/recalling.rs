//! Texts that ask for what they said before, for a [`LanguageModel`].

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use weft_models::{LanguageModel, Noise};
use weft_text::{RecallTask, RecallTokens, Tokenizer, WindowBatch};

use super::{Task, scalar};
use crate::checkpoint::DataHashes;
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::recall::{count_correct, piece};

/// Learns to answer: only the answers count. No text comes twice; each is a pure function of the seed and its number.
#[derive(Debug)]
pub struct Recalling {
    task: RecallTask,
    tokenizer: Tokenizer,
    tokens: RecallTokens,
    rows: usize,
    seed: u64,
    epoch: u64,
    validation: Vec<WindowBatch>,
}

/// Texts that are validated on, and how many of them at once.
const VALIDATION_TEXTS: u64 = 256;
const VALIDATION_TOKENS: usize = 4096;
/// Micro-batches of an epoch, which is a word here for a stretch of the stream.
const BATCHES_IN_EPOCH: usize = 1000;

impl Recalling {
    /// A task with its tokenizer: the one that is given, or one of the task's characters.
    ///
    /// # Errors
    /// A task that cannot be, or a tokenizer that cannot write it.
    pub fn new(config: &RunConfig, task: RecallTask, given: Option<Tokenizer>) -> Result<Self, TrainError> {
        task.check()?;
        let tokenizer = match given {
            Some(tokenizer) => tokenizer,
            None => {
                let alphabet = std::iter::once(Ok(RecallTask::ALPHABET.to_owned()));
                Tokenizer::train(config.tokenizer.kind, config.tokenizer.vocab_size, alphabet)?
            }
        };
        let tokens = RecallTokens::new(&tokenizer)?;
        let texts: Vec<_> = (0..VALIDATION_TEXTS).map(|index| task.validation_text(index)).collect();
        let validation = texts.chunks((VALIDATION_TOKENS / task.length).max(1));
        Ok(Self {
            validation: validation.map(|texts| tokens.collate(texts)).collect(),
            rows: (config.training.batch_tokens / task.length).max(1),
            seed: config.training.seed,
            epoch: 0,
            task,
            tokenizer,
            tokens,
        })
    }

    /// Reads and writes the task's characters.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl<M: LanguageModel> Task<M> for Recalling {
    fn begin_epoch(&mut self, epoch: u64) -> Result<usize, TrainError> {
        self.epoch = epoch;
        Ok(BATCHES_IN_EPOCH)
    }

    fn loss(
        &self,
        model: &M,
        position: usize,
        noise: &mut Noise,
        device: &Device,
    ) -> Result<(Tensor<1>, usize), TrainError> {
        let first = (self.epoch * BATCHES_IN_EPOCH as u64 + position as u64) * self.rows as u64;
        let texts = (first..first + self.rows as u64).map(|index| self.task.training_text(self.seed, index));
        let batch = self.tokens.collate(&texts.collect::<Vec<_>>());
        Ok(loss(model, &batch, noise, device))
    }

    fn validation_loss(&self, model: &M, device: &Device) -> Result<(f64, usize), TrainError> {
        let losses = self.validation.iter().map(|batch| loss(model, batch, &mut Noise::none(), device));
        Ok(losses.fold((0.0, 0), |(sum, tokens), (loss, count)| (sum + scalar(&loss), tokens + count)))
    }

    fn accuracy(&self, model: &M) -> Option<f64> {
        let piece = |batch: &WindowBatch| piece(batch.rows, self.tokenizer.vocab_size());
        let correct: usize = self.validation.iter().map(|batch| count_correct(model, batch, piece(batch))).sum();
        let asked: usize = self.validation.iter().map(answers).sum();
        Some(correct as f64 / asked.max(1) as f64)
    }

    fn hashes(&self) -> DataHashes {
        DataHashes {
            train: self.task.training_hash(self.seed),
            validation: self.task.validation_hash(VALIDATION_TEXTS),
            tokenizer: self.tokenizer.hash().to_owned(),
            source_tokenizer: None,
        }
    }

    fn tokenizers(&self) -> (&Tokenizer, Option<&Tokenizer>) {
        (&self.tokenizer, None)
    }
}

/// The sum of the losses of a batch's answers, and their number.
fn loss<M: LanguageModel>(model: &M, batch: &WindowBatch, noise: &mut Noise, device: &Device) -> (Tensor<1>, usize) {
    let tensor = |values: &[i32]| {
        Tensor::<2, Int>::from_data(TensorData::new(values.to_vec(), [batch.rows, batch.time]), device)
    };
    (model.loss(tensor(&batch.inputs), tensor(&batch.targets), noise), answers(batch))
}

fn answers(batch: &WindowBatch) -> usize {
    batch.targets.iter().filter(|&&target| target >= 0).count()
}
