use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const EPSILON: f64 = 64e-5;
const NAMES: [&str; 8] = ["o", "r", "k", "v", "gate", "rho", "gain", "bias"];

fn operands(positions: usize, heads: usize, size: usize, seed: u64) -> [Vec<f32>; 8] {
    std::array::from_fn(|i| normal(seed + i as u64, if i < 5 { positions } else { 1 } * heads * size))
}

fn view(operands: &[Vec<f32>; 8], size: usize) -> cpu::Heads<'_> {
    let [o, r, k, v, gate, rho, gain, bias] = operands.each_ref().map(|values| &values[..]);
    cpu::Heads { heads: gain.len() / size, size, epsilon: EPSILON as f32, o, r, k, v, gate, rho, gain, bias }
}

/// The equation in straightforward `f32`: what the kernel may be at most twice as wrong as.
fn plain(operands: &[Vec<f32>; 8], size: usize) -> Vec<f32> {
    let [o, r, k, v, gate, rho, gain, bias] = operands;
    let mut y = Vec::new();
    for (row, o) in o.chunks(size).enumerate() {
        let (at, channel) = (row * size, row * size % gain.len());
        let mean = o.iter().sum::<f32>() / size as f32;
        let variance = o.iter().map(|o| (o - mean).powi(2)).sum::<f32>() / size as f32;
        let bonus: f32 = (0..size).map(|i| r[at + i] * k[at + i] * rho[channel + i]).sum();
        y.extend((0..size).map(|i| {
            let normal = (o[i] - mean) / (variance + EPSILON as f32).sqrt();
            (gain[channel + i] * normal + bias[channel + i] + bonus * v[at + i]) * gate[at + i]
        }));
    }
    y
}

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        positions in 0usize..130, heads in 1usize..4, size in 2usize..70, seed in 0u64..1000,
    ) {
        let operands = operands(positions, heads, size, seed);
        let truth = reference::forward(&operands.each_ref().map(|values| wide(values)), size, EPSILON);
        for level in Level::available() {
            let y = cpu::forward(level, &view(&operands, size));
            assert_as_exact(level.name(), &y, &plain(&operands, size), &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (batch, time, heads, size) in [(2, 3, 2, 5), (1, 1, 1, 1), (1, 2, 1, 37), (70, 1, 1, 2), (2, 0, 2, 3)] {
        let positions = batch * time;
        let (operands, weights) = (operands(positions, heads, size, 7), normal(99, positions * heads * size));
        let wide = operands.each_ref().map(|values| wide(values));
        let expected: Vec<Vec<f64>> = (0..8)
            .map(|i| {
                finite_differences(&wide[i], |moved| {
                    let mut operands = wide.clone();
                    operands[i] = moved.to_vec();
                    let y = reference::forward(&operands, size, EPSILON);
                    y.iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
                })
            })
            .collect();
        for device in devices() {
            let device = device.autodiff();
            let shape = [batch, time, heads * size];
            let inputs: [Tensor<3>; 5] = std::array::from_fn(|i| make(&operands[i], shape, &device).require_grad());
            let rho = make(&operands[5], [heads, size], &device).require_grad();
            let [gain, bias] = [6, 7].map(|i| make(&operands[i], [heads * size], &device).require_grad());
            let [o, r, k, v, gate] = inputs.clone();
            let parameters = Wkv7OutputParameters { rho: rho.clone(), gain: gain.clone(), bias: bias.clone() };
            let y = wkv7_output(Wkv7Output { o, r, k, v, gate }, parameters, EPSILON);
            let of = (y * make(&weights, shape, &device)).sum().backward();
            let mut gradients: Vec<_> = inputs.iter().map(|input| values(input.grad(&of).unwrap())).collect();
            gradients.push(values(rho.grad(&of).unwrap()));
            gradients.extend([gain, bias].map(|parameter| values(parameter.grad(&of).unwrap())));
            for ((name, got), expected) in NAMES.iter().zip(&gradients).zip(&expected) {
                assert_gradient(&format!("{device:?} {shape:?} {name}"), got, expected);
            }
        }
    }
}

#[test]
fn every_level_has_the_portable_bodys_gradients() {
    let (positions, heads, size) = (70, 2, 37);
    let (values, dy) = (operands(positions, heads, size, 3), normal(5, positions * heads * size));
    let shapes = std::iter::repeat_n(vec![positions, heads * size], 5);
    let shapes = shapes.chain([vec![heads, size], vec![heads * size], vec![heads * size]]);
    let made: Vec<_> = values.iter().zip(shapes).map(|(v, shape)| tensor(v.clone(), shape)).collect();
    let made = <Operands<Flex>>::try_from(made).unwrap();
    let portable = portable::backward::<Flex>(made, tensor(dy.clone(), [positions, heads * size]), EPSILON);
    let portable = portable.map(Values::new);
    for level in Level::available() {
        let gradients = cpu::backward(level, &view(&values, size), &dy);
        for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
            assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (operands, dy) = (operands(333, 3, 20, 1), normal(9, 333 * 60));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cpu::backward(Level::best(), &view(&operands, 20), &dy))
    };
    assert_eq!(on(1), on(4));
}
