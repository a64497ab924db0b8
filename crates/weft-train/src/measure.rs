//! How long a language model takes to learn from and to generate text, by the text's length.

use std::time::Instant;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use weft_models::gpt::Gpt;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;
use weft_models::search::state_bytes;
use weft_models::{LanguageModel, Noise};
use weft_text::Tokenizer;

use crate::build::Buildable;
use crate::config::{ArchitectureKind, RunConfig};
use crate::error::TrainError;

/// Tokens of a measured batch, whatever the length of its sequences.
const BATCH_TOKENS: usize = 2048;
/// Steps of which the fastest counts: others were disturbed.
const TRIALS: usize = 3;
/// Tokens generated at each position.
const GENERATED: usize = 16;
/// Tokens read at once on the way to a position.
const READ_TOKENS: usize = 256;

/// Training on sequences of one length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingSpeed {
    /// Tokens of a sequence.
    pub length: usize,
    /// Tokens a second, forward and backward.
    pub tokens_per_second: f64,
}

/// Generation after a text of one length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerationSpeed {
    /// Tokens before.
    pub position: usize,
    /// Seconds for one more.
    pub seconds_per_token: f64,
    /// Bytes of caches or states that one sequence needs.
    pub state_bytes: usize,
}

/// Measures the architecture and shape of `config`, with new weights: their values do not matter for the time.
///
/// # Errors
/// A model that cannot be built, or no language model.
pub fn measure_speed(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    lengths: &[usize],
    positions: &[usize],
    device: &Device,
) -> Result<(Vec<TrainingSpeed>, Vec<GenerationSpeed>), TrainError> {
    let mut config = config.clone();
    let most = lengths.iter().copied().chain(positions.iter().map(|position| position + GENERATED)).max();
    config.model.max_positions = config.model.max_positions.map(|limit| limit.max(most.unwrap_or(0)));
    match config.model.architecture {
        ArchitectureKind::Gpt => measure::<Gpt>(&config, tokenizer, lengths, positions, device),
        ArchitectureKind::RecurrentLm => measure::<RecurrentLm>(&config, tokenizer, lengths, positions, device),
        ArchitectureKind::Rwkv4 => measure::<Rwkv4>(&config, tokenizer, lengths, positions, device),
        ArchitectureKind::Mamba2 => measure::<Mamba2>(&config, tokenizer, lengths, positions, device),
        ArchitectureKind::Rwkv7 => measure::<Rwkv7>(&config, tokenizer, lengths, positions, device),
        ArchitectureKind::Mamba => measure::<Mamba>(&config, tokenizer, lengths, positions, device),
        ArchitectureKind::Transformer | ArchitectureKind::RnnEncoderDecoder => Ok((Vec::new(), Vec::new())),
    }
}

fn measure<M: LanguageModel + Buildable>(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    lengths: &[usize],
    positions: &[usize],
    device: &Device,
) -> Result<(Vec<TrainingSpeed>, Vec<GenerationSpeed>), TrainError> {
    let shape = M::checked_config(config, tokenizer, None)?;
    let vocab_size = tokenizer.vocab_size();
    let model = M::new(&shape, config.training.seed, &device.clone().autodiff());
    let training = lengths.iter().map(|&length| training_speed(&model, length, vocab_size)).collect();
    let model = model.valid().for_decoding();
    let mut state = model.start(1);
    let mut position = 0;
    let generation = positions.iter().map(|&wanted| {
        while position < wanted {
            let count = READ_TOKENS.min(wanted - position);
            let _ = model.read(tokens(1, count, vocab_size, device), &mut state);
            position += count;
        }
        let start = Instant::now();
        for _ in 0..GENERATED {
            let _ = model.step(&[0], &mut state).into_data();
        }
        let seconds_per_token = start.elapsed().as_secs_f64() / GENERATED as f64;
        position += GENERATED;
        GenerationSpeed { position: wanted, seconds_per_token, state_bytes: state_bytes(&model, &state, position) }
    });
    Ok((training, generation.collect()))
}

fn training_speed<M: LanguageModel>(model: &M, length: usize, vocab_size: usize) -> TrainingSpeed {
    let device = model.devices()[0].clone();
    let rows = (BATCH_TOKENS / length).max(1);
    let step = || {
        let start = Instant::now();
        let (ids, targets) = (tokens(rows, length, vocab_size, &device), tokens(rows, length, vocab_size, &device));
        let loss = model.loss(ids, targets, &mut Noise::none());
        let _ = loss.backward();
        start.elapsed().as_secs_f64()
    };
    step();
    let seconds = (0..TRIALS).map(|_| step()).fold(f64::INFINITY, f64::min);
    TrainingSpeed { length, tokens_per_second: (rows * length) as f64 / seconds }
}

/// Tokens that are neither random nor all the same, `[rows, time]`.
fn tokens(rows: usize, time: usize, vocab_size: usize, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = (0..rows * time)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) % vocab_size.max(1))
        .map(|id| id as i32)
        .collect();
    Tensor::from_data(TensorData::new(ids, [rows, time]), device)
}
