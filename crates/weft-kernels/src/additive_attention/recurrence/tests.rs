use proptest::prelude::*;

use super::super::reference;
use super::*;
use crate::recurrent::reference::Real;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values as read, wide,
};

const CELLS: [Cell; 4] = [Cell::Rnn, Cell::Lstm, Cell::Gru { reset_before: false }, Cell::Gru { reset_before: true }];
const NAMES: [&str; 9] =
    ["gates_x", "query_weight", "keys", "values", "score", "context_weight", "weight_hh", "bias_hh", "initial"];

#[derive(Clone)]
struct Problem {
    recurrence: AttentiveRecurrence,
    sizes: cpu::Sizes,
    inputs: reference::Inputs<f32>,
}

/// The inputs in the operation's order.
fn fields<R>(inputs: &reference::Inputs<R>) -> [&Vec<R>; 9] {
    [
        &inputs.gates_x,
        &inputs.query_weight,
        &inputs.keys,
        &inputs.values,
        &inputs.score,
        &inputs.context_weight,
        &inputs.weight_hh,
        &inputs.bias_hh,
        &inputs.initial,
    ]
}

fn from_fields<R>(fields: [Vec<R>; 9]) -> reference::Inputs<R> {
    let [gates_x, query_weight, keys, values, score, context_weight, weight_hh, bias_hh, initial] = fields;
    reference::Inputs { gates_x, query_weight, keys, values, score, context_weight, weight_hh, bias_hh, initial }
}

impl Problem {
    /// `sizes` are target and source time, hidden, query and context sizes.
    fn new(
        cell: Cell,
        source_lengths: &[usize],
        target_lengths: &[usize],
        [time, source_time, hidden, query_size, size]: [usize; 5],
        seed: u64,
    ) -> Self {
        let (batch, columns) = (target_lengths.len(), cell.gates() * hidden);
        let scaled = |seed: u64, count: usize, scale: f32| -> Vec<f32> {
            normal(seed, count).iter().map(|value| value * scale).collect()
        };
        let (of_hidden, of_size) = (1.0 / (hidden as f32).sqrt(), 1.0 / (size as f32).sqrt());
        Self {
            recurrence: AttentiveRecurrence {
                cell,
                source_lengths: source_lengths.to_vec(),
                target_lengths: target_lengths.to_vec(),
            },
            sizes: cpu::Sizes { time, hidden, source_time, query_size, size },
            inputs: from_fields([
                normal(seed, batch * time * columns),
                scaled(seed + 1, hidden * query_size, of_hidden),
                normal(seed + 2, batch * source_time * query_size),
                normal(seed + 3, batch * source_time * size),
                normal(seed + 4, query_size),
                scaled(seed + 5, size * columns, of_size),
                scaled(seed + 6, hidden * columns, of_hidden),
                scaled(seed + 7, columns, 0.3),
                normal(seed + 8, cell.states() * batch * hidden),
            ]),
        }
    }

    fn batch(&self) -> usize {
        self.recurrence.target_lengths.len()
    }

    fn reference<R: Real>(&self, inputs: &reference::Inputs<R>) -> (Vec<R>, Vec<R>) {
        let AttentiveRecurrence { cell, source_lengths, target_lengths } = &self.recurrence;
        let cpu::Sizes { time, hidden, source_time, query_size, size } = self.sizes;
        reference::recurrence(
            *cell,
            inputs,
            source_lengths,
            target_lengths,
            [time, hidden, source_time, query_size, size],
        )
    }

    fn truth(&self) -> (Vec<f64>, Vec<f64>) {
        self.reference(&from_fields(fields(&self.inputs).map(|field| wide(field))))
    }

