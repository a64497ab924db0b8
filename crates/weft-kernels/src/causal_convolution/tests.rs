use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

#[derive(Clone)]
struct Case {
    time: usize,
    channels: usize,
    width: usize,
    lengths: Vec<usize>,
    operands: [Vec<f32>; 4],
}

impl Case {
    fn new(lengths: &[usize], time: usize, channels: usize, width: usize, seed: u64) -> Self {
        let batch = lengths.len();
        let counts = [batch * time * channels, channels * width, channels, batch * (width - 1) * channels];
        let operands = std::array::from_fn(|i| normal(seed + i as u64, counts[i]));
        Self { time, channels, width, lengths: lengths.to_vec(), operands }
    }

    fn convolution(&self) -> cpu::Convolution<'_> {
        let &Self { time, channels, width, .. } = self;
        let [x, weight, bias, initial] = self.operands.each_ref().map(|values| &values[..]);
        cpu::Convolution { time, channels, width, lengths: &self.lengths, x, weight, bias, initial }
    }

    fn reference(&self) -> reference::Convolution {
        let &Self { time, channels, width, .. } = self;
        let operands = self.operands.each_ref().map(|values| wide(values));
        reference::Convolution { time, channels, width, lengths: self.lengths.clone(), operands }
    }

    /// The equations in straightforward `f32`: what the kernel may be at most twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let Self { time, channels, width, lengths, operands: [x, weight, bias, initial] } = self;
        let mut y = vec![0.0; x.len()];
        for (batch, &length) in lengths.iter().enumerate() {
            for (t, channel) in (0..length).flat_map(|t| (0..*channels).map(move |channel| (t, channel))) {
                let input = |k: usize| match (t + k).checked_sub(width - 1) {
                    Some(from) => x[(batch * time + from) * channels + channel],
                    None => initial[(batch * (width - 1) + t + k) * channels + channel],
                };
                let sum = (0..*width).fold(bias[channel], |sum, k| sum + weight[channel * width + k] * input(k));
                y[(batch * time + t) * channels + channel] = sum / (1.0 + (-sum).exp());
            }
        }
        y
    }

    /// The result and all gradients of its product with fixed weights, on a device.
    fn gradients(&self, device: &burn::tensor::Device, weights: &[f32]) -> (Vec<f32>, [Vec<f32>; 4]) {
        let device = device.clone().autodiff();
        let (batch, &Self { time, channels, width, .. }) = (self.lengths.len(), self);
        let x = make(&self.operands[0], [batch, time, channels], &device).require_grad();
        let weight = make(&self.operands[1], [channels, width], &device).require_grad();
        let bias = make(&self.operands[2], [channels], &device).require_grad();
        let initial = make(&self.operands[3], [batch, width - 1, channels], &device).require_grad();
        let before = Some(initial.clone());
        let y = causal_convolution(x.clone(), weight.clone(), bias.clone(), before, Some(&self.lengths));
        let of = (y.clone() * make(weights, [batch, time, channels], &device)).sum().backward();
        let gradients = [
            values(x.grad(&of).unwrap()),
            values(weight.grad(&of).unwrap()),
            values(bias.grad(&of).unwrap()),
            values(initial.grad(&of).unwrap()),
        ];
        (values(y), gradients)
    }
}

const NAMES: [&str; 4] = ["x", "weight", "bias", "initial"];

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in prop::collection::vec(0usize..20, 0..4),
        more in 0usize..3,
        channels in 1usize..90,
        width in 1usize..6,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().max().unwrap_or(&0) + more;
        let case = Case::new(&lengths, time, channels, width, seed);
        let (truth, plain) = (reference::forward(&case.reference()), case.plain());
        for level in Level::available() {
            assert_as_exact(level.name(), &cpu::forward(level, &case.convolution()), &plain, &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (lengths, time, channels, width) in
        [(&[5, 0, 2][..], 6, 3, 4), (&[1], 1, 1, 4), (&[4], 4, 2, 1), (&[0, 0], 2, 2, 3), (&[3, 4], 4, 67, 2)]
    {
        let case = Case::new(lengths, time, channels, width, 7);
        let weights = normal(99, case.operands[0].len());
        let expected: Vec<Vec<f64>> = (0..4)
            .map(|i| {
                finite_differences(&case.reference().operands[i], |moved| {
                    let mut convolution = case.reference();
                    convolution.operands[i] = moved.to_vec();
                    reference::forward(&convolution).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
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
fn every_level_has_the_portable_bodys_gradients() {
    let case = Case::new(&[40, 0, 7], 41, 70, 4, 3);
    let weights = normal(5, 3 * 41 * 70);
    let shapes = [vec![3, 41, 70], vec![70, 4], vec![70], vec![3, 3, 70]];
    let operands = std::array::from_fn(|i| tensor(case.operands[i].clone(), shapes[i].clone()));
    let gradient = tensor(weights.clone(), [3, 41, 70]);
    let portable = portable::backward::<Flex>(operands, gradient, &case.lengths).map(Values::new);
    for level in Level::available() {
        let gradients = cpu::backward(level, &case.convolution(), &weights);
        for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
            assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    let case = Case::new(&[3, 5], 6, 9, 4, 1);
    let mut spoilt = case.clone();
    let mut weights = normal(2, 2 * 6 * 9);
    let clean = weights.clone();
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
    let case = Case::new(&[11], 11, 20, 4, 4);
    for device in devices() {
        let x = make(&case.operands[0], [1, 11, 20], &device);
        let piece = |from: usize, to: usize, initial| {
            let weight = make(&case.operands[1], [20, 4], &device);
            let bias = make(&case.operands[2], [20], &device);
            values(causal_convolution(x.clone().slice([0..1, from..to]), weight, bias, initial, None))
        };
        let before = x.clone().slice([0..1, 2..5]);
        assert_eq!(piece(0, 11, None), [piece(0, 5, None), piece(5, 11, Some(before))].concat());
    }
}
