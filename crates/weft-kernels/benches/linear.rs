//! The linear map on the CPU: `cargo bench -p weft-kernels --bench linear`.
//!
//! `items/s` are floating-point operations: two for each multiplication of the product, and in the backward pass
//! of both products. `WEFT_SIMD=avx2` measures that level.

use burn::Tensor;
use burn::tensor::{Device, Distribution};
use divan::Bencher;
use divan::counter::ItemsCount;
use weft_kernels::{Activation, Dropout, Epilogue, WeightLayout, linear};

/// Rows, in, out, and the layout: a small GPT's layers at 4,096 tokens and at 4, a larger one's at 64, a small
/// translator's at 2,048, RWKV-7's of low rank.
const CASES: [(usize, usize, usize, WeightLayout); 12] = [
    (4096, 256, 768, WeightLayout::InOut),
    (4096, 256, 1024, WeightLayout::InOut),
    (4096, 1024, 256, WeightLayout::InOut),
    (4096, 256, 4096, WeightLayout::OutIn),
    (4, 256, 1024, WeightLayout::InOut),
    (4, 256, 4096, WeightLayout::OutIn),
    (64, 512, 2048, WeightLayout::InOut),
    (2048, 256, 256, WeightLayout::OutIn),
    (2048, 256, 512, WeightLayout::OutIn),
    (2048, 512, 256, WeightLayout::OutIn),
    (4096, 256, 32, WeightLayout::InOut),
    (4096, 32, 256, WeightLayout::InOut),
];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

fn operands(device: &Device, case: (usize, usize, usize, WeightLayout)) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    let (rows, input, output, layout) = case;
    let dims = if layout == WeightLayout::InOut { [input, output] } else { [output, input] };
    (random([rows, input], device), random(dims, device), random([output], device))
}

fn product_count((rows, input, output, _): (usize, usize, usize, WeightLayout)) -> ItemsCount {
    ItemsCount::new(2 * rows * input * output)
}

#[divan::bench(args = CASES)]
fn product_and_bias(bencher: Bencher<'_, '_>, case: (usize, usize, usize, WeightLayout)) {
    let (x, weight, bias) = operands(&Device::flex(), case);
    bencher
        .counter(product_count(case))
        .bench(|| linear(x.clone(), weight.clone(), case.3, Some(bias.clone()), Epilogue::default()));
}

#[divan::bench(args = CASES)]
fn gelu(bencher: Bencher<'_, '_>, case: (usize, usize, usize, WeightLayout)) {
    let (x, weight, bias) = operands(&Device::flex(), case);
    bencher.counter(product_count(case)).bench(|| {
        let epilogue = Epilogue { activation: Activation::Gelu, ..Epilogue::default() };
        linear(x.clone(), weight.clone(), case.3, Some(bias.clone()), epilogue)
    });
}

#[divan::bench(args = CASES)]
fn dropout_and_residual(bencher: Bencher<'_, '_>, case: (usize, usize, usize, WeightLayout)) {
    let (x, weight, bias) = operands(&Device::flex(), case);
    let residual = random([case.0, case.2], &Device::flex());
    bencher.counter(product_count(case)).bench(|| {
        let epilogue =
            Epilogue { dropout: Dropout::new(0.1, 1), residual: Some(residual.clone()), ..Epilogue::default() };
        linear(x.clone(), weight.clone(), case.3, Some(bias.clone()), epilogue)
    });
}

#[divan::bench(args = CASES)]
fn forward_and_backward(bencher: Bencher<'_, '_>, case: (usize, usize, usize, WeightLayout)) {
    trained(bencher, case, Activation::None);
}

#[divan::bench(args = CASES)]
fn forward_and_backward_with_gelu(bencher: Bencher<'_, '_>, case: (usize, usize, usize, WeightLayout)) {
    trained(bencher, case, Activation::Gelu);
}

fn trained(bencher: Bencher<'_, '_>, case: (usize, usize, usize, WeightLayout), activation: Activation) {
    let device = Device::flex().autodiff();
    let (x, weight, bias) = operands(&device, case);
    let (x, weight, bias) = (x.require_grad(), weight.require_grad(), bias.require_grad());
    bencher.counter(ItemsCount::new(6 * case.0 * case.1 * case.2)).bench(|| {
        let epilogue = Epilogue { activation, ..Epilogue::default() };
        linear(x.clone(), weight.clone(), case.3, Some(bias.clone()), epilogue).sum().backward()
    });
}
