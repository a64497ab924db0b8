//! What one layer of attention costs as the equation has it and as the kernel computes it.

use std::time::Instant;

use burn::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution};
use weft_kernels::attention::{AttentionOptions, self_attention};
use weft_kernels::on_worker;

use super::{BATCH_TOKENS, MemoryMeter, TRIALS};

/// One layer of causal attention, forward and backward, over a batch of about as many tokens whatever their sequences'
/// length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionCost {
    /// Tokens of a sequence.
    pub length: usize,
    /// Seconds for a token.
    pub seconds_per_token: f64,
    /// Bytes that the two passes need at most beside their inputs, if known.
    pub peak_bytes: Option<usize>,
}

/// A way to compute attention.
type Attend<'a> = dyn Fn(Tensor<3>) -> Tensor<3> + Sync + 'a;

/// How far attention with a window sees.
pub const ATTENTION_WINDOW: usize = 128;

/// Attention that stores every score (arXiv 1706.03762, equation 1, operation by operation), attention that makes them
/// block by block (after arXiv 2205.14135), and that with a window of [`ATTENTION_WINDOW`]: the costs of each at each
/// length. `hidden` columns in `num_heads` heads.
///
/// # Panics
/// If the heads do not divide the columns.
pub fn measure_attention(
    hidden: usize,
    num_heads: usize,
    lengths: &[usize],
    meter: MemoryMeter<'_>,
    device: &Device,
) -> [Vec<AttentionCost>; 3] {
    let device = device.clone().autodiff();
    let options = AttentionOptions::causal(num_heads);
    let windowed = AttentionOptions { window: Some(ATTENTION_WINDOW), ..options.clone() };
    let stored = |qkv| naive(qkv, num_heads);
    let in_blocks = |qkv| self_attention(qkv, None, &options);
    let in_window = |qkv| self_attention(qkv, None, &windowed);
    let cost = |attend: &Attend<'_>, length: usize| {
        let rows = (BATCH_TOKENS / length).max(1);
        let qkv = Tensor::<3>::random([rows, length, 3 * hidden], Distribution::Normal(0.0, 1.0), &device);
        let qkv = qkv.require_grad();
        let pass = || {
            let start = Instant::now();
            on_worker(|| {
                let _ = attend(qkv.clone()).sum().backward();
            });
            start.elapsed().as_secs_f64()
        };
        pass();
        let peak_bytes = meter(&mut || {
            pass();
        });
        let seconds = (0..TRIALS).map(|_| pass()).fold(f64::INFINITY, f64::min);
        AttentionCost { length, seconds_per_token: seconds / (rows * length) as f64, peak_bytes }
    };
    let costs = |attend: &Attend<'_>| lengths.iter().map(|&length| cost(attend, length)).collect();
    [costs(&stored), costs(&in_blocks), costs(&in_window)]
}

/// `[batch, time, 3 * hidden]` to `[batch, time, hidden]`, causal, all scores of all heads at once.
fn naive(qkv: Tensor<3>, num_heads: usize) -> Tensor<3> {
    let [batch, time, width] = qkv.dims();
    let (hidden, device) = (width / 3, qkv.device());
    let head_dim = hidden / num_heads;
    let part = |index: usize| {
        qkv.clone().narrow(2, index * hidden, hidden).reshape([batch, time, num_heads, head_dim]).swap_dims(1, 2)
    };
    let scores = part(0).matmul(part(1).swap_dims(2, 3)).div_scalar((head_dim as f64).sqrt());
    let later = Tensor::<2>::ones([time, time], &device).triu(1).bool().reshape([1, 1, time, time]);
    let weights = softmax(scores.mask_fill(later, f32::NEG_INFINITY), 3);
    weights.matmul(part(2)).swap_dims(1, 2).reshape([batch, time, hidden])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_compute_the_same() {
        let device = Device::flex().autodiff();
        let qkv = Tensor::<3>::random([2, 19, 3 * 12], Distribution::Normal(0.0, 1.0), &device).require_grad();
        let options = AttentionOptions::causal(3);
        let values = |tensor: Tensor<3>| -> Vec<f32> { tensor.into_data().try_to_vec().expect("an f32 tensor") };
        let found = [naive(qkv.clone(), 3), self_attention(qkv.clone(), None, &options)].map(|out| {
            let gradients = (out.clone() * out.clone()).sum().backward();
            [values(out), values(qkv.grad(&gradients).expect("a gradient"))].concat()
        });
        assert_eq!(found[0].len(), found[1].len());
        let off = found[0].iter().zip(&found[1]).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
        assert!(off < 1e-4, "off by {off}");
    }
}
