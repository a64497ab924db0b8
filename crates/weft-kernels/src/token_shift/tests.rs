use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

#[derive(Clone)]
struct Case {
    time: usize,
    hidden: usize,
    lengths: Vec<usize>,
    operands: [Vec<f32>; 3],
}

impl Case {
    fn new(lengths: &[usize], time: usize, hidden: usize, seed: u64) -> Self {
        let counts = [lengths.len() * time * hidden, hidden, lengths.len() * hidden];
        let operands = std::array::from_fn(|i| normal(seed + i as u64, counts[i]));
        Self { time, hidden, lengths: lengths.to_vec(), operands }
    }

    fn shift(&self) -> cpu::Shift<'_> {
        let [x, mix, earlier] = self.operands.each_ref().map(|values| &values[..]);
        cpu::Shift { time: self.time, hidden: self.hidden, lengths: &self.lengths, x, mix, earlier }
    }

    fn reference(&self) -> reference::Shift {
        let operands = self.operands.each_ref().map(|values| wide(values));
        reference::Shift { time: self.time, hidden: self.hidden, lengths: self.lengths.clone(), operands }
    }

    /// The equation in straightforward `f32`: what the kernel may be at most twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let Self { time, hidden, lengths, operands: [x, mix, earlier] } = self;
        let mut y = vec![0.0; x.len()];
        for (batch, &length) in lengths.iter().enumerate() {
            for i in 0..length * hidden {
                let (at, channel) = (batch * time * hidden + i, i % hidden);
                let before = if i < *hidden { earlier[batch * hidden + i] } else { x[at - hidden] };
                y[at] = mix[channel] * x[at] + (1.0 - mix[channel]) * before;
            }
        }
        y
    }

    /// The result and all gradients of its product with fixed weights, on a device.
    fn gradients(&self, device: &burn::tensor::Device, weights: &[f32]) -> (Vec<f32>, [Vec<f32>; 3]) {
        let device = device.clone().autodiff();
        let (batch, &Self { time, hidden, .. }) = (self.lengths.len(), self);
        let x = make(&self.operands[0], [batch, time, hidden], &device).require_grad();
        let mix = make(&self.operands[1], [hidden], &device).require_grad();
        let earlier = make(&self.operands[2], [batch, hidden], &device).require_grad();
        let y = token_shift(x.clone(), mix.clone(), Some(earlier.clone()), Some(&self.lengths));
        let of = (y.clone() * make(weights, [batch, time, hidden], &device)).sum().backward();
        let gradients =
            [values(x.grad(&of).unwrap()), values(mix.grad(&of).unwrap()), values(earlier.grad(&of).unwrap())];
        (values(y), gradients)
    }
}

const NAMES: [&str; 3] = ["x", "mix", "earlier"];

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in prop::collection::vec(0usize..20, 0..4),
        more in 0usize..3,
        hidden in 1usize..90,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().max().unwrap_or(&0) + more;
        let case = Case::new(&lengths, time, hidden, seed);
        let (truth, plain) = (reference::forward(&case.reference()), case.plain());
        for level in Level::available() {
            assert_as_exact(level.name(), &cpu::forward(level, &case.shift()), &plain, &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (lengths, time, hidden) in
        [(&[5, 0, 2][..], 6, 3), (&[1], 1, 1), (&[4], 4, 2), (&[0, 0], 2, 2), (&[], 2, 2), (&[3, 4], 4, 67)]
    {
        let case = Case::new(lengths, time, hidden, 7);
        let weights = normal(99, case.operands[0].len());
        let expected: Vec<Vec<f64>> = (0..3)
            .map(|i| {
                finite_differences(&case.reference().operands[i], |moved| {
                    let mut shift = case.reference();
                    shift.operands[i] = moved.to_vec();
                    reference::forward(&shift).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
                })
            })
            .collect();
        for device in devices() {
            let (_, gradients) = case.gradients(&device, &weights);
            for ((name, got), expected) in NAMES.iter().zip(&gradients).zip(&expected) {
                assert_gradient(&format!("{device:?} {lengths:?} {name}"), got, expected);
            }
        }
    }
}

#[test]
fn every_level_has_the_portable_bodys_results() {
    let case = Case::new(&[40, 0, 7, 1], 41, 70, 3);
    let weights = normal(5, 4 * 41 * 70);
    let shapes = [vec![4, 41, 70], vec![70], vec![4, 70]];
    let operands = || std::array::from_fn(|i| tensor(case.operands[i].clone(), shapes[i].clone()));
    let whole = Values::new(portable::forward::<Flex>(operands(), &case.lengths));
    let gradient = tensor(weights.clone(), [4, 41, 70]);
    let portable = portable::backward::<Flex>(operands(), gradient, &case.lengths).map(Values::new);
    for level in Level::available() {
        assert_gradient(level.name(), &cpu::forward(level, &case.shift()), &wide(whole.f32()));
        let gradients = cpu::backward(level, &case.shift(), &weights);
        for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
            assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    let case = Case::new(&[3, 5], 6, 9, 1);
    let mut spoilt = case.clone();
    let clean = normal(2, 2 * 6 * 9);
    let mut weights = clean.clone();
    for (batch, &length) in case.lengths.iter().enumerate() {
        let padding = (batch * 6 + length) * 9..(batch + 1) * 6 * 9;
        spoilt.operands[0][padding.clone()].fill(f32::NAN);
        weights[padding].fill(f32::NAN);
    }
    for device in devices() {
        assert_eq!(case.gradients(&device, &clean), spoilt.gradients(&device, &weights));
    }
}

#[test]
fn in_pieces_as_at_once() {
    let case = Case::new(&[11], 11, 20, 4);
    for device in devices() {
        let x = make(&case.operands[0], [1, 11, 20], &device);
        let piece = |from: usize, to: usize, earlier| {
            let mix = make(&case.operands[1], [20], &device);
            values(token_shift(x.clone().slice([0..1, from..to]), mix, earlier, None))
        };
        let earlier = x.clone().slice([0..1, 4..5]).reshape([1, 20]);
        assert_eq!(piece(0, 11, None), [piece(0, 5, None), piece(5, 11, Some(earlier))].concat());
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case::new(&[50, 60], 60, 200, 8);
    let weights = normal(9, 2 * 60 * 200);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            (cpu::forward(Level::best(), &case.shift()), cpu::backward(Level::best(), &case.shift(), &weights))
        })
    };
    assert_eq!(on(1), on(4));
}
