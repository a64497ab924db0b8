//! How well a language model predicts a text that it reads once, from beginning to end.

use burn::tensor::{Int, Tensor, TensorData};
use weft_kernels::cross_entropy::cross_entropy;
use weft_kernels::on_worker;

use super::token_row;
use crate::LanguageModel;

/// The sum of the losses, in nats, of every token of a text but the first, each after all before it: the state is
/// carried from piece to piece, so that a text of any length needs the memory of `piece` tokens.
///
/// `seen` is told after each piece how many tokens were read. The text must fit into the model's positions, if it has
/// a limit; less than two tokens have no loss.
pub fn stream_loss<M: LanguageModel>(model: &M, tokens: &[u32], piece: usize, mut seen: impl FnMut(usize)) -> f64 {
    let Some(device) = model.devices().into_iter().next() else { return 0.0 };
    let mut state = model.start(1);
    let (read, targets) = (&tokens[..tokens.len().saturating_sub(1)], tokens.get(1..).unwrap_or_default());
    let mut nats = 0.0;
    let mut done = 0;
    for (read, targets) in read.chunks(piece.max(1)).zip(targets.chunks(piece.max(1))) {
        let targets: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
        let count = targets.len();
        let state = &mut state;
        let loss = on_worker(|| {
            let logits = model.read(token_row(read, &device), state).squeeze_dim(0);
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [count]), &device);
            cross_entropy(logits, targets, 0.0, None).into_data()
        });
        nats += loss.iter::<f64>().sum::<f64>();
        done += count;
        seen(done);
    }
    nats
}
