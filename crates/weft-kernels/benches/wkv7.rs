//! RWKV-7's recurrence, forward and backward, at 4 heads of 64, 512 positions, 8 sentences, and one position as decoding
//! does it.

use burn::Tensor;
use burn::tensor::{Device, Distribution};
use weft_kernels::{Wkv7Inputs, wkv7};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADS: usize = 4;
const SIZE: usize = 64;

fn main() {
    divan::main();
}

fn inputs(batch: usize, time: usize, device: &Device) -> Wkv7Inputs {
    let make = |deviation| {
        let values = Tensor::random([batch, time, HEADS * SIZE], Distribution::Normal(0.0, deviation), device);
        if device.is_autodiff() { values.require_grad() } else { values }
    };
    // Of length 1 or so, as keys are: a state that is read and replaced by more would grow.
    Wkv7Inputs { r: make(1.0), d: make(2.0), k: make(1.0), v: make(1.0), a: make(0.1), rate: make(0.5) }
}

#[divan::bench(sample_size = 1, sample_count = 30)]
fn forward(bencher: divan::Bencher<'_, '_>) {
    let inputs = inputs(8, 512, &Device::flex());
    bencher.bench_local(|| wkv7(inputs.clone(), HEADS, None, None));
}

#[divan::bench(sample_size = 1, sample_count = 30)]
fn forward_and_backward(bencher: divan::Bencher<'_, '_>) {
    let inputs = inputs(8, 512, &Device::flex().autodiff());
    bencher.bench_local(|| wkv7(inputs.clone(), HEADS, None, None).0.sum().backward());
}

#[divan::bench(args = [1, 16], sample_size = 1, sample_count = 200)]
fn one_step(bencher: divan::Bencher<'_, '_>, batch: usize) {
    let device = Device::flex();
    let inputs = inputs(batch, 1, &device);
    let state = Tensor::random([batch, HEADS, SIZE, SIZE], Distribution::Normal(0.0, 1.0), &device);
    bencher.bench_local(|| wkv7(inputs.clone(), HEADS, Some(state.clone()), None));
}
