use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const CELLS: [Cell; 4] = [Cell::Rnn, Cell::Lstm, Cell::Gru { reset_before: false }, Cell::Gru { reset_before: true }];

/// A layer's inputs, scaled so that the states neither vanish nor saturate.
#[derive(Clone)]
struct Problem {
    recurrence: Recurrence,
    time: usize,
    hidden: usize,
    gates_x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    initial: Vec<f32>,
}

impl Problem {
    fn new(cell: Cell, lengths: &[usize], time: usize, hidden: usize, reverse: bool, seed: u64) -> Self {
        let (batch, columns) = (lengths.len(), cell.gates() * hidden);
        let scale = 1.0 / (hidden as f32).sqrt();
        Self {
            recurrence: Recurrence { cell, lengths: lengths.to_vec(), reverse },
            time,
            hidden,
            gates_x: normal(seed, batch * time * columns),
            weight: normal(seed + 1, hidden * columns).iter().map(|w| w * scale).collect(),
            bias: normal(seed + 2, columns).iter().map(|b| 0.3 * b).collect(),
            initial: normal(seed + 3, cell.states() * batch * hidden),
        }
    }

    fn batch(&self) -> usize {
        self.recurrence.lengths.len()
    }

    fn columns(&self) -> usize {
        self.recurrence.cell.gates() * self.hidden
    }

    fn inputs(&self) -> cpu::Inputs<'_> {
        cpu::Inputs { gates_x: &self.gates_x, weight: &self.weight, bias: &self.bias, initial: &self.initial }
    }

    fn reference<R: reference::Real>(&self, gates_x: &[R], weight: &[R], bias: &[R], initial: &[R]) -> Vec<R> {
        let Recurrence { cell, lengths, reverse } = &self.recurrence;
        reference::forward(*cell, lengths, *reverse, [self.time, self.hidden], gates_x, weight, bias, initial)
    }

    fn truth(&self) -> Vec<f64> {
        self.reference(&wide(&self.gates_x), &wide(&self.weight), &wide(&self.bias), &wide(&self.initial))
    }

    fn forward(&self, level: Level) -> (Vec<f32>, Vec<f32>) {
        cpu::forward(level, &self.recurrence, [self.time, self.hidden], self.inputs(), cpu::NoContext, true)
    }

    fn backward(&self, level: Level, gradient: &[f32]) -> [Vec<f32>; 4] {
        let (packed, activations) = self.forward(level);
        let results = cpu::Results { packed: &packed, activations: &activations };
        let sizes = [self.time, self.hidden];
        cpu::backward(level, &self.recurrence, sizes, &self.weight, &self.initial, results, gradient, cpu::NoContext)
    }

    fn portable(&self, gradient: &[f32]) -> (Vec<f32>, [Vec<f32>; 4]) {
        let put = |values: &[f32], shape: &[usize]| tensor(values.to_vec(), shape.to_vec());
        let weight = || put(&self.weight, &[self.hidden, self.columns()]);
        let initial = || put(&self.initial, &[self.initial.len() / self.hidden, self.hidden]);
        let gates_x = put(&self.gates_x, &[self.batch(), self.time, self.columns()]);
        let bias = put(&self.bias, &[self.columns()]);
        let (packed, activations) = portable::forward::<Flex>(gates_x, weight(), bias, initial(), &self.recurrence);
        let kept = Kept { weight_hh: weight(), initial: initial(), packed: packed.clone(), activations };
        let gradient = put(gradient, &[gradient.len() / self.hidden, self.hidden]);
        let gradients = portable::backward::<Flex>(kept, gradient, &self.recurrence);
        (Values::new(packed).f32().to_vec(), gradients.map(|gradient| Values::new(gradient).f32().to_vec()))
    }

    /// One sentence alone, at the same width of padding.
    fn alone(&self, sentence: usize) -> Self {
        let rows = self.time * self.columns();
        let states = self.initial.chunks(self.batch() * self.hidden);
        Self {
            recurrence: Recurrence { lengths: vec![self.recurrence.lengths[sentence]], ..self.recurrence },
            gates_x: self.gates_x[sentence * rows..(sentence + 1) * rows].to_vec(),
            initial: states.flat_map(|s| s[sentence * self.hidden..(sentence + 1) * self.hidden].to_vec()).collect(),
            ..self.clone()
        }
    }

    /// A packed tensor's part that belongs to one sentence.
    fn part(&self, packed: &[f32], sentence: usize) -> Vec<f32> {
        let (outputs, states) = packed.split_at(self.batch() * self.time * self.hidden);
        let mut part = outputs[sentence * self.time * self.hidden..(sentence + 1) * self.time * self.hidden].to_vec();
        for states in states.chunks(self.batch() * self.hidden) {
            part.extend_from_slice(&states[sentence * self.hidden..(sentence + 1) * self.hidden]);
        }
        part
    }
}

