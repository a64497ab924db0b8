//! Times what surrounds a model: `cargo bench -p weft-kernels --bench losses`.

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use weft_kernels::{
    AdamW, Dropout, EmbeddingOptions, Epilogue, Moments, WeightLayout, adamw, cross_entropy, dropout, embedding,
    linear, linear_cross_entropy, squared_norm,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

const ROWS: usize = 4096;

fn values<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as u32;
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    Tensor::from_data(TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape), device)
}

fn ids<const D: usize>(shape: [usize; D], below: usize, device: &Device) -> Tensor<D, Int> {
    let count = shape.iter().product::<usize>();
    let ids: Vec<i32> = (0..count).map(|i| (i * 7919 % below) as i32).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

fn bytes(count: usize) -> BytesCount {
    BytesCount::new(count * size_of::<f32>())
}

/// The sum of losses alone: the logits are read once.
#[divan::bench(args = [8000, 37_000], sample_count = 5)]
fn cross_entropy_forward(bencher: Bencher, vocab: usize) {
    let device = Device::flex();
    let (logits, targets) = (values([ROWS, vocab], &device), ids([ROWS], vocab, &device));
    bencher
        .counter(bytes(ROWS * vocab))
        .bench_local(|| cross_entropy(logits.clone(), targets.clone(), 0.1, None).into_data());
}

/// Forward and backward; the logits, whose making is not counted, become their gradient.
#[divan::bench(args = [8000, 37_000], sample_count = 5)]
fn cross_entropy_both(bencher: Bencher, vocab: usize) {
    let device = Device::flex().autodiff();
    let (plain, targets) = (values([ROWS, vocab], &Device::flex()), ids([ROWS], vocab, &device));
    bencher
        .counter(bytes(ROWS * vocab))
        .with_inputs(|| Tensor::<2>::from_inner(plain.clone() * 1.01).require_grad())
        .bench_local_values(|logits| cross_entropy(logits, targets.clone(), 0.1, None).backward());
}

const HIDDEN: usize = 512;

/// The last layer and its loss, forward and backward, in one operation.
#[divan::bench(args = [8000], sample_count = 5)]
fn linear_cross_entropy_both(bencher: Bencher, vocab: usize) {
    last_layer(bencher, vocab, |x, weight, targets| {
        linear_cross_entropy(x, weight, WeightLayout::OutIn, None, targets, 0.1, None)
    });
}

/// The same in two operations, with all logits in between.
#[divan::bench(args = [8000], sample_count = 5)]
fn linear_then_cross_entropy_both(bencher: Bencher, vocab: usize) {
    last_layer(bencher, vocab, |x, weight, targets| {
        let logits = linear(x, weight, WeightLayout::OutIn, None, Epilogue::default());
        cross_entropy(logits, targets, 0.1, None)
    });
}

/// Counts the operations of three products.
fn last_layer(bencher: Bencher, vocab: usize, loss: fn(Tensor<2>, Tensor<2>, Tensor<1, Int>) -> Tensor<1>) {
    let device = Device::flex().autodiff();
    let x = values([ROWS, HIDDEN], &device).require_grad();
    let weight = (values([vocab, HIDDEN], &device) * 0.05).require_grad();
    let targets = ids([ROWS], vocab, &device);
    bencher
        .counter(ItemsCount::new(6 * ROWS * HIDDEN * vocab))
        .bench_local(|| loss(x.clone(), weight.clone(), targets.clone()).backward());
}

/// Ten million parameters in one tensor: four streams read, three written.
#[divan::bench(sample_count = 20)]
fn adamw_10_million(bencher: Bencher) {
    let device = Device::flex();
    let shape = [10_000, 1000];
    let gradient = values(shape, &device);
    let mut state = Some((values(shape, &device), Moments::zeros(shape, &device)));
    bencher.counter(bytes(7 * 10_000_000)).bench_local(|| {
        let (parameter, moments) = state.take().expect("put back");
        state = Some(adamw(parameter, gradient.clone(), moments, &AdamW::default()));
    });
}

/// A hundred biases: what a call costs.
#[divan::bench]
fn adamw_100_small(bencher: Bencher) {
    let device = Device::flex();
    let gradient = values([512], &device);
    let mut states: Vec<_> = (0..100).map(|_| Some((values([512], &device), Moments::zeros([512], &device)))).collect();
    bencher.bench_local(|| {
        for state in &mut states {
            let (parameter, moments) = state.take().expect("put back");
            *state = Some(adamw(parameter, gradient.clone(), moments, &AdamW::default()));
        }
    });
}

/// The norm of ten million gradients.
#[divan::bench(sample_count = 20)]
fn squared_norm_10_million(bencher: Bencher) {
    let gradient = values([10_000, 1000], &Device::flex());
    bencher.counter(bytes(10_000_000)).bench_local(|| squared_norm(black_box(&gradient)));
}

/// A batch of 4,096 tokens, forward and backward.
#[divan::bench(sample_count = 20)]
fn embedding_both(bencher: Bencher) {
    let device = Device::flex().autodiff();
    let (table, ids) = (values([8000, 512], &device).require_grad(), ids([32, 128], 8000, &device));
    let positions = values([128, 512], &device);
    bencher.counter(bytes(ROWS * 512)).bench_local(|| {
        let options = EmbeddingOptions {
            scale: 22.6,
            positions: Some(positions.clone()),
            offset: 0,
            dropout: Dropout::new(0.1, 1),
        };
        embedding(table.clone(), ids.clone(), options).sum().backward()
    });
}

/// Two million elements in place.
#[divan::bench(sample_count = 20)]
fn dropout_2_million(bencher: Bencher) {
    let mut x = Some(values([ROWS, 512], &Device::flex()));
    bencher.counter(bytes(2 * ROWS * 512)).bench_local(|| {
        x = x.take().map(|x| dropout(x, Dropout::new(0.1, 1)));
    });
}
