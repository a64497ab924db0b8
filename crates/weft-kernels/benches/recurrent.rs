//! Recurrent layers, forward and backward, at 512 hidden units, 64 steps, 32 sentences; the inputs' projections,
//! a product over all steps that stands outside, are not in it.

use burn::Tensor;
use burn::tensor::{Device, Distribution};
use weft_kernels::{Cell, recurrent};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 32;
const TIME: usize = 64;
const HIDDEN: usize = 512;
const CELLS: [Cell; 4] = [Cell::Rnn, Cell::Lstm, Cell::Gru { reset_before: false }, Cell::Gru { reset_before: true }];

fn main() {
    divan::main();
}

fn tensor<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.04), device)
}

#[divan::bench(args = CELLS, sample_size = 1, sample_count = 30)]
fn forward(bencher: divan::Bencher<'_, '_>, cell: Cell) {
    let device = Device::flex();
    let gates_x = tensor([BATCH, TIME, cell.gates() * HIDDEN], &device);
    let weight = tensor([HIDDEN, cell.gates() * HIDDEN], &device);
    bencher.bench_local(|| recurrent(cell, gates_x.clone(), weight.clone(), None, None, None, false));
}

#[divan::bench(args = CELLS, sample_size = 1, sample_count = 30)]
fn forward_and_backward(bencher: divan::Bencher<'_, '_>, cell: Cell) {
    let device = Device::flex().autodiff();
    let gates_x = tensor([BATCH, TIME, cell.gates() * HIDDEN], &device).require_grad();
    let weight = tensor([HIDDEN, cell.gates() * HIDDEN], &device).require_grad();
    let bias = tensor([cell.gates() * HIDDEN], &device).require_grad();
    bencher.bench_local(|| {
        let (outputs, _) = recurrent(cell, gates_x.clone(), weight.clone(), Some(bias.clone()), None, None, false);
        outputs.sum().backward()
    });
}

/// One step of a few sentences, as decoding does it.
#[divan::bench(args = [1, 16, 128], sample_size = 1, sample_count = 200)]
fn one_lstm_step(bencher: divan::Bencher<'_, '_>, batch: usize) {
    let device = Device::flex();
    let gates_x = tensor([batch, 1, 4 * HIDDEN], &device);
    let weight = tensor([HIDDEN, 4 * HIDDEN], &device);
    bencher.bench_local(|| recurrent(Cell::Lstm, gates_x.clone(), weight.clone(), None, None, None, false));
}
