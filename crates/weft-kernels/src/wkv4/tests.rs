use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

/// A case in `f32`.
#[derive(Clone)]
struct Case {
    time: usize,
    hidden: usize,
    lengths: Vec<usize>,
    operands: [Vec<f32>; 6],
}

impl Case {
    /// Decays from 0.01 to 3, as in training; keys and exponents of states of some units.
    fn new(lengths: &[usize], time: usize, hidden: usize, seed: u64) -> Self {
        let batch = lengths.len();
        let scaled = |seed, count, scale: f32| normal(seed, count).into_iter().map(|value| value * scale).collect();
        let initial: Vec<f32> = normal(seed + 5, batch * 3 * hidden)
            .into_iter()
            .enumerate()
            // A denominator is positive.
            .map(|(i, value)| if i / hidden % 3 == 1 { value.abs() + 0.1 } else { value })
            .collect();
        let decay: Vec<f32> = scaled(seed + 3, hidden, 1.5);
        let operands = [
            normal(seed, batch * time * hidden),
            scaled(seed + 1, batch * time * hidden, 2.0),
            normal(seed + 2, batch * time * hidden),
            decay.into_iter().map(|value| (value - 1.5).exp()).collect(),
            normal(seed + 4, hidden),
            initial,
        ];
        Self { time, hidden, lengths: lengths.to_vec(), operands }
    }

    fn wkv(&self) -> cpu::Wkv<'_> {
        let [receptance, key, value, decay, bonus, initial] = self.operands.each_ref().map(|values| &values[..]);
        let &Self { time, hidden, .. } = self;
        cpu::Wkv { time, hidden, lengths: &self.lengths, receptance, key, value, decay, bonus, initial }
    }

    fn reference(&self) -> reference::Wkv {
        let operands = self.operands.each_ref().map(|values| wide(values));
        let &Self { time, hidden, .. } = self;
        reference::Wkv { time, hidden, lengths: self.lengths.clone(), operands }
    }

    /// Appendix D in straightforward `f32`: what the kernel may be at most twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let Self { time, hidden, lengths, operands: [receptance, key, value, decay, bonus, initial] } = self;
        let mut outputs = vec![0.0; lengths.len() * time * hidden];
        let mut last = initial.clone();
        for (batch, &length) in lengths.iter().enumerate() {
            for channel in 0..*hidden {
                let row = |i: usize| (3 * batch + i) * hidden + channel;
                let [mut a, mut b, mut p] = [0, 1, 2].map(|i| initial[row(i)]);
                for t in 0..length {
                    let at = (batch * time + t) * hidden + channel;
                    let (k, v) = (key[at], value[at]);
                    let q = p.max(bonus[channel] + k);
                    let (old, new) = ((p - q).exp(), (bonus[channel] + k - q).exp());
                    let wkv = (old * a + new * v) / (old * b + new);
                    outputs[at] = wkv / (1.0 + (-receptance[at]).exp());
                    let q = (p - decay[channel]).max(k);
                    let (old, new) = ((p - decay[channel] - q).exp(), (k - q).exp());
                    (a, b, p) = (old * a + new * v, old * b + new, q);
                }
                [a, b, p].into_iter().enumerate().for_each(|(i, value)| last[row(i)] = value);
            }
        }
        outputs.extend(last);
        outputs
    }

    /// On every level, the outputs, and then the last states, whose exponents may be larger by far.
    fn assert_exact(&self) {
        let (truth, plain) = (reference::forward(&self.reference()), self.plain());
        let count = self.lengths.len() * self.time * self.hidden;
        for level in Level::available() {
            let (packed, _) = cpu::forward(level, &self.wkv(), false);
            for (name, range) in [("outputs", 0..count), ("states", count..packed.len())] {
                let name = format!("{} {name}", level.name());
                assert_as_exact(&name, &packed[range.clone()], &plain[range.clone()], &truth[range], 2.0);
            }
        }
    }

    fn tensors(&self, device: &Device) -> (WkvInputs, [Tensor<1>; 2], Tensor<3>) {
        let (batch, &Self { time, hidden, .. }) = (self.lengths.len(), self);
        let [receptance, key, value] = [0, 1, 2].map(|i| make(&self.operands[i], [batch, time, hidden], device));
        let parameters = [3, 4].map(|i| make(&self.operands[i], [hidden], device));
        (WkvInputs { receptance, key, value }, parameters, make(&self.operands[5], [batch, 3, hidden], device))
    }

    /// The result and all gradients of its product with fixed weights, on a device.
    fn gradients(&self, device: &Device, weights: &[f32]) -> (Vec<f32>, [Vec<f32>; 6]) {
        let device = device.clone().autodiff();
        let (WkvInputs { receptance, key, value }, parameters, initial) = self.tensors(&device);
        let [receptance, key, value] = [receptance, key, value].map(Tensor::require_grad);
        let ([decay, bonus], initial) = (parameters.map(Tensor::require_grad), initial.require_grad());
        let inputs = WkvInputs { receptance: receptance.clone(), key: key.clone(), value: value.clone() };
        let before = Some(initial.clone());
        let (y, last) = wkv4(inputs, decay.clone(), bonus.clone(), before, Some(&self.lengths));
        let result = [values(y.clone()), values(last.clone())].concat();
        let count = result.len() - self.operands[5].len();
        let loss = (y.clone() * make(&weights[..count], y.dims(), &device)).sum()
            + (last.clone() * make(&weights[count..], last.dims(), &device)).sum();
        let of = loss.backward();
        let gradients = [
            values(receptance.grad(&of).unwrap()),
            values(key.grad(&of).unwrap()),
            values(value.grad(&of).unwrap()),
            values(decay.grad(&of).unwrap()),
            values(bonus.grad(&of).unwrap()),
            values(initial.grad(&of).unwrap()),
        ];
        (result, gradients)
    }
}

