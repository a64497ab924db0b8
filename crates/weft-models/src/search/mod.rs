//! Decoding: drives a model's steps and the pure choices of `weft-decode`.

mod cache;
mod generate;
mod score;
mod session;
mod translate;
mod weights;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};

pub(crate) use cache::{KeyValueCache, select_rows};
pub use generate::{Generation, generate};
pub use score::stream_loss;
pub use session::{Session, StateError, StateFile, state_bytes};
pub use translate::{SOURCE_TOKENS_PER_BATCH, translate, translate_batch};
pub(crate) use weights::{by_columns, stored_by_columns};

/// One token of each row as ids `[rows, 1]`.
pub(crate) fn token_column(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    token_row(tokens, device).reshape([tokens.len(), 1])
}

/// The tokens of one row as ids `[1, time]`.
pub(crate) fn token_row(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(ids, [1, tokens.len()]), device)
}
