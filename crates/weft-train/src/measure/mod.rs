//! What a language model costs and how far it reaches: time, memory and gradients by the length of the text.

mod attention;
mod gradients;
mod speed;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use weft_models::LanguageModel;
use weft_models::gpt::Gpt;
use weft_models::llama::Llama;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;

pub use attention::{ATTENTION_WINDOW, AttentionCost, measure_attention};
pub use gradients::{GradientReach, gradient_norms, measure_gradients};
pub use speed::{GenerationSpeed, TrainingSpeed, measure_speed};

use crate::build::Buildable;
use crate::config::ArchitectureKind;

/// Does the work and returns how many bytes more than before were allocated at most; None if nobody can say.
pub type MemoryMeter<'a> = &'a dyn Fn(&mut dyn FnMut()) -> Option<usize>;

/// Tokens of a measured batch, whatever the length of its sequences.
const BATCH_TOKENS: usize = 2048;
/// Steps of which the fastest counts: others were disturbed.
const TRIALS: usize = 3;

/// Something that can be done with a language model of any architecture.
trait ForLanguageModel {
    type Output;

    fn call<M: LanguageModel + Buildable>(self) -> Self::Output;
}

/// Does it with the architecture of this name; None for translators.
fn with_architecture<W: ForLanguageModel>(architecture: ArchitectureKind, work: W) -> Option<W::Output> {
    Some(match architecture {
        ArchitectureKind::Gpt => work.call::<Gpt>(),
        ArchitectureKind::RecurrentLm => work.call::<RecurrentLm>(),
        ArchitectureKind::Rwkv4 => work.call::<Rwkv4>(),
        ArchitectureKind::Rwkv7 => work.call::<Rwkv7>(),
        ArchitectureKind::Mamba => work.call::<Mamba>(),
        ArchitectureKind::Llama => work.call::<Llama>(),
        ArchitectureKind::Mamba2 => work.call::<Mamba2>(),
        ArchitectureKind::Transformer | ArchitectureKind::RnnEncoderDecoder => return None,
    })
}

/// Token ids row by row as a tensor.
fn ids(tokens: &[u32], [rows, time]: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(ids, [rows, time]), device)
}

/// Tokens that are neither random nor all the same, `[rows, time]`.
fn tokens(rows: usize, time: usize, vocab_size: usize, device: &Device) -> Tensor<2, Int> {
    let token = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % vocab_size.max(1)) as u32;
    ids(&(0..rows * time).map(token).collect::<Vec<u32>>(), [rows, time], device)
}