const NAMES: [&str; 6] = ["receptance", "key", "value", "decay", "bonus", "initial"];

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in prop::collection::vec(0usize..70, 0..4),
        more in 0usize..3,
        hidden in 1usize..90,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().max().unwrap_or(&0) + more;
        Case::new(&lengths, time, hidden, seed).assert_exact();
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (lengths, time, hidden) in
        [(&[5, 0, 3][..], 6, 3), (&[1], 1, 1), (&[34], 34, 2), (&[0, 0], 0, 2), (&[2, 3], 3, 67)]
    {
        let case = Case::new(lengths, time, hidden, 7);
        let weights = normal(99, lengths.len() * (time + 3) * hidden);
        let expected: Vec<Vec<f64>> = (0..6)
            .map(|i| {
                finite_differences(&case.reference().operands[i], |moved| {
                    let mut wkv = case.reference();
                    wkv.operands[i] = moved.to_vec();
                    reference::forward(&wkv).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
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
    let case = Case::new(&[40, 33, 7], 41, 70, 3);
    let weights = normal(5, 3 * (41 + 3) * 70);
    let shapes = [vec![3, 41, 70], vec![3, 41, 70], vec![3, 41, 70], vec![70], vec![70], vec![3, 3, 70]];
    let operands = || std::array::from_fn(|i| tensor(case.operands[i].clone(), shapes[i].clone()));
    let whole = Values::new(portable::forward::<Flex>(operands(), &case.lengths));
    let gradient = tensor(weights.clone(), [3 * (41 + 3), 70]);
    let portable = portable::backward::<Flex>(operands(), gradient, &case.lengths).map(Values::new);
    for level in Level::available() {
        let (packed, kept) = cpu::forward(level, &case.wkv(), true);
        assert_as_exact(level.name(), &packed, whole.f32(), &reference::forward(&case.reference()), 2.0);
        let gradients = gradient::backward(level, &case.wkv(), &kept, &weights);
        for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
            assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
        }
    }
}

/// Keys whose exponentials `f32` cannot add, over a text much longer than any in training.
#[test]
fn large_keys_neither_overflow_nor_vanish() {
    let (time, hidden) = (10_000, 9);
    let mut case = Case::new(&[time], time, hidden, 5);
    for (i, key) in case.operands[1].iter_mut().enumerate() {
        let t = i / hidden;
        // Stretches of very large and of very small keys, jumps between them, and keys as in training.
        *key = match t / 1000 % 4 {
            0 => 80.0,
            1 => -80.0,
            2 => 80.0 * (t as f32).sin(),
            _ => *key,
        };
    }
    case.operands[3] = [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0].to_vec();
    case.operands[5] = [[0.0; 9], [0.0; 9], [-80.0; 9]].concat();
    case.assert_exact();
    let weights = normal(6, (time + 3) * hidden);
    for level in Level::available() {
        let (_, kept) = cpu::forward(level, &case.wkv(), true);
        let gradients = gradient::backward(level, &case.wkv(), &kept, &weights);
        assert!(gradients.iter().flatten().all(|value| value.is_finite()), "{}", level.name());
    }
}

/// Equation 16 with its sums written out, from the state that is there if none is given.
#[test]
fn the_first_state_has_read_nothing() {
    let case = Case::new(&[12, 0], 12, 5, 8);
    let [receptance, key, value, decay, bonus, _] = case.reference().operands;
    for device in devices() {
        let (inputs, [w, u], _) = case.tensors(&device);
        let (y, last) = wkv4(inputs, w, u, None, Some(&case.lengths));
        let (y, last) = (values(y), values(last));
        for (t, channel) in (0..12).flat_map(|t| (0..5).map(move |channel| (t, channel))) {
            let weight = |i: usize| match i == t {
                true => (bonus[channel] + key[i * 5 + channel]).exp(),
                false => (key[i * 5 + channel] - (t - 1 - i) as f64 * decay[channel]).exp(),
            };
            let above: f64 = (0..=t).map(|i| weight(i) * value[i * 5 + channel]).sum();
            let average = above / (0..=t).map(weight).sum::<f64>();
            let wanted = average / (1.0 + (-receptance[t * 5 + channel]).exp());
            assert!((f64::from(y[t * 5 + channel]) - wanted).abs() < 1e-6, "{device:?}: {t}, {channel}");
        }
        assert_eq!(last[15..], [[0.0; 5], [0.0; 5], [NOTHING; 5]].concat());
    }
}

#[test]
fn an_empty_batch_is_one_too() {
    let case = Case::new(&[], 2, 5, 1);
    for device in devices() {
        let (inputs, [decay, bonus], _) = case.tensors(&device);
        let (y, last) = wkv4(inputs, decay, bonus, None, None);
        assert_eq!((y.dims(), last.dims()), ([0, 2, 5], [0, 3, 5]));
    }
    let shapes = [vec![0, 2, 5], vec![0, 2, 5], vec![0, 2, 5], vec![5], vec![5], vec![0, 3, 5]];
    let operands = std::array::from_fn(|i| tensor(case.operands[i].clone(), shapes[i].clone()));
    let portable = portable::backward::<Flex>(operands, tensor(Vec::new(), [0, 5]), &[]).map(Values::new);
    assert_eq!(
        portable.map(|gradient| gradient.f32().to_vec()),
        [vec![], vec![], vec![], vec![0.0; 5], vec![0.0; 5], vec![]]
    );
}

#[test]
fn nan_in_padding_does_not_leak() {
    let case = Case::new(&[3, 5], 6, 9, 1);
    let mut spoilt = case.clone();
    let clean = normal(2, 2 * (6 + 3) * 9);
    let mut weights = clean.clone();
    for (batch, &length) in case.lengths.iter().enumerate() {
        let padding = (batch * 6 + length) * 9..(batch + 1) * 6 * 9;
        spoilt.operands[..3].iter_mut().for_each(|operand| operand[padding.clone()].fill(f32::NAN));
        weights[padding].fill(f32::NAN);
    }
    for device in devices() {
        assert_eq!(case.gradients(&device, &clean), spoilt.gradients(&device, &weights));
    }
}

/// A long text that is read in pieces, each from the state that the last one left.
#[test]
fn in_pieces_as_at_once() {
    let (time, hidden) = (75, 20);
    let case = Case::new(&[time], time, hidden, 4);
    for device in devices() {
        let piece = |from: usize, to: usize, initial| {
            let (inputs, [decay, bonus], _) = case.tensors(&device);
            let part = |x: Tensor<3>| x.slice([0..1, from..to, 0..hidden]);
            let WkvInputs { receptance, key, value } = inputs;
            let inputs = WkvInputs { receptance: part(receptance), key: part(key), value: part(value) };
            let (y, last) = wkv4(inputs, decay, bonus, initial, None);
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
fn a_nan_that_is_read_stays_in_its_sentence_and_channel() {
    let mut case = Case::new(&[4, 4], 4, 10, 6);
    case.operands[1][12] = f32::NAN;
    for level in Level::available() {
        let (packed, _) = cpu::forward(level, &case.wkv(), false);
        for (i, value) in packed[..80].iter().enumerate() {
            let reached = i / 40 == 0 && i % 10 == 2 && i >= 12;
            assert_eq!(value.is_nan(), reached, "{} {i}", level.name());
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case::new(&[50, 60], 60, 200, 8);
    let weights = normal(9, 2 * (60 + 3) * 200);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (packed, kept) = cpu::forward(Level::best(), &case.wkv(), true);
            (gradient::backward(Level::best(), &case.wkv(), &kept, &weights), packed)
        })
    };
    assert_eq!(on(1), on(4));
}
