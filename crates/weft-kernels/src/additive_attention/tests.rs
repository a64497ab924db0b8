use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values as read, wide,
};

#[derive(Clone)]
struct Problem {
    lengths: Vec<usize>,
    sizes: cpu::Sizes,
    query: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    score: Vec<f32>,
}

const NAMES: [&str; 4] = ["query", "keys", "values", "score"];

impl Problem {
    fn new(lengths: &[usize], source_time: usize, query_size: usize, size: usize, seed: u64) -> Self {
        let batch = lengths.len();
        Self {
            lengths: lengths.to_vec(),
            sizes: cpu::Sizes { source_time, query_size, size },
            query: normal(seed, batch * query_size),
            keys: normal(seed + 1, batch * source_time * query_size),
            values: normal(seed + 2, batch * source_time * size),
            score: normal(seed + 3, query_size),
        }
    }

    fn inputs(&self) -> cpu::Inputs<'_> {
        let Self { lengths, query, keys, values, score, .. } = self;
        cpu::Inputs { query, keys, values, score, lengths }
    }

    fn width(&self) -> usize {
        self.sizes.size + self.sizes.source_time
    }

    fn reference<R: crate::recurrent::reference::Real>(
        &self,
        query: &[R],
        keys: &[R],
        values: &[R],
        score: &[R],
    ) -> Vec<R> {
        let cpu::Sizes { source_time, query_size, size } = self.sizes;
        let mut packed = Vec::new();
        for (sentence, &length) in self.lengths.iter().enumerate() {
            let start = sentence * source_time;
            let (context, mut weights) = reference::attend(
                &query[sentence * query_size..(sentence + 1) * query_size],
                &keys[start * query_size..(start + length) * query_size],
                &values[start * size..(start + length) * size],
                score,
                size,
            );
            weights.resize(source_time, R::from(0.0));
            packed.extend(context);
            packed.extend(weights);
        }
        packed
    }

    fn truth(&self) -> Vec<f64> {
        self.reference(&wide(&self.query), &wide(&self.keys), &wide(&self.values), &wide(&self.score))
    }

    fn plain(&self) -> Vec<f32> {
        self.reference(&self.query, &self.keys, &self.values, &self.score)
    }

    fn backward(&self, level: Level, gradient: &[f32]) -> [Vec<f32>; 4] {
        let packed = cpu::forward(level, self.inputs(), self.sizes);
        cpu::backward(level, self.inputs(), self.sizes, &packed, gradient)
    }

    fn portable(&self, gradient: &[f32]) -> (Vec<f32>, [Vec<f32>; 4]) {
        let (batch, cpu::Sizes { source_time, query_size, size }) = (self.lengths.len(), self.sizes);
        let put = |values: &[f32], shape: &[usize]| tensor(values.to_vec(), shape.to_vec());
        let query = put(&self.query, &[batch, query_size]);
        let keys = put(&self.keys, &[batch, source_time, query_size]);
        let values = put(&self.values, &[batch, source_time, size]);
        let score = put(&self.score, &[query_size]);
        let packed =
            portable::forward::<Flex>(query.clone(), keys.clone(), values.clone(), score.clone(), &self.lengths);
        let kept = AdditiveAttentionKept { query, keys, values, score, packed: packed.clone() };
        let gradients = portable::backward::<Flex>(kept, put(gradient, &[batch, self.width()]), &self.lengths);
        (Values::new(packed).f32().to_vec(), gradients.map(|gradient| Values::new(gradient).f32().to_vec()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_kernel_is_exact_on_every_level(
        lengths in proptest::collection::vec(0usize..9, 0..6),
        more in 0usize..2,
        query_size in 1usize..40,
        size in 1usize..70,
        seed in 0u64..1000,
    ) {
        let source_time = lengths.iter().copied().max().unwrap_or(0) + more;
        let problem = Problem::new(&lengths, source_time, query_size, size, seed);
        let (truth, plain) = (problem.truth(), problem.plain());
        let gradient = normal(seed + 9, truth.len());
        let (portable, expected) = problem.portable(&gradient);
        assert_as_exact("portable", &portable, &plain, &truth, 4.0);
        for level in Level::available() {
            let packed = cpu::forward(level, problem.inputs(), problem.sizes);
            assert_as_exact(level.name(), &packed, &plain, &truth, 2.0);
            for ((name, got), expected) in NAMES.iter().zip(problem.backward(level, &gradient)).zip(&expected) {
                assert_gradient(&format!("{} {name}", level.name()), &got, &wide(expected));
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_level_and_in_the_portable_body() {
    for (lengths, source_time, query_size, size) in
        [(vec![3, 0, 1], 3, 5, 4), (vec![2], 4, 1, 1), (vec![5; 3], 5, 19, 3)]
    {
        let problem = Problem::new(&lengths, source_time, query_size, size, 7);
        let gradient = normal(8, problem.truth().len());
        let loss = |query: &[f64], keys: &[f64], values: &[f64], score: &[f64]| -> f64 {
            let packed = problem.reference(query, keys, values, score);
            packed.iter().zip(&gradient).map(|(y, &w)| y * f64::from(w)).sum()
        };
        let (q, k) = (wide(&problem.query), wide(&problem.keys));
        let (v, s) = (wide(&problem.values), wide(&problem.score));
        let expected = [
            finite_differences(&q, |q| loss(q, &k, &v, &s)),
            finite_differences(&k, |k| loss(&q, k, &v, &s)),
            finite_differences(&v, |v| loss(&q, &k, v, &s)),
            finite_differences(&s, |s| loss(&q, &k, &v, s)),
        ];
        let mut bodies = vec![("portable", problem.portable(&gradient).1)];
        bodies.extend(Level::available().into_iter().map(|l| (l.name(), problem.backward(l, &gradient))));
        for (body, gradients) in bodies {
            for ((name, got), expected) in NAMES.iter().zip(&gradients).zip(&expected) {
                assert_gradient(&format!("{lengths:?} {body} {name}"), got, expected);
            }
        }
    }
}

#[test]
fn the_public_function_gives_values_and_gradients_on_every_device() {
    let problem = Problem::new(&[3, 0, 2], 4, 6, 5, 3);
    let gradient = normal(8, problem.truth().len());
    let (_, expected) = problem.portable(&gradient);
    for device in devices() {
        let device = device.autodiff();
        let query = make(&problem.query, [3, 6], &device).require_grad();
        let keys = make(&problem.keys, [3, 4, 6], &device).require_grad();
        let values = make(&problem.values, [3, 4, 5], &device).require_grad();
        let score = make(&problem.score, [6], &device).require_grad();
        let (context, weights) =
            additive_attention(query.clone(), keys.clone(), values.clone(), score.clone(), Some(&[3, 0, 2]));
        let packed = Tensor::cat(vec![context, weights], 1);
        assert_as_exact("packed", &read(packed.clone()), &problem.plain(), &problem.truth(), 4.0);
        let gradients = (packed * make(&gradient, [3, 9], &device)).sum().backward();
        let got = [
            read(query.grad(&gradients).unwrap()),
            read(keys.grad(&gradients).unwrap()),
            read(values.grad(&gradients).unwrap()),
            read(score.grad(&gradients).unwrap()),
        ];
        for ((name, got), expected) in NAMES.iter().zip(got).zip(&expected) {
            assert_gradient(&format!("{device:?} {name}"), &got, &wide(expected));
        }
    }
}

#[test]
fn nan_past_a_length_does_not_leak() {
    let clean = Problem::new(&[2, 0, 3], 4, 9, 7, 11);
    let mut dirty = clean.clone();
    let clean_gradient = normal(12, clean.truth().len());
    let mut gradient = clean_gradient.clone();
    for (sentence, &length) in clean.lengths.iter().enumerate() {
        let (from, to) = (sentence * 4 + length, (sentence + 1) * 4);
        dirty.keys[from * 9..to * 9].fill(f32::NAN);
        dirty.values[from * 7..to * 7].fill(f32::NAN);
        gradient[sentence * 11 + 7 + length..(sentence + 1) * 11].fill(f32::NAN);
    }
    for level in Level::available() {
        let run = |problem: &Problem| cpu::forward(level, problem.inputs(), problem.sizes);
        assert_eq!(run(&clean), run(&dirty), "{}", level.name());
        assert_eq!(clean.backward(level, &clean_gradient), dirty.backward(level, &gradient), "{}", level.name());
    }
    assert_eq!(clean.portable(&clean_gradient), dirty.portable(&gradient), "portable");
}

#[test]
fn an_empty_source_gives_zeros_and_the_number_of_threads_changes_no_bit() {
    let problem = Problem::new(&[0, 7, 2, 9, 0, 5], 9, 33, 20, 5);
    let gradient = normal(6, problem.truth().len());
    let packed = cpu::forward(Level::best(), problem.inputs(), problem.sizes);
    assert!(packed[..problem.width()].iter().all(|&value| value == 0.0));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem.backward(Level::best(), &gradient))
    };
    assert_eq!(on(1), on(3));
}
