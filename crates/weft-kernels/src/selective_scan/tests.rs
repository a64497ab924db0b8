use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

/// A case in `f32`.
#[derive(Clone)]
struct Case {
    time: usize,
    inner: usize,
    states: usize,
    lengths: Vec<usize>,
    operands: [Vec<f32>; 8],
}

impl Case {
    /// Values as in training: steps around 0.1, rates from 0.4 to 3.
    fn new(lengths: &[usize], time: usize, inner: usize, states: usize, seed: u64) -> Self {
        let batch = lengths.len();
        let (rows, scaled) = (batch * time, |seed, count, scale: f32, shift: f32| -> Vec<f32> {
            normal(seed, count).into_iter().map(|value| value * scale + shift).collect()
        });
        let operands = [
            normal(seed, rows * inner),
            scaled(seed + 1, rows * inner, 1.0, -1.0),
            normal(seed + 2, rows * 2 * states),
            normal(seed + 3, rows * inner),
            scaled(seed + 4, inner * states, 0.5, 0.0),
            normal(seed + 5, inner),
            scaled(seed + 6, inner, 0.3, -1.0),
            normal(seed + 7, batch * states * inner),
        ];
        Self { time, inner, states, lengths: lengths.to_vec(), operands }
    }

    fn scan(&self) -> cpu::Scan<'_> {
        let [x, delta, bc, gate, a_log, skip, bias, initial] = self.operands.each_ref().map(|values| &values[..]);
        let Self { time, inner, states, .. } = *self;
        cpu::Scan { time, inner, states, lengths: &self.lengths, x, delta, bc, gate, a_log, skip, bias, initial }
    }

    fn reference(&self) -> reference::Scan {
        let operands = self.operands.each_ref().map(|values| wide(values));
        let Self { time, inner, states, .. } = *self;
        reference::Scan { time, inner, states, lengths: self.lengths.clone(), operands }
    }

    /// The equations in straightforward `f32`: what the kernel may be at most twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let Self { time, inner, states, lengths, operands: [x, delta, bc, gate, a_log, skip, bias, initial] } = self;
        let mut outputs = vec![0.0; lengths.len() * time * inner];
        let mut last = initial.clone();
        for (batch, &length) in lengths.iter().enumerate() {
            for (t, channel) in (0..length).flat_map(|t| (0..*inner).map(move |channel| (t, channel))) {
                let row = batch * time + t;
                let at = row * inner + channel;
                let step = (delta[at] + bias[channel]).exp().ln_1p();
                let mut y = skip[channel] * x[at];
                for n in 0..*states {
                    let h = &mut last[(batch * states + n) * inner + channel];
                    let decay = (-step * a_log[channel * states + n].exp()).exp();
                    *h = decay * *h + step * bc[row * 2 * states + n] * x[at];
                    y += bc[row * 2 * states + states + n] * *h;
                }
                outputs[at] = y * (gate[at] / (1.0 + (-gate[at]).exp()));
            }
        }
        outputs.extend(last);
        outputs
    }

    /// The result and all gradients of its product with fixed weights, on a device.
    fn gradients(&self, device: &burn::tensor::Device, weights: &[f32]) -> (Vec<f32>, Vec<Vec<f32>>) {
        let device = device.clone().autodiff();
        let (batch, &Self { time, inner, states, .. }) = (self.lengths.len(), self);
        let part = |i: usize, shape: [usize; 3]| make(&self.operands[i], shape, &device).require_grad();
        let [x, delta, gate] = [0, 1, 3].map(|i| part(i, [batch, time, inner]));
        let (bc, initial) = (part(2, [batch, time, 2 * states]), part(7, [batch, states, inner]));
        let a_log = make(&self.operands[4], [inner, states], &device).require_grad();
        let [skip, bias] = [5, 6].map(|i| make(&self.operands[i], [inner], &device).require_grad());
        let inputs = ScanInputs { x: x.clone(), delta: delta.clone(), bc: bc.clone(), gate: gate.clone() };
        let parameters = ScanParameters { a_log: a_log.clone(), skip: skip.clone(), bias: bias.clone() };
        let (y, last) = selective_scan(inputs, parameters, Some(initial.clone()), Some(&self.lengths));
        let count = batch * time * inner;
        let result = [values(y.clone()), values(last.clone())].concat();
        let loss = (y * make(&weights[..count], [batch, time, inner], &device)).sum()
            + (last * make(&weights[count..], [batch, states, inner], &device)).sum();
        let of = loss.backward();
        let gradients = vec![
            values(x.grad(&of).unwrap()),
            values(delta.grad(&of).unwrap()),
            values(bc.grad(&of).unwrap()),
            values(gate.grad(&of).unwrap()),
            values(a_log.grad(&of).unwrap()),
            values(skip.grad(&of).unwrap()),
            values(bias.grad(&of).unwrap()),
            values(initial.grad(&of).unwrap()),
        ];
        (result, gradients)
    }
}

