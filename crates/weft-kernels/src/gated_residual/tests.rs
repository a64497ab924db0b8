use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

fn dropouts() -> [Dropout; 2] {
    [Dropout::NONE, Dropout::new(0.3, 11)]
}

/// The equation in plain `f64`.
fn reference(x: &[f64], gate: &[f64], residual: &[f64], dropout: Dropout) -> Vec<f64> {
    let kept = |i| if dropout.keeps(i) { f64::from(dropout.scale()) } else { 0.0 };
    (0..x.len()).map(|i| residual[i] + kept(i) * x[i] / (1.0 + (-gate[i]).exp())).collect()
}

/// And in straightforward `f32`: what the kernel may be at most twice as wrong as.
fn plain(x: &[f32], gate: &[f32], residual: &[f32], dropout: Dropout) -> Vec<f32> {
    (0..x.len()).map(|i| residual[i] + dropout.at(i, x[i] * (1.0 / (1.0 + (-gate[i]).exp())))).collect()
}

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(count in prop_oneof![0usize..70, 16_380usize..16_400], seed in 0u64..1000) {
        let [x, gate, residual] = [0, 1, 2].map(|i| normal(seed + i, count));
        for dropout in dropouts() {
            let truth = reference(&wide(&x), &wide(&gate), &wide(&residual), dropout);
            for level in Level::available() {
                let y = cpu::forward(level, &x, &gate, &residual, dropout);
                assert_as_exact(level.name(), &y, &plain(&x, &gate, &residual, dropout), &truth, 2.0);
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (count, dropout) in [1, 5, 37].into_iter().zip(dropouts().into_iter().cycle()) {
        let operands = [1, 2, 3].map(|seed| normal(seed, count));
        let weights = normal(4, count);
        let expected = [0, 1, 2].map(|moving: usize| {
            finite_differences(&wide(&operands[moving]), |moved| {
                let mut all = operands.each_ref().map(|operand| wide(operand));
                all[moving] = moved.to_vec();
                let [x, gate, residual] = &all;
                reference(x, gate, residual, dropout).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
            })
        });
        for device in devices() {
            let device = device.autodiff();
            let [x, gate, residual] = operands.each_ref().map(|v| make(v, [count], &device).require_grad());
            let y = gated_residual(x.clone(), gate.clone(), residual.clone(), dropout);
            let of = (y * make(&weights, [count], &device)).sum().backward();
            for (tensor, expected) in [x, gate, residual].into_iter().zip(&expected) {
                assert_gradient(&format!("{device:?} {count}"), &values(tensor.grad(&of).unwrap()), expected);
            }
        }
    }
}

#[test]
fn every_level_has_the_equations_gradients() {
    let [x, gate, dy] = [1, 2, 3].map(|seed| normal(seed, 700));
    for dropout in dropouts() {
        let open: Vec<f64> = wide(&gate).iter().map(|gate| 1.0 / (1.0 + (-gate).exp())).collect();
        let passed: Vec<f64> = (0..700).map(|i| f64::from(dropout.at(i, dy[i])) * open[i]).collect();
        let closed: Vec<f64> = (0..700).map(|i| passed[i] * f64::from(x[i]) * (1.0 - open[i])).collect();
        for level in Level::available() {
            let [dx, dgate] = cpu::backward(level, &x, &gate, &dy, dropout);
            assert_gradient(&format!("{} x", level.name()), &dx, &passed);
            assert_gradient(&format!("{} gate", level.name()), &dgate, &closed);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let [x, gate, dy] = [1, 2, 3].map(|seed| normal(seed, 50_001));
    let dropout = Dropout::new(0.1, 3);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let y = cpu::forward(Level::best(), &x, &gate, &dy, dropout);
            (y, cpu::backward(Level::best(), &x, &gate, &dy, dropout))
        })
    };
    assert_eq!(on(1), on(4));
}
