use proptest::prelude::*;

use super::*;
use crate::rms_norm::reference;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const EPSILON: f64 = 1e-5;

fn truth(x: &[f64], gate: &[f64], gain: &[f64]) -> Vec<f64> {
    let opened: Vec<f64> = x.iter().zip(gate).map(|(x, gate)| x * gate / (1.0 + (-gate).exp())).collect();
    reference::forward(&opened, gain, EPSILON)
}

/// The equation in straightforward `f32`: what the kernel may be at most twice as wrong as.
fn plain(x: &[f32], gate: &[f32], gain: &[f32]) -> Vec<f32> {
    let hidden = gain.len();
    let opened: Vec<f32> = x.iter().zip(gate).map(|(x, gate)| x * (gate / (1.0 + (-gate).exp()))).collect();
    let mut y = Vec::new();
    for row in opened.chunks(hidden) {
        let mean = row.iter().map(|v| v * v).sum::<f32>() / hidden as f32;
        y.extend((0..hidden).map(|i| gain[i] * row[i] / (mean + EPSILON as f32).sqrt()));
    }
    y
}

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(rows in 0usize..9, hidden in 1usize..131, seed in 0u64..1000) {
        let [x, gate] = [seed, seed + 1].map(|seed| normal(seed, rows * hidden));
        let gain = normal(seed + 2, hidden);
        let truth = truth(&wide(&x), &wide(&gate), &wide(&gain));
        for level in Level::available() {
            let y = cpu::forward(level, &x, &gate, &gain, EPSILON as f32);
            assert_as_exact(level.name(), &y, &plain(&x, &gate, &gain), &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device_and_level() {
    for (rows, hidden) in [(3, 5), (1, 1), (2, 37), (130, 3)] {
        let [x, gate, weights] = [1, 2, 3].map(|seed| normal(seed, rows * hidden));
        let operands = [x, gate, normal(4, hidden)];
        let expected: Vec<Vec<f64>> = (0..3)
            .map(|i| {
                let fixed = operands.each_ref().map(|values| wide(values));
                finite_differences(&wide(&operands[i]), |values| {
                    let mut operands = fixed.clone();
                    operands[i] = values.to_vec();
                    let [x, gate, gain] = &operands;
                    truth(x, gate, gain).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
                })
            })
            .collect();
        let names = ["x", "gate", "gain"];
        for level in Level::available() {
            let [x, gate, gain] = &operands;
            let gradients = cpu::backward(level, [x, gate], gain, &weights, EPSILON as f32);
            for ((name, got), expected) in names.iter().zip(&gradients).zip(&expected) {
                assert_gradient(&format!("{} {rows}x{hidden} {name}", level.name()), got, expected);
            }
        }
        for device in devices() {
            let device = device.autodiff();
            let [x, gate] = [0, 1].map(|i| make(&operands[i], [rows, hidden], &device).require_grad());
            let gain = make(&operands[2], [hidden], &device).require_grad();
            let y = gated_rms_norm(x.clone(), gate.clone(), gain.clone(), EPSILON);
            let of = (y * make(&weights, [rows, hidden], &device)).sum().backward();
            let gradients =
                [values(x.grad(&of).unwrap()), values(gate.grad(&of).unwrap()), values(gain.grad(&of).unwrap())];
            for ((name, got), expected) in names.iter().zip(&gradients).zip(&expected) {
                assert_gradient(&format!("{device:?} {rows}x{hidden} {name}"), got, expected);
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, hidden) = (333, 40);
    let [x, gate, dy] = [1, 2, 3].map(|seed| normal(seed, rows * hidden));
    let gain = normal(4, hidden);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cpu::backward(Level::best(), [&x, &gate], &gain, &dy, 1e-5))
    };
    assert_eq!(on(1), on(4));
}