const NAMES: [&str; 8] = ["x", "delta", "bc", "gate", "a_log", "skip", "bias", "initial"];

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in prop::collection::vec(0usize..70, 0..4),
        more in 0usize..3,
        inner in 1usize..90,
        states in 1usize..18,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().max().unwrap_or(&0) + more;
        let case = Case::new(&lengths, time, inner, states, seed);
        let (truth, plain) = (reference::forward(&case.reference()), case.plain());
        for level in Level::available() {
            let (packed, _) = cpu::forward(level, &case.scan(), false);
            assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (lengths, time, inner, states) in
        [(&[5, 0, 3][..], 6, 3, 2), (&[1], 1, 1, 1), (&[34], 34, 2, 3), (&[0, 0], 0, 2, 2), (&[2, 3], 3, 67, 1)]
    {
        let case = Case::new(lengths, time, inner, states, 7);
        let count = lengths.len() * (time + states) * inner;
        let weights = normal(99, count);
        let expected: Vec<Vec<f64>> = (0..8)
            .map(|i| {
                finite_differences(&case.reference().operands[i], |moved| {
                    let mut scan = case.reference();
                    scan.operands[i] = moved.to_vec();
                    reference::forward(&scan).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
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
    let case = Case::new(&[40, 33, 7], 41, 70, 16, 3);
    let weights = normal(5, 3 * (41 + 16) * 70);
    let operands = || {
        let shapes = [vec![3, 41, 70], vec![3, 41, 70], vec![3, 41, 32], vec![3, 41, 70], vec![70, 16], vec![70]];
        let shapes = shapes.into_iter().chain([vec![70], vec![3, 16, 70]]);
        let made: Vec<_> = case.operands.iter().zip(shapes).map(|(v, shape)| tensor(v.clone(), shape)).collect();
        <Operands<Flex>>::try_from(made).unwrap()
    };
    let gradient = tensor(weights.clone(), [3 * (41 + 16), 70]);
    let portable = portable::backward::<Flex>(operands(), gradient, &case.lengths).map(Values::new);
    for level in Level::available() {
        let (_, kept) = cpu::forward(level, &case.scan(), true);
        let gradients = gradient::backward(level, &case.scan(), &kept, &weights);
        for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
            assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    let case = Case::new(&[3, 5], 6, 9, 4, 1);
    let mut spoilt = case.clone();
    for (batch, &length) in case.lengths.iter().enumerate() {
        for (operand, width) in [(0, 9), (1, 9), (2, 8), (3, 9)] {
            spoilt.operands[operand][(batch * 6 + length) * width..(batch + 1) * 6 * width].fill(f32::NAN);
        }
    }
    let weights = normal(2, 2 * (6 + 4) * 9);
    for device in devices() {
        assert_eq!(case.gradients(&device, &weights), spoilt.gradients(&device, &weights));
    }
}

/// A long text that is read in pieces, each from the state that the last one left.
#[test]
fn in_pieces_as_at_once() {
    let (time, inner, states) = (75, 20, 16);
    let case = Case::new(&[time], time, inner, states, 4);
    for device in devices() {
        let piece = |from: usize, to: usize, initial| {
            let part = |i: usize, width: usize| {
                make(&case.operands[i], [1, time, width], &device).slice([0..1, from..to, 0..width])
            };
            let inputs =
                ScanInputs { x: part(0, inner), delta: part(1, inner), bc: part(2, 2 * states), gate: part(3, inner) };
            let parameters = ScanParameters {
                a_log: make(&case.operands[4], [inner, states], &device),
                skip: make(&case.operands[5], [inner], &device),
                bias: make(&case.operands[6], [inner], &device),
            };
            let (y, last) = selective_scan(inputs, parameters, initial, None);
            (values(y), last)
        };
        let (whole, last) = piece(0, time, None);
        let (first, state) = piece(0, 33, None);
        let (second, end) = piece(33, time, Some(state));
        assert_eq!(whole, [first, second].concat());
        assert_eq!(values(last), values(end));
    }
}

#[test]
fn extreme_steps_are_no_nan() {
    let mut case = Case::new(&[4], 4, 8, 2, 6);
    case.operands[1] = [-200.0, 200.0, 1e30, -1e30].iter().flat_map(|&delta| [delta; 8]).collect();
    case.operands[4].fill(3.0);
    for level in Level::available() {
        let (packed, _) = cpu::forward(level, &case.scan(), true);
        assert!(packed[..16].iter().all(|value| value.is_finite()), "{}: {packed:?}", level.name());
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case::new(&[50, 60], 60, 200, 5, 8);
    let weights = normal(9, 2 * (60 + 5) * 200);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (packed, kept) = cpu::forward(Level::best(), &case.scan(), true);
            (gradient::backward(Level::best(), &case.scan(), &kept, &weights), packed)
        })
    };
    assert_eq!(on(1), on(4));
}
