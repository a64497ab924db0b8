//! Pairs of sentences for a [`Translator`].

use burn::Tensor;
use burn::tensor::Device;
use weft_decode::BeamConfig;
use weft_metrics::Bleu;
use weft_models::search::translate;
use weft_models::{Noise, Sequences, Translator};
use weft_text::{BatchConfig, ParallelDataset, Tokenizer, epoch_batches, sorted_batches};

use super::{Task, Translated, Translations, scalar};
use crate::checkpoint::DataHashes;
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::prepare::TranslationData;

/// Learns to turn sources into targets. A source ends with the end token; a target begins with the model's start token
/// and ends with the end token.
#[derive(Debug)]
pub struct Translating {
    data: TranslationData,
    batching: BatchConfig,
    lengths: Vec<(u32, u32)>,
    batches: Vec<Vec<u32>>,
    seed: u64,
    label_smoothing: f32,
    beam: usize,
    bleu_sentences: usize,
}

/// Validation batches hold no gradients, so they can be this much larger.
const VALIDATION_TOKENS: usize = 4096;

impl Translating {
    /// The task of a run.
    pub fn new(config: &RunConfig, data: TranslationData) -> Self {
        let training = &config.training;
        let batching = BatchConfig {
            max_tokens: training.batch_tokens,
            max_sentences: training.batch_sentences.unwrap_or(usize::MAX),
            ..BatchConfig::default()
        };
        Self {
            lengths: lengths(&data.train),
            data,
            batching,
            batches: Vec::new(),
            seed: training.seed,
            label_smoothing: training.label_smoothing.unwrap_or(0.0) as f32,
            beam: training.beam.unwrap_or(1),
            bleu_sentences: training.bleu_sentences.unwrap_or(0),
        }
    }

    fn source(&self, dataset: &ParallelDataset, indices: &[u32], device: &Device) -> Sequences {
        let tokens = self.data.source_tokenizer.special_tokens();
        let rows: Vec<Vec<u32>> =
            indices.iter().map(|&i| with_end(dataset.source.get(i as usize), tokens.eos)).collect();
        Sequences::new(&rows, tokens.pad, device)
    }

    fn batch_loss<M: Translator>(
        &self,
        model: &M,
        dataset: &ParallelDataset,
        indices: &[u32],
        label_smoothing: f32,
        noise: &mut Noise,
        device: &Device,
    ) -> (Tensor<1>, usize) {
        let tokens = self.data.target_tokenizer.special_tokens();
        let targets = || indices.iter().map(|&i| dataset.target.get(i as usize));
        let start = model.start_token();
        let read: Vec<Vec<u32>> = targets().map(|target| [&[start], target].concat()).collect();
        let predicted: Vec<Vec<u32>> = targets().map(|target| with_end(target, tokens.eos)).collect();
        let source = self.source(dataset, indices, device);
        let (read, predicted) =
            (Sequences::new(&read, tokens.pad, device), Sequences::new(&predicted, tokens.pad, device));
        let loss = model.loss(&source, &read, &predicted, label_smoothing, noise);
        (loss, predicted.tokens())
    }
}

impl<M: Translator> Task<M> for Translating {
    fn begin_epoch(&mut self, epoch: u64) -> Result<usize, TrainError> {
        self.batches = epoch_batches(&self.lengths, self.batching, self.seed, epoch);
        Ok(self.batches.len().max(1))
    }

    fn loss(
        &self,
        model: &M,
        position: usize,
        noise: &mut Noise,
        device: &Device,
    ) -> Result<(Tensor<1>, usize), TrainError> {
        let indices = self.batches.get(position).map_or(&[][..], Vec::as_slice);
        Ok(self.batch_loss(model, &self.data.train, indices, self.label_smoothing, noise, device))
    }

    fn validation_loss(&self, model: &M, device: &Device) -> Result<(f64, usize), TrainError> {
        let batching = BatchConfig { max_tokens: VALIDATION_TOKENS, ..BatchConfig::default() };
        let (mut sum, mut tokens, mut noise) = (0.0, 0, Noise::none());
        for indices in sorted_batches(&lengths(&self.data.validation), batching) {
            let (loss, count) = self.batch_loss(model, &self.data.validation, &indices, 0.0, &mut noise, device);
            sum += scalar(&loss);
            tokens += count;
        }
        Ok((sum, tokens))
    }

    fn translations(&self, model: &M) -> Result<Option<Translations>, TrainError> {
        let validation = &self.data.validation;
        let count = self.bleu_sentences.min(validation.len());
        if count == 0 {
            return Ok(None);
        }
        let (from, to) = (&self.data.source_tokenizer, &self.data.target_tokenizer);
        let sources: Vec<Vec<u32>> = (0..count).map(|i| with_end(validation.source.get(i), from.eos_id())).collect();
        let longest = sources.iter().map(Vec::len).max().unwrap_or(0);
        let config = BeamConfig::new(self.beam, 2 * longest + 10, to.eos_id());
        let hypotheses = translate(&model.clone().for_decoding(), &sources, &config).map_err(TrainError::Decode)?;
        let mut sentences = Vec::with_capacity(count);
        for (i, best) in hypotheses.iter().enumerate() {
            let tokens = best.first().map_or(&[][..], |best| &best.tokens);
            sentences.push(Translated {
                source: from.decode(validation.source.get(i))?,
                hypothesis: to.decode(tokens)?,
                reference: to.decode(validation.target.get(i))?,
            });
        }
        let hypotheses: Vec<&str> = sentences.iter().map(|sentence| sentence.hypothesis.as_str()).collect();
        let references: Vec<&str> = sentences.iter().map(|sentence| sentence.reference.as_str()).collect();
        let score = Bleu::default().corpus(&hypotheses, &[references]).map_err(TrainError::Score)?;
        Ok(Some(Translations { bleu: score.score, signature: score.signature, sentences }))
    }

    fn hashes(&self) -> DataHashes {
        let source = &self.data.source_tokenizer;
        let shared = *source == self.data.target_tokenizer;
        DataHashes {
            train: self.data.train.hash.clone(),
            validation: self.data.validation.hash.clone(),
            tokenizer: self.data.target_tokenizer.hash().to_owned(),
            source_tokenizer: (!shared).then(|| source.hash().to_owned()),
        }
    }

    fn tokenizers(&self) -> (&Tokenizer, Option<&Tokenizer>) {
        let (source, target) = (&self.data.source_tokenizer, &self.data.target_tokenizer);
        (target, (source != target).then_some(source))
    }
}

fn with_end(tokens: &[u32], end: u32) -> Vec<u32> {
    [tokens, &[end]].concat()
}

/// The lengths of each pair as the model sees them, ends included.
fn lengths(dataset: &ParallelDataset) -> Vec<(u32, u32)> {
    dataset.lengths().into_iter().map(|(source, target)| (source + 1, target)).collect()
}
