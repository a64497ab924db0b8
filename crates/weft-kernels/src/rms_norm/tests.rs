use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const EPSILON: f64 = 1e-5;

/// The equation in straightforward `f32`: what the kernel may be at most twice as wrong as.
fn plain(x: &[f32], gain: &[f32]) -> Vec<f32> {
    let hidden = gain.len();
    let mut y = Vec::new();
    for row in x.chunks(hidden) {
        let mean = row.iter().map(|v| v * v).sum::<f32>() / hidden as f32;
        y.extend((0..hidden).map(|i| gain[i] * row[i] / (mean + EPSILON as f32).sqrt()));
    }
    y
}

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(rows in 0usize..9, hidden in 1usize..131, seed in 0u64..1000) {
        let (x, gain) = (normal(seed, rows * hidden), normal(seed + 1, hidden));
        let truth = reference::forward(&wide(&x), &wide(&gain), EPSILON);
        for level in Level::available() {
            let y = cpu::forward(level, &x, &gain, EPSILON as f32);
            assert_as_exact(level.name(), &y, &plain(&x, &gain), &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (rows, hidden) in [(3, 5), (1, 1), (2, 37), (130, 3)] {
        let (x, gain, weights) = (normal(1, rows * hidden), normal(2, hidden), normal(4, rows * hidden));
        let loss = |x: &[f64], gain: &[f64]| -> f64 {
            reference::forward(x, gain, EPSILON).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
        };
        let (wide_x, wide_gain) = (wide(&x), wide(&gain));
        let expected_x = finite_differences(&wide_x, |x| loss(x, &wide_gain));
        let expected_gain = finite_differences(&wide_gain, |gain| loss(&wide_x, gain));
        for device in devices() {
            let device = device.autodiff();
            let x = make(&x, [rows, hidden], &device).require_grad();
            let gain = make(&gain, [hidden], &device).require_grad();
            let y = rms_norm(x.clone(), gain.clone(), EPSILON);
            let gradients = (y * make(&weights, [rows, hidden], &device)).sum().backward();
            let name = format!("{device:?} {rows}x{hidden}");
            assert_gradient(&format!("{name} x"), &values(x.grad(&gradients).unwrap()), &expected_x);
            assert_gradient(&format!("{name} gain"), &values(gain.grad(&gradients).unwrap()), &expected_gain);
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
