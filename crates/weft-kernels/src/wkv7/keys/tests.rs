use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

/// k, rate, xi, alpha.
fn operands(positions: usize, hidden: usize, seed: u64) -> [Vec<f32>; 4] {
    let shares = |seed, count| normal(seed, count).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    let count = positions * hidden;
    [normal(seed, count), shares(seed + 1, count), normal(seed + 2, hidden), shares(seed + 3, hidden)]
}

/// The equations in straightforward `f32`: what the kernels may be at most twice as wrong as.
fn plain([k, rate, xi, alpha]: &[Vec<f32>; 4], size: usize) -> [Vec<f32>; 2] {
    let product: Vec<f32> = k.iter().zip(xi.iter().cycle()).map(|(k, xi)| k * xi).collect();
    let length = |head: &[f32]| head.iter().map(|x| x * x).sum::<f32>().sqrt().max(SHORTEST as f32);
    let removal = product.chunks(size).flat_map(|head| head.iter().map(|x| -x / length(head)));
    let rates = k.iter().zip(rate).zip(alpha.iter().cycle());
    [removal.collect(), rates.map(|((k, rate), alpha)| k * (1.0 + (rate - 1.0) * alpha)).collect()]
}

proptest! {
    #[test]
    fn the_kernels_are_exact_on_every_level(
        positions in 0usize..130, heads in 1usize..4, size in 1usize..70, seed in 0u64..1000,
    ) {
        let operands = operands(positions, heads * size, seed);
        let [k, rate, xi, alpha] = operands.each_ref().map(|values| wide(values));
        let truth = [reference::removal(&k, &xi, size), reference::replacement(&k, &rate, &alpha)];
        let plain = plain(&operands, size);
        let [k, rate, xi, alpha] = &operands;
        for level in Level::available() {
            assert_as_exact(level.name(), &cpu::removal(level, k, xi, size), &plain[0], &truth[0], 2.0);
            assert_as_exact(level.name(), &cpu::replacement(level, k, rate, alpha), &plain[1], &truth[1], 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (batch, time, heads, size) in [(2, 3, 2, 5), (1, 1, 1, 1), (1, 2, 1, 37), (70, 1, 1, 2), (2, 0, 2, 3)] {
        let (hidden, count) = (heads * size, batch * time * heads * size);
        let (operands, weights) = (operands(batch * time, hidden, 7), normal(99, 2 * count));
        let wide = operands.each_ref().map(|values| wide(values));
        let expected: [Vec<f64>; 4] = std::array::from_fn(|i| {
            finite_differences(&wide[i], |moved| {
                let mut operands = wide.clone();
                operands[i] = moved.to_vec();
                let [k, rate, xi, alpha] = &operands;
                let keys = [reference::removal(k, xi, size), reference::replacement(k, rate, alpha)].concat();
                keys.iter().zip(&weights).map(|(key, &w)| key * f64::from(w)).sum()
            })
        });
        for device in devices() {
            let device = device.autodiff();
            let shape = [batch, time, hidden];
            let [k, rate] = [0, 1].map(|i| make(&operands[i], shape, &device).require_grad());
            let [xi, alpha] = [2, 3].map(|i| make(&operands[i], [hidden], &device).require_grad());
            let removed = removal_key(k.clone(), xi.clone(), heads) * make(&weights[..count], shape, &device);
            let learned =
                replacement_key(k.clone(), rate.clone(), alpha.clone()) * make(&weights[count..], shape, &device);
            let of = (removed.sum() + learned.sum()).backward();
            let gradients = [k, rate].map(|input| values(input.grad(&of).unwrap()));
            let gradients = [gradients, [xi, alpha].map(|input| values(input.grad(&of).unwrap()))].concat();
            for ((name, got), expected) in ["k", "rate", "xi", "alpha"].iter().zip(&gradients).zip(&expected) {
                assert_gradient(&format!("{device:?} {shape:?} {name}"), got, expected);
            }
        }
    }
}

#[test]
fn a_key_of_zeros_is_removed_nowhere() {
    for device in devices() {
        let device = device.autodiff();
        let k = Tensor::<3>::zeros([1, 2, 6], &device).require_grad();
        let a = removal_key(k.clone(), Tensor::ones([6], &device), 2);
        let of = a.clone().sum().backward();
        assert_eq!(values(a).iter().map(|x| x.abs()).collect::<Vec<_>>(), vec![0.0; 12]);
        assert!(values(k.grad(&of).unwrap()).iter().all(|x| x.is_finite()), "{device:?}");
    }
}

#[test]
fn every_level_has_the_portable_bodys_gradients() {
    let (positions, heads, size) = (70, 2, 37);
    let hidden = heads * size;
    let (given, dkey) = (operands(positions, hidden, 3), normal(5, positions * hidden));
    let put = |values: &[f32]| tensor(values.to_vec(), [1, values.len() / hidden, hidden]);
    let vector = |values: &[f32]| tensor(values.to_vec(), [hidden]);
    let [k, rate, xi, alpha] = &given;
    let removal = portable::removal_backward::<Flex>([put(k), vector(xi)], put(&dkey), size).map(Values::new);
    let replacement = portable::replacement_backward::<Flex>([put(k), put(rate), vector(alpha)], put(&dkey));
    let replacement = replacement.map(Values::new);
    for level in Level::available() {
        let found = cpu::removal_backward(level, k, xi, &dkey, size);
        let [found, learned] = [found.to_vec(), cpu::replacement_backward(level, k, rate, alpha, &dkey).to_vec()];
        for (got, portable) in found.iter().zip(&removal).chain(learned.iter().zip(&replacement)) {
            assert_gradient(level.name(), got, &wide(portable.f32()));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let ([k, rate, xi, alpha], dkey) = (operands(333, 60, 1), normal(9, 333 * 60));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let level = Level::best();
        let removal = || cpu::removal_backward(level, &k, &xi, &dkey, 20);
        pool.install(|| (removal(), cpu::replacement_backward(level, &k, &rate, &alpha, &dkey)))
    };
    assert_eq!(on(1), on(4));
}
