use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const EPSILON: f64 = 1e-5;

/// The equations in straightforward `f32`: what the kernel may be at most twice as wrong as.
fn plain(x: &[f32], gain: &[f32], bias: &[f32]) -> Vec<f32> {
    let hidden = gain.len();
    let mut y = Vec::new();
    for row in x.chunks(hidden) {
        let mean = row.iter().sum::<f32>() / hidden as f32;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / hidden as f32;
        y.extend((0..hidden).map(|i| gain[i] * (row[i] - mean) / (variance + EPSILON as f32).sqrt() + bias[i]));
    }
    y
}

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(rows in 0usize..9, hidden in 1usize..131, seed in 0u64..1000) {
        let (x, gain, bias) = (normal(seed, rows * hidden), normal(seed + 1, hidden), normal(seed + 2, hidden));
        let truth = reference::forward(&wide(&x), &wide(&gain), &wide(&bias), EPSILON);
        for level in Level::available() {
            let y = cpu::forward(level, &x, &gain, &bias, EPSILON as f32);
            assert_as_exact(level.name(), &y, &plain(&x, &gain, &bias), &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (rows, hidden) in [(3, 5), (1, 1), (2, 37), (130, 3)] {
        let (x, gain, bias) = (normal(1, rows * hidden), normal(2, hidden), normal(3, hidden));
        let weights = normal(4, rows * hidden);
        let loss = |x: &[f64], gain: &[f64], bias: &[f64]| -> f64 {
            reference::forward(x, gain, bias, EPSILON).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
        };
        let (wx, wgain, wbias) = (wide(&x), wide(&gain), wide(&bias));
        let expected = [
            finite_differences(&wx, |x| loss(x, &wgain, &wbias)),
            finite_differences(&wgain, |gain| loss(&wx, gain, &wbias)),
            finite_differences(&wbias, |bias| loss(&wx, &wgain, bias)),
        ];
        for device in devices() {
            let device = device.autodiff();
            let x = make(&x, [rows, hidden], &device).require_grad();
            let gain = make(&gain, [hidden], &device).require_grad();
            let bias = make(&bias, [hidden], &device).require_grad();
            let y = layer_norm(x.clone(), gain.clone(), bias.clone(), EPSILON);
            let gradients = (y * make(&weights, [rows, hidden], &device)).sum().backward();
            let name = format!("{device:?} {rows}x{hidden}");
            assert_gradient(&format!("{name} x"), &values(x.grad(&gradients).unwrap()), &expected[0]);
            assert_gradient(&format!("{name} gain"), &values(gain.grad(&gradients).unwrap()), &expected[1]);
            assert_gradient(&format!("{name} bias"), &values(bias.grad(&gradients).unwrap()), &expected[2]);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, hidden) = (333, 40);
    let (x, gain, dy) = (normal(1, rows * hidden), normal(2, hidden), normal(3, rows * hidden));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cpu::backward(Level::best(), &x, &gain, &dy, 1e-5))
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn a_view_is_read_in_its_own_order() {
    for device in devices() {
        let x = make(&normal(1, 6), [2, 3], &device);
        let gain = make(&[1.0, 2.0], [2], &device);
        let bias = make(&[0.5, 0.0], [2], &device);
        let view = values(layer_norm(x.clone().transpose(), gain.clone(), bias.clone(), EPSILON));
        let copy = make(&values(x.transpose()), [3, 2], &device);
        assert_eq!(view, values(layer_norm(copy, gain, bias, EPSILON)));
    }
}
