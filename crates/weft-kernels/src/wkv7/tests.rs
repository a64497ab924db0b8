use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

/// A case in `f32`.
#[derive(Clone)]
struct Case {
    time: usize,
    heads: usize,
    size: usize,
    lengths: Vec<usize>,
    operands: [Vec<f32>; 7],
}

impl Case {
    /// Values as in training: what is read to be replaced has length 1, and replaced is a share of it between 0 and 1.
    fn new(lengths: &[usize], time: usize, heads: usize, size: usize, seed: u64) -> Self {
        let count = lengths.len() * time * heads * size;
        let mut kappa = normal(seed + 4, count);
        for row in kappa.chunks_mut(size) {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= length);
        }
        let share = normal(seed + 5, count).into_iter().map(|x| 1.0 / (1.0 + (-x).exp()));
        let operands = [
            normal(seed, count),
            normal(seed + 1, count).into_iter().map(|x| 2.0 * x - 2.0).collect(),
            normal(seed + 2, count),
            normal(seed + 3, count),
            kappa.iter().map(|x| -x).collect(),
            share.collect(),
            normal(seed + 6, lengths.len() * heads * size * size),
        ];
        Self { time, heads, size, lengths: lengths.to_vec(), operands }
    }

    fn recurrence(&self) -> cpu::Recurrence<'_> {
        let [r, d, k, v, a, rate, initial] = self.operands.each_ref().map(|values| &values[..]);
        let Self { time, heads, size, .. } = *self;
        cpu::Recurrence { time, heads, size, lengths: &self.lengths, r, d, k, v, a, rate, initial }
    }

    fn reference(&self) -> reference::Recurrence {
        let operands = self.operands.each_ref().map(|values| wide(values));
        let Self { time, heads, size, .. } = *self;
        reference::Recurrence { time, heads, size, lengths: self.lengths.clone(), operands }
    }

    /// The equations in straightforward `f32`: what the kernel may be at most twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let Self { time, heads, size, lengths, operands: [r, d, k, v, a, rate, initial] } = self;
        let (time, heads, size) = (*time, *heads, *size);
        let mut outputs = vec![0.0; lengths.len() * time * heads * size];
        let mut last = initial.clone();
        for (row, state) in last.chunks_mut(size * size).enumerate() {
            let (batch, head) = (row / heads, row % heads);
            for t in 0..lengths[batch] {
                let at = ((batch * time + t) * heads + head) * size;
                let replaced: Vec<f32> =
                    (0..size).map(|i| (0..size).map(|j| state[j * size + i] * a[at + j]).sum()).collect();
                for (j, state) in state.chunks_mut(size).enumerate() {
                    let w = (-STEEPEST as f32 / (1.0 + (-d[at + j]).exp())).exp();
                    for (i, s) in state.iter_mut().enumerate() {
                        *s = *s * w + replaced[i] * (-a[at + j] * rate[at + j]) + v[at + i] * k[at + j];
                        outputs[at + i] += r[at + j] * *s;
                    }
                }
            }
        }
        outputs.extend(last);
        outputs
    }

    fn shapes(&self) -> [usize; 4] {
        [self.lengths.len(), self.time, self.heads, self.size]
    }

    /// The result and all gradients of its product with fixed weights, on a device.
    fn gradients(&self, device: &burn::tensor::Device, weights: &[f32]) -> (Vec<f32>, Vec<Vec<f32>>) {
        let device = device.clone().autodiff();
        let [batch, time, heads, size] = self.shapes();
        let inputs: [Tensor<3>; 6] =
            std::array::from_fn(|i| make(&self.operands[i], [batch, time, heads * size], &device).require_grad());
        let initial = make(&self.operands[6], [batch, heads, size, size], &device).require_grad();
        let [r, d, k, v, a, rate] = inputs.clone();
        let (o, last) = wkv7(Wkv7Inputs { r, d, k, v, a, rate }, heads, Some(initial.clone()), Some(&self.lengths));
        let count = batch * time * heads * size;
        let result = [values(o.clone()), values(last.clone())].concat();
        let loss = (o * make(&weights[..count], [batch, time, heads * size], &device)).sum()
            + (last * make(&weights[count..], [batch, heads, size, size], &device)).sum();
        let of = loss.backward();
        let mut gradients: Vec<_> = inputs.iter().map(|input| values(input.grad(&of).unwrap())).collect();
        gradients.push(values(initial.grad(&of).unwrap()));
        (result, gradients)
    }
}

const NAMES: [&str; 7] = ["r", "d", "k", "v", "a", "rate", "initial"];

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in prop::collection::vec(0usize..50, 0..4),
        more in 0usize..3,
        heads in 1usize..4,
        size in 1usize..40,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().max().unwrap_or(&0) + more;
        let case = Case::new(&lengths, time, heads, size, seed);
        let (truth, plain) = (reference::forward(&case.reference()), case.plain());
        for level in Level::available() {
            let (packed, _) = cpu::forward(level, &case.recurrence(), false);
            assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
        }
    }
}

