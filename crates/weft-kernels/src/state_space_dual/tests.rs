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
    width: usize,
    groups: usize,
    states: usize,
    lengths: Vec<usize>,
    operands: [Vec<f32>; 6],
}

impl Case {
    /// `[heads, width, groups, states]`; values as in training: steps around 0.1, rates from 0.4 to 3.
    fn new(lengths: &[usize], time: usize, [heads, width, groups, states]: [usize; 4], seed: u64) -> Self {
        let batch = lengths.len();
        let (rows, scaled) = (batch * time, |seed, count, scale: f32, shift: f32| -> Vec<f32> {
            normal(seed, count).into_iter().map(|value| value * scale + shift).collect()
        });
        let operands = [
            normal(seed, rows * (heads * width + 2 * groups * states)),
            scaled(seed + 1, rows * heads, 1.0, -1.0),
            scaled(seed + 2, heads, 0.5, 0.0),
            normal(seed + 3, heads),
            scaled(seed + 4, heads, 0.3, -1.0),
            normal(seed + 5, batch * heads * states * width),
        ];
        Self { time, heads, width, groups, states, lengths: lengths.to_vec(), operands }
    }

    fn inner(&self) -> usize {
        self.heads * self.width
    }

    fn columns(&self) -> usize {
        self.inner() + 2 * self.groups * self.states
    }

    /// Values of the packed result.
    fn results(&self) -> usize {
        self.lengths.len() * (self.time + self.states) * self.inner()
    }

    fn scan(&self) -> cpu::Scan<'_> {
        let [xbc, dt, a_log, skip, bias, initial] = self.operands.each_ref().map(|values| &values[..]);
        let &Self { time, heads, width, groups, states, ref lengths, .. } = self;
        cpu::Scan { time, heads, width, groups, states, lengths, xbc, dt, a_log, skip, bias, initial }
    }

    fn reference(&self) -> reference::Scan {
        let operands = self.operands.each_ref().map(|values| wide(values));
        let &Self { time, heads, width, groups, states, ref lengths, .. } = self;
        reference::Scan { time, heads, width, groups, states, lengths: lengths.clone(), operands }
    }

    /// The equations in straightforward `f32`: what the kernel may be at most twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let &Self { time, heads, width, groups, states, .. } = self;
        let [xbc, dt, a_log, skip, bias, initial] = &self.operands;
        let inner = self.inner();
        let mut outputs = vec![0.0; self.lengths.len() * time * inner];
        let mut last = initial.clone();
        for (batch, &length) in self.lengths.iter().enumerate() {
            for (t, head) in (0..length).flat_map(|t| (0..heads).map(move |head| (t, head))) {
                let (row, group) = (batch * time + t, head / (heads / groups));
                let at = |column: usize| xbc[row * self.columns() + column];
                let dt = dt[row * heads + head] + bias[head];
                let step = dt.max(0.0) + (-dt.abs()).exp().ln_1p();
                let decay = (-step * a_log[head].exp()).exp();
                for p in 0..width {
                    let x = at(head * width + p);
                    let mut y = skip[head] * x;
                    for n in 0..states {
                        let s = &mut last[((batch * heads + head) * states + n) * width + p];
                        *s = decay * *s + step * at(inner + group * states + n) * x;
                        y += at(inner + (groups + group) * states + n) * *s;
                    }
                    outputs[row * inner + head * width + p] = y;
                }
            }
        }
        outputs.extend(last);
        outputs
    }

    /// The shapes of the operands.
    fn shapes(&self) -> [Vec<usize>; 6] {
        let &Self { time, heads, width, states, .. } = self;
        let batch = self.lengths.len();
        let of_heads = || vec![heads];
        let xbc = vec![batch, time, self.columns()];
        [xbc, vec![batch, time, heads], of_heads(), of_heads(), of_heads(), vec![batch, heads, states, width]]
    }

    /// The result and all gradients of its product with fixed weights, on a device.
    fn gradients(&self, device: &burn::tensor::Device, weights: &[f32]) -> (Vec<f32>, Vec<Vec<f32>>) {
        let device = device.clone().autodiff();
        let (batch, &Self { time, heads, width, groups, states, .. }) = (self.lengths.len(), self);
        let [xbc, dt] = [(0, self.columns()), (1, heads)]
            .map(|(i, columns)| make(&self.operands[i], [batch, time, columns], &device).require_grad());
        let [a_log, skip, bias] = [2, 3, 4].map(|i| make(&self.operands[i], [heads], &device).require_grad());
        let initial = make(&self.operands[5], [batch, heads, states, width], &device).require_grad();
        let inputs = DualInputs { xbc: xbc.clone(), dt: dt.clone(), groups, states };
        let parameters = DualParameters { a_log: a_log.clone(), skip: skip.clone(), bias: bias.clone() };
        let (y, last) = state_space_dual(inputs, parameters, Some(initial.clone()), Some(&self.lengths));
        let count = batch * time * self.inner();
        let result = [values(y.clone()), values(last.clone())].concat();
        let loss = (y * make(&weights[..count], [batch, time, self.inner()], &device)).sum()
            + (last * make(&weights[count..], [batch, heads, states, width], &device)).sum();
        let of = loss.backward();
        let gradients = vec![
            values(xbc.grad(&of).unwrap()),
            values(dt.grad(&of).unwrap()),
            values(a_log.grad(&of).unwrap()),
            values(skip.grad(&of).unwrap()),
            values(bias.grad(&of).unwrap()),
            values(initial.grad(&of).unwrap()),
        ];
        (result, gradients)
    }
}

