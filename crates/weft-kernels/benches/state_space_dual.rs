//! The state space dual of Mamba-2, forward and backward, at 8 heads of 64 channels and 64 states, 8 texts of 512
//! positions; one position of a text, as decoding does it; and the gated norm after it.

use burn::Tensor;
use burn::tensor::{Device, Distribution};
use weft_kernels::{DualInputs, DualParameters, gated_rms_norm, state_space_dual};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADS: usize = 8;
const WIDTH: usize = 64;
const STATES: usize = 64;
const TEXTS: [usize; 3] = [8, 512, HEADS * WIDTH];

fn main() {
    divan::main();
}

fn tensor<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn inputs(batch: usize, time: usize, device: &Device) -> (DualInputs, DualParameters) {
    let xbc = tensor([batch, time, HEADS * WIDTH + 2 * STATES], device);
    let dt = tensor([batch, time, HEADS], device) - 3.0;
    let [a_log, skip, bias] = [(); 3].map(|()| tensor([HEADS], device));
    (DualInputs { xbc, dt, groups: 1, states: STATES }, DualParameters { a_log, skip, bias })
}

#[divan::bench(sample_size = 1, sample_count = 30)]
fn forward(bencher: divan::Bencher<'_, '_>) {
    let (inputs, parameters) = inputs(8, 512, &Device::flex());
    bencher.bench_local(|| state_space_dual(inputs.clone(), parameters.clone(), None, None));
}

#[divan::bench(sample_size = 1, sample_count = 30)]
fn forward_and_backward(bencher: divan::Bencher<'_, '_>) {
    let (mut inputs, parameters) = inputs(8, 512, &Device::flex().autodiff());
    inputs.xbc = inputs.xbc.require_grad();
    inputs.dt = inputs.dt.require_grad();
    bencher.bench_local(|| {
        let (outputs, _) = state_space_dual(inputs.clone(), parameters.clone(), None, None);
        outputs.sum().backward()
    });
}

#[divan::bench(sample_size = 1, sample_count = 200)]
fn one_position(bencher: divan::Bencher<'_, '_>) {
    let device = Device::flex();
    let (inputs, parameters) = inputs(1, 1, &device);
    let state = tensor([1, HEADS, STATES, WIDTH], &device);
    bencher.bench_local(|| state_space_dual(inputs.clone(), parameters.clone(), Some(state.clone()), None));
}

#[divan::bench(sample_size = 1, sample_count = 30)]
fn gated_norm(bencher: divan::Bencher<'_, '_>) {
    let device = Device::flex();
    let (x, gate, gain) = (tensor(TEXTS, &device), tensor(TEXTS, &device), tensor([HEADS * WIDTH], &device));
    bencher.bench_local(|| gated_rms_norm(x.clone(), gate.clone(), gain.clone(), 1e-5));
}

#[divan::bench(sample_size = 1, sample_count = 30)]
fn gated_norm_and_backward(bencher: divan::Bencher<'_, '_>) {
    let device = Device::flex().autodiff();
    let (x, gate) = (tensor(TEXTS, &device).require_grad(), tensor(TEXTS, &device).require_grad());
    let gain = tensor([HEADS * WIDTH], &device).require_grad();
    bencher.bench_local(|| gated_rms_norm(x.clone(), gate.clone(), gain.clone(), 1e-5).sum().backward());
}
