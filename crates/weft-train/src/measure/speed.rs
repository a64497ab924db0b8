//! How long a language model takes to learn from and to generate text, and how much memory, by the text's length.

use std::time::Instant;

use burn::tensor::Device;
use weft_kernels::on_worker;
use weft_models::search::state_bytes;
use weft_models::{LanguageModel, Noise};
use weft_text::Tokenizer;

use super::{BATCH_TOKENS, ForLanguageModel, MemoryMeter, TRIALS, tokens, with_architecture};
use crate::build::Buildable;
use crate::config::RunConfig;
use crate::error::TrainError;

/// Tokens generated at each position.
const GENERATED: usize = 16;
/// Tokens read at once on the way to a position.
const READ_TOKENS: usize = 256;

/// Training on sequences of one length, in batches of about as many tokens whatever the length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingSpeed {
    /// Tokens of a sequence.
    pub length: usize,
    /// Tokens a second, forward and backward.
    pub tokens_per_second: f64,
    /// Bytes that the two passes over a batch need at most beside the weights, gradients included, if known.
    pub peak_bytes: Option<usize>,
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

/// Measures the architecture and shape of `config`, with new weights: their values do not matter for the time. Nothing
/// of a translator.
///
/// # Errors
/// A model that cannot be built.
pub fn measure_speed(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    lengths: &[usize],
    positions: &[usize],
    meter: MemoryMeter<'_>,
    device: &Device,
) -> Result<(Vec<TrainingSpeed>, Vec<GenerationSpeed>), TrainError> {
    let mut config = config.clone();
    let most = lengths.iter().copied().chain(positions.iter().map(|position| position + GENERATED)).max();
    config.model.max_positions = config.model.max_positions.map(|limit| limit.max(most.unwrap_or(0)));
    let measure = Measure { config: &config, tokenizer, lengths, positions, meter, device };
    with_architecture(config.model.architecture, measure).unwrap_or_else(|| Ok((Vec::new(), Vec::new())))
}

struct Measure<'a> {
    config: &'a RunConfig,
    tokenizer: &'a Tokenizer,
    lengths: &'a [usize],
    positions: &'a [usize],
    meter: MemoryMeter<'a>,
    device: &'a Device,
}

impl ForLanguageModel for Measure<'_> {
    type Output = Result<(Vec<TrainingSpeed>, Vec<GenerationSpeed>), TrainError>;

    fn call<M: LanguageModel + Buildable>(self) -> Self::Output {
        let Self { config, tokenizer, lengths, positions, meter, device } = self;
        let shape = M::checked_config(config, tokenizer, None)?;
        let vocab_size = tokenizer.vocab_size();
        let model = M::new(&shape, config.training.seed, &device.clone().autodiff());
        let training = lengths.iter().map(|&length| training_speed(&model, length, vocab_size, meter)).collect();
        let model = model.valid().for_decoding();
        Ok((training, generation_speeds(&model, positions, vocab_size, device)))
    }
}

fn training_speed<M: LanguageModel>(
    model: &M,
    length: usize,
    vocab_size: usize,
    meter: MemoryMeter<'_>,
) -> TrainingSpeed {
    let device = model.devices()[0].clone();
    let rows = (BATCH_TOKENS / length).max(1);
    let step = || {
        let start = Instant::now();
        let (ids, targets) = (tokens(rows, length, vocab_size, &device), tokens(rows, length, vocab_size, &device));
        on_worker(|| {
            let _ = model.loss(ids, targets, &mut Noise::none()).backward();
        });
        start.elapsed().as_secs_f64()
    };
    // The first step also warms up.
    step();
    let peak_bytes = meter(&mut || {
        step();
    });
    let seconds = (0..TRIALS).map(|_| step()).fold(f64::INFINITY, f64::min);
    TrainingSpeed { length, tokens_per_second: (rows * length) as f64 / seconds, peak_bytes }
}

fn generation_speeds<M: LanguageModel>(
    model: &M,
    positions: &[usize],
    vocab_size: usize,
    device: &Device,
) -> Vec<GenerationSpeed> {
    let mut state = model.start(1);
    let mut position = 0;
    let speeds = positions.iter().map(|&wanted| {
        while position < wanted {
            let count = READ_TOKENS.min(wanted - position);
            on_worker(|| {
                let _ = model.read(tokens(1, count, vocab_size, device), &mut state);
            });
            position += count;
        }
        let start = Instant::now();
        for _ in 0..GENERATED {
            let _ = on_worker(|| model.step(&[0], &mut state).into_data());
        }
        let seconds_per_token = start.elapsed().as_secs_f64() / GENERATED as f64;
        position += GENERATED;
        GenerationSpeed { position: wanted, seconds_per_token, state_bytes: state_bytes(model, &state, position) }
    });
    speeds.collect()
}
