use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

macro_rules! equations {
    ($name:ident, $float:ty) => {
        fn $name(x: &[$float], inner: usize) -> Vec<$float> {
            let rows = x.chunks(2 * inner.max(1));
            rows.flat_map(|row| (0..inner).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[inner + i])).collect()
        }
    };
}

equations!(reference, f64);
equations!(plain, f32);

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        (rows, inner) in prop_oneof![(0usize..5, 0usize..70), (60usize..70, 260usize..280)],
        seed in 0u64..1000,
    ) {
        let x = normal(seed, rows * 2 * inner);
        let dy = normal(seed + 1, rows * inner);
        let truth = reference(&wide(&x), inner);
        let at = |i: usize| (i / inner * 2 * inner + i % inner, i / inner * 2 * inner + inner + i % inner);
        let mut gradient = vec![0.0; x.len()];
        for (i, &dy) in dy.iter().enumerate() {
            let (gate, up) = (f64::from(x[at(i).0]), f64::from(x[at(i).1]));
            let open = 1.0 / (1.0 + (-gate).exp());
            gradient[at(i).0] = f64::from(dy) * up * open * (1.0 + gate * (1.0 - open));
            gradient[at(i).1] = f64::from(dy) * gate * open;
        }
        for level in Level::available() {
            assert_as_exact(level.name(), &cpu::forward(level, &x, inner), &plain(&x, inner), &truth, 2.0);
            assert_gradient(level.name(), &cpu::backward(level, &x, &dy, inner), &gradient);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for shape in [[1, 1, 2], [2, 3, 10], [1, 2, 42]] {
        let (count, inner) = (shape.iter().product(), shape[2] / 2);
        let (x, weights) = (normal(1, count), normal(2, count / 2));
        let expected = finite_differences(&wide(&x), |x| {
            reference(x, inner).iter().zip(&weights).map(|(y, &weight)| y * f64::from(weight)).sum()
        });
        for device in devices() {
            let device = device.autodiff();
            let x = make(&x, shape, &device).require_grad();
            let y = swiglu(x.clone());
            assert_gradient("y", &values(y.clone()), &reference(&wide(&values(x.clone())), inner));
            let of = (y * make(&weights, [shape[0], shape[1], inner], &device)).sum().backward();
            assert_gradient(&format!("{device:?}"), &values(x.grad(&of).unwrap()), &expected);
        }
    }
}
