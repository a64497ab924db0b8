//! One more token after a short and after a very long text, for each language model: microseconds and bytes of state.
//!
//!     cargo bench --workspace --bench positions
//!     cargo bench --workspace --bench positions -- gpt            only this one
//!     cargo bench --workspace --bench positions -- gpt short      and only after the short text, for a profile
//!
//! Four layers of 256, a vocabulary of 4,096. A model with positions goes as far as they reach.
#![expect(clippy::print_stdout, reason = "a benchmark's table")]

use std::time::Instant;

use burn::Tensor;
use burn::tensor::{Device, TensorData};
use weft_kernels::on_worker;
use weft_models::gpt::{Gpt, GptConfig};
use weft_models::llama::{Llama, LlamaConfig};
use weft_models::mamba::{Mamba, MambaConfig};
use weft_models::mamba2::{Mamba2, Mamba2Config};
use weft_models::recurrent_lm::{RecurrentLm, RecurrentLmConfig};
use weft_models::rwkv4::{Rwkv4, Rwkv4Config};
use weft_models::rwkv7::{Rwkv7, Rwkv7Config};
use weft_models::search::state_bytes;
use weft_models::{CellKind, LanguageModel};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VOCABULARY: usize = 4096;
const SHORT: usize = 100;
const LONG: usize = 100_000;
/// The longest text of the models that attend.
const MOST_POSITIONS: usize = 4096;
/// Tokens read at once on the way.
const READ: usize = 1000;
/// Turns of both texts, and steps in a turn.
const TURNS: usize = 21;
const STEPS: usize = 20;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!(
        "| model | tokens before | microseconds a token | KiB of state | tokens before | microseconds | KiB | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let (hidden_size, num_layers, vocab_size) = (256, 4, VOCABULARY);
    let max_positions = MOST_POSITIONS + TURNS * STEPS;
    let (short, only): (Vec<_>, Vec<_>) = only.into_iter().partition(|argument| argument == "short");
    let longest = if short.is_empty() { LONG } else { SHORT };
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    if wanted("gpt") {
        let config =
            GptConfig { vocab_size, hidden_size, num_layers, num_heads: 4, max_positions, ..GptConfig::default() };
        report::<Gpt>("gpt", &config, longest);
    }
    let llama = LlamaConfig {
        vocab_size,
        hidden_size,
        num_layers,
        max_positions,
        intermediate_size: 704,
        num_heads: 4,
        num_kv_heads: 2,
        ..LlamaConfig::default()
    };
    if wanted("llama") {
        report::<Llama>("llama", &llama, longest);
    }
    if wanted("llama-window") {
        let windowed = LlamaConfig { sliding_window: Some(256), max_positions: 2 * LONG, ..llama };
        report::<Llama>("llama, a window of 256", &windowed, longest);
    }
    if wanted("rwkv4") {
        let config = Rwkv4Config { vocab_size, hidden_size, num_layers, ..Rwkv4Config::default() };
        report::<Rwkv4>("rwkv4", &config, longest);
    }
    if wanted("rwkv7") {
        let config = Rwkv7Config { vocab_size, hidden_size, num_layers, ..Rwkv7Config::default() };
        report::<Rwkv7>("rwkv7", &config, longest);
    }
    if wanted("mamba") {
        let config = MambaConfig { vocab_size, hidden_size, num_layers, ..MambaConfig::default() };
        report::<Mamba>("mamba", &config, longest);
    }
    if wanted("mamba2") {
        let config = Mamba2Config {
            vocab_size,
            hidden_size,
            num_layers,
            num_heads: 8,
            head_dim: 64,
            num_groups: 1,
            state_size: 64,
            ..Mamba2Config::default()
        };
        report::<Mamba2>("mamba2", &config, longest);
    }
    for (name, cell) in [("rnn", CellKind::Rnn), ("gru", CellKind::Gru), ("lstm", CellKind::Lstm)] {
        if wanted(name) {
            let config = RecurrentLmConfig {
                cell,
                vocab_size,
                hidden_size,
                embedding_size: hidden_size,
                num_layers,
                ..RecurrentLmConfig::default()
            };
            report::<RecurrentLm>(name, &config, longest);
        }
    }
}

/// Both texts, turn by turn, so that what else the machine does meets both alike.
fn report<M: LanguageModel>(name: &str, config: &M::Config, longest: usize) {
    let model = M::new(config, 1, &Device::flex()).for_decoding();
    let from = model.max_length().map_or(longest, |most| longest.min(most - TURNS * STEPS));
    let mut states = [SHORT, from].map(|length| after(&model, length));
    let bytes = [state_bytes(&model, &states[0], SHORT), state_bytes(&model, &states[1], from)];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (state, times) in states.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..STEPS {
                let _ = on_worker(|| model.step(&[7], state).into_data());
            }
            times.push(start.elapsed().as_secs_f64() * 1e6 / STEPS as f64);
        }
    }
    let ratio = median(times[1].iter().zip(&times[0]).map(|(long, short)| long / short).collect());
    let [short, long] = times.map(median);
    let kept = bytes.map(|bytes| bytes as f64 / 1024.0);
    println!("| {name} | {SHORT} | {short:.0} | {:.0} | {from} | {long:.0} | {:.0} | {ratio:.2}x |", kept[0], kept[1]);
}

/// The state after a text.
fn after<M: LanguageModel>(model: &M, length: usize) -> M::State {
    let mut state = model.start(1);
    for first in (0..length).step_by(READ) {
        let ids: Vec<i32> = (first..length.min(first + READ)).map(|i| (i * 37 % VOCABULARY) as i32).collect();
        let count = ids.len();
        let _ = model.read(Tensor::from_data(TensorData::new(ids, [1, count]), &Device::flex()), &mut state);
    }
    state
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