    fn weights(&self) -> cpu::Weights<'_> {
        cpu::Weights {
            query: &self.inputs.query_weight,
            keys: &self.inputs.keys,
            values: &self.inputs.values,
            score: &self.inputs.score,
            context: &self.inputs.context_weight,
        }
    }

    fn forward(&self, level: Level, keep: bool) -> [Vec<f32>; 4] {
        let inputs = cpu::Inputs {
            gates_x: &self.inputs.gates_x,
            weight: &self.inputs.weight_hh,
            bias: &self.inputs.bias_hh,
            initial: &self.inputs.initial,
        };
        cpu::forward(level, &self.recurrence, self.sizes, self.weights(), inputs, keep)
    }

    fn backward(&self, level: Level, gradient: &[f32]) -> [Vec<f32>; 9] {
        let [packed, weights, activations, queries] = &self.forward(level, true);
        let forward = cpu::Forward { packed, weights, activations, queries };
        let (weight, initial) = (&self.inputs.weight_hh, &self.inputs.initial);
        cpu::backward(level, &self.recurrence, self.sizes, self.weights(), weight, initial, forward, gradient)
    }

    fn shapes(&self) -> [Vec<usize>; 9] {
        let cpu::Sizes { time, hidden, source_time, query_size, size } = self.sizes;
        let (batch, cell) = (self.batch(), self.recurrence.cell);
        let columns = cell.gates() * hidden;
        [
            vec![batch, time, columns],
            vec![hidden, query_size],
            vec![batch, source_time, query_size],
            vec![batch, source_time, size],
            vec![query_size],
            vec![size, columns],
            vec![hidden, columns],
            vec![columns],
            vec![cell.states() * batch, hidden],
        ]
    }

    fn portable(&self, gradient: &[f32]) -> ([Vec<f32>; 2], [Vec<f32>; 9]) {
        let tensors = tensor_all(fields(&self.inputs).map(Clone::clone), self.shapes());
        let [gates_x, query_weight, keys, values, score, context_weight, weight_hh, bias_hh, initial] = tensors;
        let tensors = AttentiveTensors::<Flex> {
            gates_x,
            query_weight,
            keys,
            values,
            score,
            context_weight,
            weight_hh,
            bias_hh,
            initial,
        };
        let forward = portable::forward::<Flex>(tensors.clone(), &self.recurrence);
        let read = |tensor| Values::new(tensor).f32().to_vec();
        let results = [read(forward.packed.clone()), read(forward.weights.clone())];
        let kept = AttentiveKept {
            query_weight: tensors.query_weight,
            keys: tensors.keys,
            values: tensors.values,
            score: tensors.score,
            context_weight: tensors.context_weight,
            weight_hh: tensors.weight_hh,
            initial: tensors.initial,
            forward,
        };
        let gradient = tensor(gradient.to_vec(), [gradient.len()]);
        (results, portable::backward::<Flex>(kept, gradient, &self.recurrence).map(read))
    }

    /// The part of a row-major tensor that belongs to one sentence.
    fn rows(values: &[f32], batch: usize, sentence: usize) -> Vec<f32> {
        let width = values.len() / batch;
        values[sentence * width..(sentence + 1) * width].to_vec()
    }

    /// The part of stacked states that belongs to one sentence.
    fn states(&self, states: &[f32], sentence: usize) -> Vec<f32> {
        let parts = states.chunks(self.batch() * self.sizes.hidden);
        parts.flat_map(|part| Self::rows(part, self.batch(), sentence)).collect()
    }

    /// The part of a packed result that belongs to one sentence.
    fn part(&self, packed: &[f32], sentence: usize) -> Vec<f32> {
        let (outputs, rest) = packed.split_at(self.batch() * self.sizes.time * self.sizes.hidden);
        let (states, contexts) = rest.split_at(self.inputs.initial.len());
        let mut part = Self::rows(outputs, self.batch(), sentence);
        part.extend(self.states(states, sentence));
        part.extend(Self::rows(contexts, self.batch(), sentence));
        part
    }

    /// One sentence alone.
    fn alone(&self, sentence: usize) -> Self {
        let AttentiveRecurrence { cell, source_lengths, target_lengths } = &self.recurrence;
        let rows = |values: &[f32]| Self::rows(values, self.batch(), sentence);
        Self {
            recurrence: AttentiveRecurrence {
                cell: *cell,
                source_lengths: vec![source_lengths[sentence]],
                target_lengths: vec![target_lengths[sentence]],
            },
            sizes: self.sizes,
            inputs: reference::Inputs {
                gates_x: rows(&self.inputs.gates_x),
                keys: rows(&self.inputs.keys),
                values: rows(&self.inputs.values),
                initial: self.states(&self.inputs.initial, sentence),
                ..self.inputs.clone()
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_kernel_is_exact_on_every_level(
        cell in 0usize..4,
        lengths in proptest::collection::vec((0usize..5, 0usize..5), 0..7),
        sizes in [1usize..40, 1usize..40, 1usize..40],
        more in 0usize..2,
        seed in 0u64..1000,
    ) {
        let (source, target): (Vec<_>, Vec<_>) = lengths.into_iter().unzip();
        let longest = |lengths: &[usize]| lengths.iter().copied().max().unwrap_or(0) + more;
        let sizes = [longest(&target), longest(&source), sizes[0], sizes[1], sizes[2]];
        let problem = Problem::new(CELLS[cell], &source, &target, sizes, seed);
        let (truth, true_weights) = problem.truth();
        let (plain, plain_weights) = problem.reference(&problem.inputs);
        let gradient = normal(seed + 9, truth.len());
        let ([packed, weights], expected) = problem.portable(&gradient);
        assert_as_exact("portable", &packed, &plain, &truth, 4.0);
        assert_as_exact("portable weights", &weights, &plain_weights, &true_weights, 4.0);
        for level in Level::available() {
            let [packed, weights, ..] = problem.forward(level, false);
            assert_as_exact(level.name(), &packed, &plain, &truth, 3.0);
            assert_as_exact(level.name(), &weights, &plain_weights, &true_weights, 3.0);
            for ((name, got), expected) in NAMES.iter().zip(problem.backward(level, &gradient)).zip(&expected) {
                assert_gradient(&format!("{} {name}", level.name()), &got, &wide(expected));
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_level_and_in_the_portable_body() {
    for cell in CELLS {
        let cases: [(&[usize], &[usize], [usize; 5]); 3] = [
            (&[3, 0, 1], &[2, 2, 3], [3, 3, 4, 3, 5]),
            (&[2, 2], &[0, 1], [2, 2, 3, 2, 2]),
            (&[2; 7], &[2; 7], [2, 2, 2, 3, 2]),
        ];
        for (source, target, sizes) in cases {
            let problem = Problem::new(cell, source, target, sizes, 7);
            let gradient = normal(8, problem.truth().0.len());
            let inputs = fields(&problem.inputs).map(|field| wide(field));
            let mut bodies = vec![("portable", problem.portable(&gradient).1)];
            bodies.extend(Level::available().into_iter().map(|l| (l.name(), problem.backward(l, &gradient))));
            for (index, name) in NAMES.iter().enumerate() {
                let expected = finite_differences(&inputs[index], |moved| {
                    let mut inputs = inputs.clone();
                    inputs[index] = moved.to_vec();
                    let (packed, _) = problem.reference(&from_fields(inputs));
                    packed.iter().zip(&gradient).map(|(y, &w)| y * f64::from(w)).sum()
                });
                for (body, gradients) in &bodies {
                    assert_gradient(&format!("{cell:?} {source:?} {body} {name}"), &gradients[index], &expected);
                }
            }
        }
    }
}

#[test]
fn the_public_function_gives_values_and_gradients_on_every_device() {
    for cell in CELLS {
        let (source, target) = ([3, 0, 2], [1, 2, 0]);
        let problem = Problem::new(cell, &source, &target, [2, 3, 6, 4, 5], 3);
        let (batch, time, hidden, size) = (3, 2, 6, 5);
        let (truth, true_weights) = problem.truth();
        let gradient = normal(8, truth.len());
        let (_, expected) = problem.portable(&gradient);
        for device in devices() {
            let device = device.autodiff();
            let shapes = problem.shapes();
            let two = |index: usize| {
                let shape = [shapes[index][0], shapes[index][1]];
                make(fields(&problem.inputs)[index], shape, &device).require_grad()
            };
            let three = |index: usize| {
                let shape = [shapes[index][0], shapes[index][1], shapes[index][2]];
                make(fields(&problem.inputs)[index], shape, &device).require_grad()
            };
            let one = |index: usize| make(fields(&problem.inputs)[index], [shapes[index][0]], &device).require_grad();
            let initial = two(8);
            let inputs = AttentiveInputs {
                gates_x: three(0),
                query_weight: two(1),
                keys: three(2),
                values: three(3),
                score: one(4),
                context_weight: two(5),
                weight_hh: two(6),
                bias_hh: Some(one(7)),
                initial: Some(RecurrentState::split(cell, initial.clone())),
            };
            let outputs = attentive_recurrence(cell, inputs.clone(), Some(&source), Some(&target));
            let last = std::iter::once(outputs.last.hidden).chain(outputs.last.cell);
            let mut parts = vec![outputs.states.reshape([batch * time * hidden])];
            parts.extend(last.map(|state| state.reshape([batch * hidden])));
            parts.push(outputs.contexts.reshape([batch * time * size]));
            let packed = Tensor::cat(parts, 0);
            let (plain, plain_weights) = problem.reference(&problem.inputs);
            assert_as_exact(&format!("{cell:?}"), &read(packed.clone()), &plain, &truth, 4.0);
            assert_as_exact(&format!("{cell:?}"), &read(outputs.weights), &plain_weights, &true_weights, 4.0);
            let gradients = (packed * make(&gradient, [gradient.len()], &device)).sum().backward();
            let got = [
                read(inputs.gates_x.grad(&gradients).unwrap()),
                read(inputs.query_weight.grad(&gradients).unwrap()),
                read(inputs.keys.grad(&gradients).unwrap()),
                read(inputs.values.grad(&gradients).unwrap()),
                read(inputs.score.grad(&gradients).unwrap()),
                read(inputs.context_weight.grad(&gradients).unwrap()),
                read(inputs.weight_hh.grad(&gradients).unwrap()),
                read(inputs.bias_hh.unwrap().grad(&gradients).unwrap()),
                read(initial.grad(&gradients).unwrap()),
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
        let (source, target) = ([4, 0, 7, 1, 7, 5, 3, 7], [3, 4, 6, 0, 1, 6, 6, 2]);
        let problem = Problem::new(cell, &source, &target, [6, 7, 37, 21, 18], 5);
        for level in Level::available() {
            let [packed, weights, ..] = problem.forward(level, true);
            let gradient = normal(6, packed.len());
            let gradients = problem.backward(level, &gradient);
            let mut sums: Vec<_> = gradients.iter().map(|gradient| vec![0.0; gradient.len()]).collect();
            for sentence in 0..source.len() {
                let name = format!("{cell:?} {} sentence {sentence}", level.name());
                let alone = problem.alone(sentence);
                let [own, own_weights, ..] = alone.forward(level, false);
                assert_eq!(own, problem.part(&packed, sentence), "{name}");
                assert_eq!(own_weights, Problem::rows(&weights, source.len(), sentence), "{name} weights");
                let own = alone.backward(level, &problem.part(&gradient, sentence));
                for index in [0, 2, 3] {
                    let part = Problem::rows(&gradients[index], source.len(), sentence);
                    assert_eq!(own[index], part, "{name} {}", NAMES[index]);
                }
                assert_eq!(own[8], problem.states(&gradients[8], sentence), "{name} initial");
                for (sum, own) in sums.iter_mut().zip(&own) {
                    sum.iter_mut().zip(own).for_each(|(sum, &own)| *sum += f64::from(own));
                }
            }
            for index in [1, 4, 5, 6, 7] {
                assert_gradient(&format!("{cell:?} {}", NAMES[index]), &gradients[index], &sums[index]);
            }
        }
    }
}

#[test]
fn nan_in_padding_does_not_leak() {
    for cell in CELLS {
        let (source, target) = ([2, 0, 3], [3, 2, 0]);
        let clean = Problem::new(cell, &source, &target, [4, 4, 9, 5, 7], 11);
        let mut dirty = clean.clone();
        let columns = cell.gates() * 9;
        let clean_gradient = normal(12, clean.truth().0.len());
        let mut gradient = clean_gradient.clone();
        let contexts = gradient.len() - 3 * 4 * 7;
        for sentence in 0..3 {
            let (from, to) = (sentence * 4 + target[sentence], (sentence + 1) * 4);
            dirty.inputs.gates_x[from * columns..to * columns].fill(f32::NAN);
            gradient[from * 9..to * 9].fill(f32::NAN);
            gradient[contexts + from * 7..contexts + to * 7].fill(f32::NAN);
            let from = sentence * 4 + source[sentence];
            dirty.inputs.keys[from * 5..to * 5].fill(f32::NAN);
            dirty.inputs.values[from * 7..to * 7].fill(f32::NAN);
        }
        for level in Level::available() {
            let (clean_results, results) = (clean.forward(level, false), dirty.forward(level, false));
            assert_eq!(clean_results, results, "{cell:?} {}", level.name());
            let gradients = (clean.backward(level, &clean_gradient), dirty.backward(level, &gradient));
            assert_eq!(gradients.0, gradients.1, "{cell:?} {}", level.name());
        }
        assert_eq!(clean.portable(&clean_gradient), dirty.portable(&gradient), "{cell:?} portable");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for cell in CELLS {
        let (source, target) = ([9, 12, 3, 12, 7, 12, 10, 1], [20, 13, 20, 5, 20, 18, 19, 20]);
        let problem = Problem::new(cell, &source, &target, [20, 12, 90, 70, 100], 17);
        let gradient = normal(18, problem.truth().0.len());
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (problem.forward(Level::best(), false), problem.backward(Level::best(), &gradient)))
        };
        assert_eq!(on(1), on(2), "{cell:?}");
        assert_eq!(on(1), on(5), "{cell:?}");
    }
}

#[test]
#[should_panic(expected = "attentive_recurrence: context_weight for values [1, 3, 5]")]
fn shapes_that_do_not_fit_are_named() {
    let device = devices().remove(0);
    let inputs = AttentiveInputs {
        gates_x: Tensor::zeros([1, 2, 4], &device),
        query_weight: Tensor::zeros([4, 2], &device),
        keys: Tensor::zeros([1, 3, 2], &device),
        values: Tensor::zeros([1, 3, 5], &device),
        score: Tensor::zeros([2], &device),
        context_weight: Tensor::zeros([4, 4], &device),
        weight_hh: Tensor::zeros([4, 4], &device),
        bias_hh: None,
        initial: None,
    };
    attentive_recurrence(Cell::Rnn, inputs, None, None);
}