/// The size of heads of published models, over a text that is long.
#[test]
fn long_texts_are_as_exact() {
    let case = Case::new(&[700, 313], 700, 1, 64, 5);
    let (truth, plain) = (reference::forward(&case.reference()), case.plain());
    for level in Level::available() {
        let (packed, _) = cpu::forward(level, &case.recurrence(), false);
        assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (lengths, time, heads, size) in
        [(&[5, 0, 3][..], 6, 2, 3), (&[1], 1, 1, 1), (&[34], 34, 1, 2), (&[0, 0], 0, 2, 2), (&[16, 17], 17, 1, 5)]
    {
        let case = Case::new(lengths, time, heads, size, 7);
        let weights = normal(99, lengths.len() * (time + size) * heads * size);
        let expected: Vec<Vec<f64>> = (0..7)
            .map(|i| {
                finite_differences(&case.reference().operands[i], |moved| {
                    let mut recurrence = case.reference();
                    recurrence.operands[i] = moved.to_vec();
                    reference::forward(&recurrence).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
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
fn every_level_has_the_portable_bodys_results_and_gradients() {
    let case = Case::new(&[40, 33, 7], 41, 2, 37, 3);
    let [batch, time, heads, size] = case.shapes();
    let weights = normal(5, batch * (time + size) * heads * size);
    let operands = || {
        let shapes = std::iter::repeat_n(vec![batch, time, heads * size], 6).chain([vec![batch, heads, size, size]]);
        let made: Vec<_> = case.operands.iter().zip(shapes).map(|(v, shape)| tensor(v.clone(), shape)).collect();
        <Operands<Flex>>::try_from(made).unwrap()
    };
    let result = Values::new(portable::forward::<Flex>(operands(), &case.lengths));
    let gradient = tensor(weights.clone(), [batch * (time + size), heads * size]);
    let portable = portable::backward::<Flex>(operands(), gradient, &case.lengths).map(Values::new);
    for level in Level::available() {
        let (packed, kept) = cpu::forward(level, &case.recurrence(), true);
        assert_gradient(level.name(), &packed, &wide(result.f32()));
        let gradients = gradient::backward(level, &case.recurrence(), &kept, &weights);
        for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
            assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    let case = Case::new(&[3, 20], 21, 2, 9, 1);
    let mut spoilt = case.clone();
    for (batch, &length) in case.lengths.iter().enumerate() {
        for operand in &mut spoilt.operands[..6] {
            operand[(batch * 21 + length) * 18..(batch + 1) * 21 * 18].fill(f32::NAN);
        }
    }
    let weights = normal(2, 2 * (21 + 9) * 18);
    for device in devices() {
        assert_eq!(case.gradients(&device, &weights), spoilt.gradients(&device, &weights));
    }
}

/// Nothing flows backwards in time, within a chunk neither.
#[test]
fn what_is_not_a_number_spoils_only_what_follows() {
    let (time, hidden, at) = (40, 8, 21);
    let case = Case::new(&[time], time, 2, 4, 6);
    for (operand, name) in NAMES.iter().enumerate().take(6) {
        let mut spoilt = case.clone();
        spoilt.operands[operand][at * hidden] = f32::NAN;
        for level in Level::available() {
            let whole = cpu::forward(level, &case.recurrence(), false).0;
            let found = cpu::forward(level, &spoilt.recurrence(), false).0;
            assert_eq!(found[..at * hidden], whole[..at * hidden], "{} {name}", level.name());
            assert!(found[at * hidden..(at + 1) * hidden].iter().any(|value| value.is_nan()));
        }
    }
}

/// A long text that is read in pieces, each from the state that the last one left: whole chunks to the bit.
#[test]
fn in_pieces_as_at_once() {
    let (time, heads, size) = (75, 2, 10);
    let case = Case::new(&[time], time, heads, size, 4);
    for device in devices() {
        let piece = |from: usize, to: usize, initial| {
            let [r, d, k, v, a, rate]: [Tensor<3>; 6] = std::array::from_fn(|i| {
                make(&case.operands[i], [1, time, heads * size], &device).slice([0..1, from..to, 0..heads * size])
            });
            let (o, last) = wkv7(Wkv7Inputs { r, d, k, v, a, rate }, heads, initial, None);
            (values(o), last)
        };
        let (whole, last) = piece(0, time, None);
        for middle in [32, 33] {
            let (first, state) = piece(0, middle, None);
            let (second, end) = piece(middle, time, Some(state));
            let (parts, end) = ([first, second].concat(), values(end));
            if middle == 32 {
                assert_eq!((&whole, values(last.clone())), (&parts, end));
            } else {
                assert_gradient("outputs", &parts, &wide(&whole));
                assert_gradient("state", &end, &wide(&values(last.clone())));
            }
        }
    }
}

/// The steepest decay for a long time, and none.
#[test]
fn extreme_decays_are_exact() {
    let mut case = Case::new(&[100], 100, 2, 8, 6);
    for (i, d) in case.operands[1].iter_mut().enumerate() {
        *d = [-200.0, 200.0, 1e30, -1e30, 90.0, -90.0][i % 6];
    }
    let (truth, plain) = (reference::forward(&case.reference()), case.plain());
    for level in Level::available() {
        let (packed, kept) = cpu::forward(level, &case.recurrence(), true);
        assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
        let gradients = gradient::backward(level, &case.recurrence(), &kept, &vec![1.0; packed.len()]);
        assert!(gradients.iter().flatten().all(|value| value.is_finite()), "{}", level.name());
    }
}

#[test]
fn a_batch_of_nothing_is_nothing() {
    for device in devices() {
        let [r, d, k, v, a, rate] = std::array::from_fn(|_| make(&[], [0, 3, 8], &device));
        let (o, last) = wkv7(Wkv7Inputs { r, d, k, v, a, rate }, 2, None, None);
        assert_eq!((o.dims(), last.dims()), ([0, 3, 8], [0, 2, 4, 4]));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case::new(&[50, 60], 60, 5, 12, 8);
    let weights = normal(9, 2 * (60 + 12) * 60);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (packed, kept) = cpu::forward(Level::best(), &case.recurrence(), true);
            (gradient::backward(Level::best(), &case.recurrence(), &kept, &weights), packed)
        })
    };
    assert_eq!(on(1), on(4));
}