const NAMES: [&str; 4] = ["gates_x", "weight_hh", "bias_hh", "initial"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_kernel_is_exact_on_every_level(
        cell in 0usize..4,
        lengths in proptest::collection::vec(0usize..6, 0..8),
        more in 0usize..2,
        hidden in 1usize..75,
        reverse: bool,
        seed in 0u64..1000,
    ) {
        let time = lengths.iter().copied().max().unwrap_or(0) + more;
        let problem = Problem::new(CELLS[cell], &lengths, time, hidden, reverse, seed);
        let truth = problem.truth();
        let plain = problem.reference(&problem.gates_x, &problem.weight, &problem.bias, &problem.initial);
        let gradient = normal(seed + 9, truth.len());
        let (portable, expected) = problem.portable(&gradient);
        assert_as_exact("portable", &portable, &plain, &truth, 4.0);
        for level in Level::available() {
            assert_as_exact(level.name(), &problem.forward(level).0, &plain, &truth, 2.0);
            for ((name, got), expected) in NAMES.iter().zip(problem.backward(level, &gradient)).zip(&expected) {
                assert_gradient(&format!("{} {name}", level.name()), &got, &wide(expected));
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_level_and_in_the_portable_body() {
    for cell in CELLS {
        for (lengths, time, hidden, reverse) in
            [(vec![3, 0, 1], 3, 5, false), (vec![2, 4], 4, 3, true), (vec![1], 1, 1, false), (vec![2; 9], 2, 2, false)]
        {
            let problem = Problem::new(cell, &lengths, time, hidden, reverse, 7);
            let gradient = normal(8, problem.truth().len());
            let loss = |gates_x: &[f64], weight: &[f64], bias: &[f64], initial: &[f64]| -> f64 {
                let packed = problem.reference(gates_x, weight, bias, initial);
                packed.iter().zip(&gradient).map(|(y, &w)| y * f64::from(w)).sum()
            };
            let (x, w) = (wide(&problem.gates_x), wide(&problem.weight));
            let (b, s) = (wide(&problem.bias), wide(&problem.initial));
            let expected = [
                finite_differences(&x, |x| loss(x, &w, &b, &s)),
                finite_differences(&w, |w| loss(&x, w, &b, &s)),
                finite_differences(&b, |b| loss(&x, &w, b, &s)),
                finite_differences(&s, |s| loss(&x, &w, &b, s)),
            ];
            let mut bodies = vec![("portable", problem.portable(&gradient).1)];
            bodies.extend(Level::available().into_iter().map(|l| (l.name(), problem.backward(l, &gradient))));
            for (body, gradients) in bodies {
                for ((name, got), expected) in NAMES.iter().zip(&gradients).zip(&expected) {
                    assert_gradient(&format!("{cell:?} {lengths:?} {body} {name}"), got, expected);
                }
            }
        }
    }
}

#[test]
fn the_public_function_gives_values_and_gradients_on_every_device() {
    for cell in CELLS {
        let problem = Problem::new(cell, &[3, 0, 2], 4, 6, true, 3);
        let (batch, time, hidden, columns) = (3, 4, 6, problem.columns());
        let gradient = normal(8, problem.truth().len());
        let (_, expected) = problem.portable(&gradient);
        for device in devices() {
            let device = device.autodiff();
            let gates_x = make(&problem.gates_x, [batch, time, columns], &device).require_grad();
            let weight = make(&problem.weight, [hidden, columns], &device).require_grad();
            let bias = make(&problem.bias, [columns], &device).require_grad();
            let states: Vec<Tensor<2>> = problem
                .initial
                .chunks(batch * hidden)
                .map(|state| make(state, [batch, hidden], &device).require_grad())
                .collect();
            let initial = RecurrentState { hidden: states[0].clone(), cell: states.get(1).cloned() };
            let (outputs, last) = recurrent(
                cell,
                gates_x.clone(),
                weight.clone(),
                Some(bias.clone()),
                Some(initial),
                Some(&[3, 0, 2]),
                true,
            );
            let mut packed = values(outputs.clone());
            packed.extend(values(last.hidden.clone()));
            packed.extend(last.cell.clone().map(values).unwrap_or_default());
            let plain = problem.reference(&problem.gates_x, &problem.weight, &problem.bias, &problem.initial);
            assert_as_exact(&format!("{cell:?}"), &packed, &plain, &problem.truth(), 4.0);

            let split = batch * time * hidden;
            let mut loss = (outputs * make(&gradient[..split], [batch, time, hidden], &device)).sum();
            let last = std::iter::once(last.hidden).chain(last.cell);
            for (last, gradient) in last.zip(gradient[split..].chunks(batch * hidden)) {
                loss = loss + (last * make(gradient, [batch, hidden], &device)).sum();
            }
            let gradients = loss.backward();
            let initial = states.iter().flat_map(|state| values(state.grad(&gradients).unwrap())).collect();
            let got = [
                values(gates_x.grad(&gradients).unwrap()),
                values(weight.grad(&gradients).unwrap()),
                values(bias.grad(&gradients).unwrap()),
                initial,
            ];
            for ((name, got), expected) in NAMES.iter().zip(got).zip(&expected) {
                assert_gradient(&format!("{cell:?} {device:?} {name}"), &got, &wide(expected));
            }
        }
    }
}

#[test]
fn a_ragged_batch_equals_its_sentences_one_by_one_bit_for_bit() {
    for cell in CELLS {
        for reverse in [false, true] {
            let lengths = [4, 0, 7, 1, 7, 5, 2, 6, 3, 7, 7];
            let problem = Problem::new(cell, &lengths, 8, 37, reverse, 5);
            for level in Level::available() {
                let (packed, _) = problem.forward(level);
                let gradient = normal(6, packed.len());
                let [dgates_x, dweight, dbias, dinitial] = problem.backward(level, &gradient);
                let (mut weights, mut biases) = (vec![0.0; dweight.len()], vec![0.0; dbias.len()]);
                let rows = problem.time * problem.columns();
                for sentence in 0..lengths.len() {
                    let alone = problem.alone(sentence);
                    let name = format!("{cell:?} {} sentence {sentence}", level.name());
                    assert_eq!(alone.forward(level).0, problem.part(&packed, sentence), "{name}");
                    let [x, w, b, s] = alone.backward(level, &problem.part(&gradient, sentence));
                    assert_eq!(x, dgates_x[sentence * rows..(sentence + 1) * rows], "{name}");
                    // The initial states' gradients as a packed tensor of time 0.
                    let states = Problem { time: 0, ..problem.clone() }.part(&dinitial, sentence);
                    assert_eq!(s, states, "{name}");
                    weights.iter_mut().zip(w).for_each(|(sum, w)| *sum += f64::from(w));
                    biases.iter_mut().zip(b).for_each(|(sum, b)| *sum += f64::from(b));
                }
                assert_gradient(&format!("{cell:?} weights"), &dweight, &weights);
                assert_gradient(&format!("{cell:?} biases"), &dbias, &biases);
            }
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    for cell in CELLS {
        for reverse in [false, true] {
            let clean = Problem::new(cell, &[2, 0, 3], 4, 9, reverse, 11);
            let mut dirty = clean.clone();
            let mut gradient = normal(12, clean.truth().len());
            let clean_gradient = gradient.clone();
            for (sentence, &length) in clean.recurrence.lengths.iter().enumerate() {
                let (from, to) = (sentence * 4 + length, (sentence + 1) * 4);
                dirty.gates_x[from * clean.columns()..to * clean.columns()].fill(f32::NAN);
                gradient[from * 9..to * 9].fill(f32::NAN);
            }
            for level in Level::available() {
                assert_eq!(clean.forward(level).0, dirty.forward(level).0, "{cell:?} {}", level.name());
                let backward = (clean.backward(level, &clean_gradient), dirty.backward(level, &gradient));
                assert_eq!(backward.0, backward.1, "{cell:?} {}", level.name());
            }
            assert_eq!(clean.portable(&clean_gradient), dirty.portable(&gradient), "{cell:?} portable");
        }
    }
}

#[test]
fn nan_in_a_sentence_stays_in_it() {
    for cell in CELLS {
        let mut problem = Problem::new(cell, &[3, 3], 3, 20, false, 13);
        let clean = problem.clone();
        let row = problem.columns();
        problem.gates_x[row..row + 20].fill(f32::NAN);
        for level in Level::available() {
            let (packed, _) = problem.forward(level);
            let (first, second) = (problem.part(&packed, 0), problem.part(&packed, 1));
            assert!(first[..20].iter().all(|h| h.is_finite()) && first[40..60].iter().all(|h| h.is_nan()), "{cell:?}");
            assert_eq!(second, clean.part(&clean.forward(level).0, 1), "{cell:?}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for cell in CELLS {
        // Large enough for more than one worker, and for two parts of the weights' gradient.
        let problem =
            Problem::new(cell, &[40, 33, 21, 40, 8, 40, 40, 39, 40, 40, 40, 40, 40, 40, 40], 40, 100, false, 17);
        let gradient = normal(18, 15 * 40 * 100 + cell.states() * 15 * 100);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (problem.forward(Level::best()).0, problem.backward(Level::best(), &gradient)))
        };
        assert_eq!(on(1), on(2), "{cell:?}");
        assert_eq!(on(1), on(5), "{cell:?}");
    }
}

#[test]
fn no_sentence_and_no_time_give_the_initial_states_back() {
    for cell in CELLS {
        for (lengths, time) in [(vec![], 3), (vec![0, 0], 0), (vec![0, 0], 2)] {
            let problem = Problem::new(cell, &lengths, time, 4, false, 19);
            let expected = problem.truth();
            let gradient = normal(20, expected.len());
            let (portable, _) = problem.portable(&gradient);
            for level in Level::available() {
                assert_eq!(wide(&problem.forward(level).0), expected, "{cell:?}");
                assert_eq!(problem.backward(level, &gradient)[3], gradient[lengths.len() * time * 4..], "{cell:?}");
            }
            assert_eq!(wide(&portable), expected, "{cell:?}");
        }
    }
}

#[test]
#[should_panic(expected = "recurrent: gates_x is [1, 2, 12]")]
fn shapes_that_do_not_fit_are_named() {
    let device = devices().remove(0);
    let zeros = |shape| Tensor::<3>::zeros(shape, &device);
    recurrent(Cell::Lstm, zeros([1, 2, 12]), Tensor::zeros([4, 16], &device), None, None, None, false);
}
