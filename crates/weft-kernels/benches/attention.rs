//! Times attention on the shapes of training and decoding: `cargo bench -p weft-kernels --bench attention`.
//!
//! The counter is multiply-adds that the mask leaves to do, so that 1 item/s is 2 FLOP/s.

use std::sync::Arc;

use burn::Tensor;
use burn::tensor::{Device, TensorData};
use divan::Bencher;
use divan::counter::ItemsCount;
use weft_kernels::{AttentionOptions, BlockMask, Dropout, cross_attention, self_attention};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn values<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as u32;
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 22) as f32 - 2.0;
    Tensor::from_data(TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape), device)
}

/// Forward and backward of self-attention.
fn train(bencher: Bencher, batch: usize, time: usize, hidden: usize, lengths: &[usize], options: AttentionOptions) {
    let device = Device::flex().autodiff();
    let qkv = values([batch, time, 3 * hidden], &device).require_grad();
    let pairs: usize = lengths.iter().map(|&n| if options.causal { n * (n + 1) / 2 } else { n * n }).sum();
    bencher.counter(ItemsCount::new(7 * pairs * hidden)).bench_local(|| {
        let out = self_attention(qkv.clone(), Some(lengths), &options);
        qkv.grad(&out.sum().backward())
    });
}

fn options(num_heads: usize, causal: bool, probability: f32) -> AttentionOptions {
    AttentionOptions { causal, dropout: Dropout::new(probability, 1), ..AttentionOptions::new(num_heads) }
}

/// Sentence lengths like those of image captions: 8 to `time`.
fn captions(batch: usize, time: usize) -> Vec<usize> {
    (0..batch).map(|i| 8 + i * 7 % (time - 7)).collect()
}

#[divan::bench]
fn gpt_forward(bencher: Bencher) {
    let device = Device::flex();
    let qkv = values([16, 256, 768], &device);
    bencher
        .counter(ItemsCount::new(2usize * 16 * 256 * 257 / 2 * 256))
        .bench_local(|| self_attention(qkv.clone(), None, &options(8, true, 0.0)));
}

#[divan::bench(args = [0.0, 0.1])]
fn gpt_train(bencher: Bencher, dropout: f32) {
    train(bencher, 16, 256, 256, &[256; 16], options(8, true, dropout));
}

#[divan::bench(args = [1024, 4096])]
fn long_train(bencher: Bencher, time: usize) {
    train(bencher, 1, time, 256, &[time], options(4, true, 0.0));
}

/// 8,192 tokens, an eighth of the blocks or (block 0) all of them. The counter is that of the dense one: its ratio says how
/// much faster the sparse one is.
#[divan::bench(args = [0, 64, 128], sample_count = 5)]
fn sparse_train(bencher: Bencher, block: usize) {
    let mask = (block > 0).then(|| Arc::new(BlockMask::new(block, 8192, |i, j| j <= i && (i - j).is_multiple_of(8))));
    train(bencher, 1, 8192, 256, &[8192], AttentionOptions { blocks: mask, ..AttentionOptions::causal(4) });
}

/// 8,192 tokens that see the last 1,024.
#[divan::bench(sample_count = 5)]
fn window_train(bencher: Bencher) {
    train(bencher, 1, 8192, 256, &[8192], AttentionOptions { window: Some(1024), ..AttentionOptions::causal(4) });
}

#[divan::bench(args = [false, true])]
fn captions_train(bencher: Bencher, causal: bool) {
    train(bencher, 120, 18, 256, &captions(120, 18), options(4, causal, 0.0));
}

#[divan::bench]
fn captions_cross_train(bencher: Bencher) {
    let device = Device::flex().autodiff();
    let (batch, time, hidden) = (120, 18, 256);
    let q = values([batch, time, hidden], &device).require_grad();
    let kv = values([batch, time, 2 * hidden], &device).require_grad();
    let (queries, mut keys) = (captions(batch, time), captions(batch, time));
    keys.reverse();
    let pairs: usize = queries.iter().zip(&keys).map(|(q, k)| q * k).sum();
    bencher.counter(ItemsCount::new(7 * pairs * hidden)).bench_local(|| {
        let out = cross_attention(q.clone(), kv.clone(), Some(&queries), Some(&keys), &options(4, false, 0.0));
        kv.grad(&out.sum().backward())
    });
}

/// One new token for each sentence, over a cache with room to spare.
#[divan::bench(args = [(1, 20), (1, 100), (1, 1000), (64, 20), (64, 100), (64, 1000)])]
fn decode(bencher: Bencher, (batch, filled): (usize, usize)) {
    let device = Device::flex();
    let q = values([batch, 1, 256], &device);
    let cache = values([batch, 1024, 512], &device);
    let lengths = vec![filled; batch];
    bencher
        .counter(ItemsCount::new(2 * batch * filled * 256))
        .bench_local(|| cross_attention(q.clone(), cache.clone(), None, Some(&lengths), &options(4, true, 0.0)));
}