const NAMES: [&str; 6] = ["xbc", "dt", "a_log", "skip", "bias", "initial"];

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in prop::collection::vec(0usize..140, 0..4),
        more in 0usize..3,
        groups in 1usize..3,
        heads in 1usize..6,
        width in 1usize..40,
        states in 1usize..40,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().max().unwrap_or(&0) + more;
        let case = Case::new(&lengths, time, [groups * heads, width, groups, states], seed);
        let (truth, plain) = (reference::forward(&case.reference()), case.plain());
        for level in Level::available() {
            let (packed, _) = cpu::forward(level, &case.scan(), false);
            assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (lengths, time, sizes) in [
        (&[5, 0, 3][..], 6, [4, 3, 2, 2]),
        (&[1], 1, [1, 1, 1, 1]),
        (&[66], 66, [2, 2, 1, 3]),
        (&[0, 0], 0, [2, 2, 1, 2]),
        (&[2, 3], 3, [5, 9, 1, 17]),
    ] {
        let case = Case::new(lengths, time, sizes, 7);
        let weights = normal(99, case.results());
        let expected: Vec<Vec<f64>> = (0..6)
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
fn every_level_has_the_portable_bodys_results_and_gradients() {
    for sizes in [[6, 20, 2, 16], [5, 33, 1, 7]] {
        let case = Case::new(&[140, 65, 64, 7], 141, sizes, 3);
        let weights = normal(5, case.results());
        let operands = || {
            let made: Vec<_> =
                case.operands.iter().zip(case.shapes()).map(|(v, shape)| tensor(v.clone(), shape)).collect();
            <Operands<Flex>>::try_from(made).unwrap()
        };
        let rows = case.results() / case.inner();
        let gradient = tensor(weights.clone(), [rows, case.inner()]);
        let packed = Values::new(portable::forward::<Flex>(operands(), case.groups, &case.lengths));
        let portable = portable::backward::<Flex>(operands(), gradient, case.groups, &case.lengths).map(Values::new);
        for level in Level::available() {
            let (got, kept) = cpu::forward(level, &case.scan(), true);
            assert_gradient(level.name(), &got, &wide(packed.f32()));
            let gradients = gradient::backward(level, &case.scan(), &kept, &weights);
            for ((name, got), portable) in NAMES.iter().zip(&gradients).zip(&portable) {
                assert_gradient(&format!("{} {name}", level.name()), got, &wide(portable.f32()));
            }
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    let case = Case::new(&[3, 70], 72, [4, 9, 2, 5], 1);
    let mut spoilt = case.clone();
    for (batch, &length) in case.lengths.iter().enumerate() {
        for (operand, columns) in [(0, case.columns()), (1, case.heads)] {
            spoilt.operands[operand][(batch * 72 + length) * columns..(batch + 1) * 72 * columns].fill(f32::NAN);
        }
    }
    let weights = normal(2, case.results());
    for device in devices() {
        assert_eq!(case.gradients(&device, &weights), spoilt.gradients(&device, &weights));
    }
}

/// A NaN is where it belongs: at its own position and after it, in its own head.
#[test]
fn nan_does_not_flow_backwards() {
    let mut case = Case::new(&[100], 100, [2, 8, 1, 4], 1);
    let columns = case.columns();
    case.operands[0][70 * columns] = f32::NAN;
    let (truth, plain) = (reference::forward(&case.reference()), case.plain());
    for level in Level::available() {
        let (packed, _) = cpu::forward(level, &case.scan(), false);
        assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
    }
}

/// A long text that is read in pieces, each from the state that the last one left.
#[test]
fn in_pieces_as_at_once() {
    let case = Case::new(&[150], 150, [4, 10, 2, 16], 4);
    for device in devices() {
        let piece = |from: usize, to: usize, initial| {
            let part = |i: usize, columns: usize| {
                make(&case.operands[i], [1, 150, columns], &device).slice([0..1, from..to, 0..columns])
            };
            let inputs = DualInputs { xbc: part(0, case.columns()), dt: part(1, 4), groups: 2, states: 16 };
            let [a_log, skip, bias] = [2, 3, 4].map(|i| make(&case.operands[i], [4], &device));
            let (y, last) = state_space_dual(inputs, DualParameters { a_log, skip, bias }, initial, None);
            (values(y), last)
        };
        let (whole, last) = piece(0, 150, None);
        for cut in [1, 33, 64, 149] {
            let (first, state) = piece(0, cut, None);
            let (second, end) = piece(cut, 150, Some(state));
            assert_gradient("outputs", &[first, second].concat(), &wide(&whole));
            assert_gradient("states", &values(end), &wide(&values(last.clone())));
        }
    }
}

/// The running products of decays keep what differences of sums would lose: a position that forgets everything, and
/// after it some that forget little.
#[test]
fn extreme_steps_are_as_exact_and_no_nan() {
    let mut case = Case::new(&[70], 70, [2, 8, 1, 4], 6);
    case.operands[2].fill(1.0);
    for (t, dt) in case.operands[1].chunks_mut(2).enumerate() {
        dt.fill([-200.0, 200.0, 1e30, -1e30, -3.0, -4.0, 0.0][t % 7]);
    }
    // Huge steps make huge values, which would hide all others: nothing enters there.
    let columns = case.columns();
    for (t, row) in case.operands[0].chunks_mut(columns).enumerate() {
        if t % 7 == 2 {
            row[..16].fill(0.0);
        }
    }
    let (truth, plain) = (reference::forward(&case.reference()), case.plain());
    assert!(plain.iter().all(|value| value.is_finite()));
    for level in Level::available() {
        let (packed, kept) = cpu::forward(level, &case.scan(), true);
        assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
        let gradients = gradient::backward(level, &case.scan(), &kept, &normal(3, case.results()));
        assert!(gradients.iter().flatten().all(|value| value.is_finite()), "{}", level.name());
    }
}

#[test]
fn a_sentence_is_the_same_in_any_batch_and_on_any_number_of_threads() {
    let case = Case::new(&[150, 100], 150, [10, 12, 1, 9], 8);
    let weights = normal(9, case.results());
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (packed, kept) = cpu::forward(Level::best(), &case.scan(), true);
            (gradient::backward(Level::best(), &case.scan(), &kept, &weights), packed)
        })
    };
    assert_eq!(on(1), on(4));
    let mut alone = case.clone();
    alone.lengths.truncate(1);
    for operand in [0, 1, 5] {
        let half = alone.operands[operand].len() / 2;
        alone.operands[operand].truncate(half);
    }
    let (packed, _) = cpu::forward(Level::best(), &alone.scan(), false);
    assert_eq!(packed[..150 * 120], on(2).1[..150 * 120]);
}
