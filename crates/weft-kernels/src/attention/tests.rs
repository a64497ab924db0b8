use burn::backend::Flex;
use burn::tensor::{Device, TensorData};
use burn_flex::FlexTensor;
use proptest::prelude::*;

use super::cpu::{Call, Saved, Sizes};
use super::memory::Operand;
use super::reference::{Inputs, plain, truth};
use super::*;
use crate::simd::Level;
use crate::testing::{assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor, values, wide};

/// One call on plain slices: `q` `[batch, q_time, hidden]`, `kv` `[batch, k_time, 2 * hidden]`.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    q_time: usize,
    k_time: usize,
    head_dim: usize,
    settings: AttentionSettings,
    seed: u64,
}

impl Case {
    fn new(batch: usize, [q_time, k_time]: [usize; 2], num_heads: usize, head_dim: usize, causal: bool) -> Self {
        let settings =
            AttentionSettings { num_heads, causal, dropout: Dropout::NONE, query_lengths: None, key_lengths: None };
        Self { batch, q_time, k_time, head_dim, settings, seed: 1 }
    }

    fn lengths(mut self, queries: &[usize], keys: &[usize]) -> Self {
        self.settings.query_lengths = Some(queries.to_vec());
        self.settings.key_lengths = Some(keys.to_vec());
        self
    }

    fn dropout(mut self, probability: f32) -> Self {
        self.settings.dropout = Dropout::new(probability, 5);
        self
    }

    fn hidden(&self) -> usize {
        self.settings.num_heads * self.head_dim
    }

    /// q, kv and the gradient of the result.
    fn data(&self) -> [Vec<f32>; 3] {
        let (q, k) = (self.batch * self.q_time * self.hidden(), self.batch * self.k_time * self.hidden());
        [normal(self.seed, q), normal(self.seed + 1, 2 * k), normal(self.seed + 2, q)]
    }

    fn call<'a>(&'a self, q: &'a [f32], kv: &'a [f32]) -> Call<'a> {
        let operand =
            |data, offset, time, width| Operand { data, offset, batch_stride: time * width, time_stride: width };
        let hidden = self.hidden();
        Call {
            q: operand(q, 0, self.q_time, hidden),
            k: operand(kv, 0, self.k_time, 2 * hidden),
            v: operand(kv, hidden, self.k_time, 2 * hidden),
            sizes: Sizes { batch: self.batch, q_time: self.q_time, k_time: self.k_time, head_dim: self.head_dim },
            settings: &self.settings,
        }
    }

    fn forward(&self, level: Level, q: &[f32], kv: &[f32]) -> Vec<f32> {
        cpu::forward(level, &self.call(q, kv), false).0
    }

    /// The result and the gradients of q and kv.
    fn both(&self, level: Level, q: &[f32], kv: &[f32], dout: &[f32]) -> [Vec<f32>; 3] {
        let call = self.call(q, kv);
        let (out, kept) = cpu::forward(level, &call, true);
        let dout = Operand { data: dout, ..call.q };
        let saved = Saved { statistics: kept.as_deref().unwrap(), dout };
        let [dq, dkv] = cpu::cross_backward(level, &call, &saved);
        [out, dq, dkv]
    }

    fn inputs<'a, F>(&self, q: &'a [F], [k, v]: [&'a [F]; 2]) -> Inputs<'a, F> {
        let Self { batch, q_time, k_time, .. } = *self;
        Inputs { q, k, v, batch, q_time, k_time, hidden: self.hidden() }
    }

    /// Result, gradients and weights on every level against the references. Small shapes run with many seeds: the
    /// worst of a few values is luck, for the plain code as for the kernel.
    fn check(&self) {
        let size = self.batch * self.q_time.min(self.k_time) * self.hidden();
        let runs = (4000 / size.max(1)).clamp(1, 64);
        let cases: Vec<_> = (0..runs as u64).map(|run| Self { seed: self.seed + 5 * run, ..self.clone() }).collect();
        let all = |results: &dyn Fn(&Self) -> [Vec<f32>; 5]| join(cases.iter().map(results));
        let all_exact = join(cases.iter().map(|case| {
            let [q, kv, dout] = case.data();
            let (k, v) = unpack(&kv, case.hidden());
            let (q, k, v) = (wide(&q), wide(&k), wide(&v));
            let inputs = case.inputs(&q, [&k, &v]);
            let [dq, dk, dv] = truth::grad(&inputs, &wide(&dout), &case.settings);
            [truth::forward(&inputs, &case.settings), dq, dk, dv, truth::weights(&inputs, &case.settings)]
        }));
        let all_plain = all(&|case| {
            let [q, kv, dout] = case.data();
            let (k, v) = unpack(&kv, case.hidden());
            let inputs = case.inputs(&q, [&k, &v]);
            let [dq, dk, dv] = plain::grad(&inputs, &dout, &case.settings);
            [plain::forward(&inputs, &case.settings), dq, dk, dv, plain::weights(&inputs, &case.settings)]
        });
        for level in Level::available() {
            let all_got = all(&|case| {
                let [q, kv, dout] = case.data();
                let [out, dq, dkv] = case.both(level, &q, &kv, &dout);
                let (dk, dv) = unpack(&dkv, case.hidden());
                [out, dq, dk, dv, cpu::weights(level, &case.call(&q, &kv))]
            });
            for (i, what) in ["out", "dq", "dk", "dv", "weights"].into_iter().enumerate() {
                let name = format!("{} {what} {self:?}", level.name());
                if what == "dq" || what == "dk" {
                    assert_as_exact_or_cancelled(&name, &all_got[i], &all_plain[i], &all_exact[i]);
                } else {
                    assert_as_exact(&name, &all_got[i], &all_plain[i], &all_exact[i], 2.0);
                }
            }
        }
    }
}

/// Each of the five results, over all runs.
fn join<F>(runs: impl Iterator<Item = [Vec<F>; 5]>) -> [Vec<F>; 5] {
    runs.fold([const { Vec::new() }; 5], |mut all, run| {
        all.iter_mut().zip(run).for_each(|(all, run)| all.extend(run));
        all
    })
}

/// The tolerance rule, but where no query has a choice between keys the true gradient is 0 and the plain code
/// has it exactly, as a difference of equal terms; there the rounding of the terms, which are of size 1, is allowed.
#[track_caller]
fn assert_as_exact_or_cancelled(name: &str, got: &[f32], plain: &[f32], truth: &[f64]) {
    if truth.iter().all(|t| t.abs() < 1e-12) {
        let worst = got.iter().fold(0.0, |worst: f32, g| worst.max(g.abs()));
        assert!(got.len() == truth.len() && worst < 32.0 * f32::EPSILON, "{name}: off by {worst:.2e}, not 0");
    } else {
        assert_as_exact(name, got, plain, truth, 2.0);
    }
}

/// k | v apart.
fn unpack(kv: &[f32], hidden: usize) -> (Vec<f32>, Vec<f32>) {
    let part = |start: usize| kv.chunks(2 * hidden).flat_map(move |row| row[start..start + hidden].to_vec());
    (part(0).collect(), part(hidden).collect())
}

/// Writes `value` past the lengths of `[batch, time, width]`.
fn poison(data: &mut [f32], lengths: &[usize], time: usize, width: usize, value: f32) {
    for (sentence, &length) in data.chunks_mut((time * width).max(1)).zip(lengths) {
        sentence[length * width..].fill(value);
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (0usize..4, 0usize..40, 0usize..40, 1usize..4, 1usize..70);
    (sizes, any::<bool>(), any::<bool>(), any::<bool>(), 0u64..1000).prop_map(
        |((batch, q_time, k_time, heads, head_dim), causal, ragged, dropped, seed)| {
            let mut case = Case::new(batch, [q_time, k_time], heads, head_dim, causal);
            case.seed = seed;
            if ragged {
                let length = |time: usize, i: usize| (seed as usize * 7 + i * 13) % (time + 1);
                let queries: Vec<_> = (0..batch).map(|i| length(q_time, i)).collect();
                let keys: Vec<_> = (0..batch).map(|i| length(k_time, i + 1)).collect();
                case = case.lengths(&queries, &keys);
            }
            if dropped { case.dropout(0.3) } else { case }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn the_kernel_is_exact_on_every_level(case in cases()) {
        case.check();
    }
}

#[test]
fn larger_shapes_are_exact_on_every_level() {
    Case::new(1, [256, 256], 2, 32, true).check();
    Case::new(2, [300, 300], 1, 16, true).check();
    Case::new(1, [70, 530], 1, 8, true).check();
    Case::new(1, [530, 70], 1, 9, true).check();
    Case::new(1, [97, 97], 1, 256, false).check();
    Case::new(1, [20, 2000], 1, 24, false).check();
    Case::new(3, [1, 300], 2, 64, true).lengths(&[1, 1, 0], &[300, 17, 5]).check();
    Case::new(2, [2, 45], 3, 19, true).check();
    Case::new(2, [60, 60], 2, 40, true).lengths(&[60, 33], &[60, 33]).dropout(0.2).check();
}

#[test]
fn the_reference_gradient_agrees_with_finite_differences() {
    for case in [
        Case::new(2, [3, 4], 2, 3, false),
        Case::new(2, [4, 4], 1, 5, true).lengths(&[4, 2], &[3, 2]),
        Case::new(1, [5, 3], 2, 2, true),
        Case::new(2, [3, 5], 2, 3, true).dropout(0.4),
    ] {
        let [q, kv, dout] = case.data();
        let (k, v) = unpack(&kv, case.hidden());
        let (q, k, v, dout) = (wide(&q), wide(&k), wide(&v), wide(&dout));
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            truth::forward(&case.inputs(q, [k, v]), &case.settings).iter().zip(&dout).map(|(y, w)| y * w).sum()
        };
        let gradients = truth::grad(&case.inputs(&q, [&k, &v]), &dout, &case.settings);
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
        assert_gradient("q", &narrow(&gradients[0]), &finite_differences(&q, |q| loss(q, &k, &v)));
        assert_gradient("k", &narrow(&gradients[1]), &finite_differences(&k, |k| loss(&q, k, &v)));
        assert_gradient("v", &narrow(&gradients[2]), &finite_differences(&v, |v| loss(&q, &k, v)));
    }
}

#[test]
fn a_wrong_scale_or_a_shifted_mask_is_noticed() {
    let case = Case::new(1, [33, 33], 2, 32, true);
    let [q, kv, _] = case.data();
    let (k, v) = unpack(&kv, case.hidden());
    let exact = truth::forward(&case.inputs(&wide(&q), [&wide(&k), &wide(&v)]), &case.settings);
    let inexact = plain::forward(&case.inputs(&q, [&k, &v]), &case.settings);
    let fails = |got: &[f32]| {
        std::panic::catch_unwind(|| assert_as_exact("broken on purpose", got, &inexact, &exact, 2.0)).is_err()
    };
    for level in Level::available() {
        assert!(!fails(&case.forward(level, &q, &kv)));
        let scaled: Vec<f32> = q.iter().map(|q| q * 1.0001).collect();
        assert!(fails(&case.forward(level, &scaled, &kv)), "{level:?}: a scale wrong by 1e-4 passes");
        let doubled: Vec<f32> = q.iter().map(|q| q * 2.0).collect();
        assert!(fails(&case.forward(level, &doubled, &kv)), "{level:?}: a doubled scale passes");
        // One key less shifts the mask, which is aligned at the end, by one.
        let shifted = case.clone().lengths(&[33], &[32]);
        assert!(fails(&shifted.forward(level, &q, &kv)), "{level:?}: a mask shifted by one passes");
        let mut open = case.clone();
        open.settings.causal = false;
        assert!(fails(&open.forward(level, &q, &kv)), "{level:?}: no mask passes");
    }
}

#[test]
fn a_ragged_batch_equals_its_sentences_one_by_one() {
    for (heads, head_dim, causal) in [(2, 32, true), (3, 20, false), (1, 64, true), (2, 7, false)] {
        let (queries, keys) = ([60, 1, 0, 17, 48, 2, 5], [60, 9, 4, 17, 0, 100, 3]);
        let batch = Case::new(7, [60, 100], heads, head_dim, causal).lengths(&queries, &keys);
        let hidden = batch.hidden();
        let [mut q, mut kv, mut dout] = batch.data();
        poison(&mut q, &queries, 60, hidden, f32::NAN);
        poison(&mut kv, &keys, 100, 2 * hidden, f32::NAN);
        poison(&mut dout, &queries, 60, hidden, f32::NAN);
        for level in Level::available() {
            let [out, dq, dkv] = batch.both(level, &q, &kv, &dout);
            let rows = |x: &[f32], b: usize, time: usize, width: usize, length: usize| {
                let (used, past) = x[b * time * width..][..time * width].split_at(length * width);
                assert!(past.iter().all(|x| x.to_bits() == 0), "{level:?}: padding of sentence {b} is not zero");
                used.to_vec()
            };
            for (b, (&tq, &tk)) in queries.iter().zip(&keys).enumerate() {
                let alone = Case::new(1, [tq, tk], heads, head_dim, causal);
                let part = |x: &[f32], time: usize, width: usize, length: usize| {
                    x[b * time * width..][..length * width].to_vec()
                };
                let (q, dout) = (part(&q, 60, hidden, tq), part(&dout, 60, hidden, tq));
                let kv = part(&kv, 100, 2 * hidden, tk);
                let [one, one_dq, one_dkv] = alone.both(level, &q, &kv, &dout);
                assert_eq!(rows(&out, b, 60, hidden, tq), one, "{level:?} sentence {b}");
                assert_eq!(rows(&dq, b, 60, hidden, tq), one_dq, "{level:?} sentence {b}");
                assert_eq!(rows(&dkv, b, 100, 2 * hidden, tk), one_dkv, "{level:?} sentence {b}");
            }
        }
    }
}

#[test]
fn rows_that_see_no_key_are_zeros() {
    for level in Level::available() {
        for (tq, tk, blind) in [(9, 4, 5), (60, 3, 57), (3, 0, 3), (2, 1, 1), (100, 50, 50)] {
            let case = Case::new(1, [tq, tk], 2, 5, true);
            let [q, kv, mut dout] = case.data();
            // Whatever their gradient is, they have nothing to pass it to.
            dout[..blind * 10].fill(f32::NAN);
            let [out, dq, dkv] = case.both(level, &q, &kv, &dout);
            assert!(out[..blind * 10].iter().chain(&dq[..blind * 10]).all(|&x| x == 0.0), "{level:?} {tq} {tk}");
            assert!(out[blind * 10..].iter().all(|&x| x != 0.0), "{level:?} {tq} {tk}");
            assert!(out.iter().chain(&dq).chain(&dkv).all(|x| x.is_finite()), "{level:?} {tq} {tk}");
        }
    }
}

#[test]
fn a_nan_reaches_exactly_what_depends_on_it() {
    let case = Case::new(1, [61, 61], 1, 24, true);
    let hidden = case.hidden();
    let nan_rows = |x: &[f32], width: usize| -> Vec<bool> {
        x.chunks(width)
            .map(|row| {
                let count = row.iter().filter(|x| x.is_nan()).count();
                assert!(count == 0 || count == row.len(), "a row is partly NaN");
                count > 0
            })
            .collect()
    };
    for level in Level::available() {
        for at in [0, 13, 47, 48, 60] {
            let [q, mut kv, mut dout] = case.data();
            kv[at * 2 * hidden..(at + 1) * 2 * hidden].fill(f32::NAN);
            let expected: Vec<bool> = (0..61).map(|i| i >= at).collect();
            assert_eq!(nan_rows(&case.forward(level, &q, &kv), hidden), expected, "{level:?}: later rows only");

            let [q, kv, _] = case.data();
            dout[at * hidden..(at + 1) * hidden].fill(f32::NAN);
            let [_, dq, dkv] = case.both(level, &q, &kv, &dout);
            let expected: Vec<bool> = (0..61).map(|i| i == at).collect();
            assert_eq!(nan_rows(&dq, hidden), expected, "{level:?}: the row's own gradient");
            let expected: Vec<bool> = (0..61).map(|j| j <= at).collect();
            assert_eq!(nan_rows(&dkv, 2 * hidden), expected, "{level:?}: keys that the row sees");
        }
        let mut q = case.data()[0].clone();
        q[30 * hidden] = f32::NAN;
        let rows = nan_rows(&case.forward(level, &q, &case.data()[1]), hidden);
        assert_eq!(rows, (0..61).map(|i| i == 30).collect::<Vec<_>>(), "{level:?}");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let case = Case::new(1, [20, 20], 1, 8, false);
    let [q, kv, dout] = case.data();
    let q: Vec<f32> = q.iter().map(|q| q * 1e4).collect();
    for level in Level::available() {
        let [out, dq, dkv] = case.both(level, &q, &kv, &dout);
        assert!(out.iter().chain(&dq).chain(&dkv).all(|x| x.is_finite()), "{level:?}");
        let weights = cpu::weights(level, &case.call(&q, &kv));
        assert!(weights.iter().all(|&p| (0.0..=1.0).contains(&p)), "{level:?}");
        assert!(weights.chunks(20).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5), "{level:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in [
        Case::new(3, [130, 130], 4, 32, true).dropout(0.1),
        Case::new(1, [600, 600], 1, 16, true),
        Case::new(20, [1, 400], 2, 48, false),
    ] {
        let [q, kv, dout] = case.data();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.both(Level::best(), &q, &kv, &dout))
        };
        assert_eq!(on(1), on(4));
    }
}

/// The gradients of `sum(weights * out)` through Burn, and the result.
fn through_burn(case: &Case, device: &burn::tensor::Device) -> [Vec<f32>; 3] {
    let [q, kv, weights] = case.data();
    let device = device.clone().autodiff();
    let hidden = case.hidden();
    let q = tensor(&q, [case.batch, case.q_time, hidden], &device).require_grad();
    let kv = tensor(&kv, [case.batch, case.k_time, 2 * hidden], &device).require_grad();
    let settings = &case.settings;
    let options =
        AttentionOptions { num_heads: settings.num_heads, causal: settings.causal, dropout: settings.dropout };
    let (queries, keys) = (settings.query_lengths.as_deref(), settings.key_lengths.as_deref());
    let out = cross_attention(q.clone(), kv.clone(), queries, keys, &options);
    let weights = tensor(&weights, [case.batch, case.q_time, hidden], &device);
    let gradients = (out.clone() * weights).sum().backward();
    [values(out), values(q.grad(&gradients).unwrap()), values(kv.grad(&gradients).unwrap())]
}

#[test]
fn cross_attention_has_the_gradients_of_its_equations_on_every_device() {
    for case in [
        Case::new(2, [3, 5], 2, 3, false).lengths(&[3, 2], &[4, 5]),
        Case::new(1, [4, 2], 1, 5, true),
        Case::new(2, [3, 4], 2, 2, true).dropout(0.3),
        Case::new(2, [3, 4], 1, 2, false).lengths(&[3, 3], &[0, 4]),
    ] {
        let [q, kv, dout] = case.data();
        let (k, v) = unpack(&kv, case.hidden());
        let (q, k, v) = (wide(&q), wide(&k), wide(&v));
        let [dq, dk, dv] = truth::grad(&case.inputs(&q, [&k, &v]), &wide(&dout), &case.settings);
        for device in devices() {
            let [out, got_dq, got_dkv] = through_burn(&case, &device);
            let (got_dk, got_dv) = unpack(&got_dkv, case.hidden());
            assert_gradient("out", &out, &truth::forward(&case.inputs(&q, [&k, &v]), &case.settings));
            assert_gradient("dq", &got_dq, &dq);
            assert_gradient("dk", &got_dk, &dk);
            assert_gradient("dv", &got_dv, &dv);
        }
    }
}

#[test]
fn self_attention_is_cross_attention_of_its_parts() {
    let (batch, time, heads, hidden) = (3, 7, 2, 10);
    let options = AttentionOptions { num_heads: heads, causal: true, dropout: Dropout::new(0.2, 3) };
    let (qkv, weights) = (normal(1, batch * time * 3 * hidden), normal(2, batch * time * hidden));
    for lengths in [None, Some([7, 0, 4].as_slice())] {
        for device in devices() {
            let device = device.autodiff();
            let weights = tensor(&weights, [batch, time, hidden], &device);
            let qkv = tensor(&qkv, [batch, time, 3 * hidden], &device).require_grad();
            let whole = self_attention(qkv.clone(), lengths, &options);
            let gradients = (whole.clone() * weights.clone()).sum().backward();
            let whole_grad = values(qkv.grad(&gradients).unwrap());
            let (q, kv) = (qkv.clone().narrow(2, 0, hidden), qkv.clone().narrow(2, hidden, 2 * hidden));
            let parts = cross_attention(q, kv, lengths, lengths, &options);
            let gradients = (parts.clone() * weights).sum().backward();
            assert_eq!(values(whole), values(parts), "{device:?}");
            assert_eq!(whole_grad, values(qkv.grad(&gradients).unwrap()), "{device:?}");
        }
    }
}

#[test]
fn the_portable_body_agrees_with_the_kernel() {
    for case in [
        Case::new(2, [3, 5], 2, 3, false),
        Case::new(3, [6, 6], 2, 4, true).lengths(&[6, 0, 3], &[6, 2, 3]).dropout(0.3),
        Case::new(2, [7, 3], 1, 5, true).lengths(&[7, 5], &[3, 0]),
        Case::new(1, [0, 3], 1, 5, true),
        Case::new(2, [3, 0], 1, 5, false),
    ] {
        let hidden = case.hidden();
        let [mut q, mut kv, mut dout] = case.data();
        if let (Some(queries), Some(keys)) = (&case.settings.query_lengths, &case.settings.key_lengths) {
            poison(&mut q, queries, case.q_time, hidden, f32::NAN);
            poison(&mut dout, queries, case.q_time, hidden, f32::NAN);
            poison(&mut kv, keys, case.k_time, 2 * hidden, f32::NAN);
        }
        let [out, dq, dkv] = case.both(Level::best(), &q, &kv, &dout);
        let flex = |x: &[f32], time: usize, width: usize| {
            FlexTensor::from_data(TensorData::new(x.to_vec(), [case.batch, time, width]))
        };
        let back = |x: FlexTensor| x.to_contiguous().storage::<f32>().to_vec();
        let wide = |x: Vec<f32>| wide(&x);
        let (flex_q, flex_kv) = (flex(&q, case.q_time, hidden), flex(&kv, case.k_time, 2 * hidden));
        let flex_dout = flex(&dout, case.q_time, hidden);
        let [flex_k, flex_v] = split_kv::<Flex>(flex_kv);
        let settings = &case.settings;
        let portable_out = portable::forward::<Flex>(flex_q.clone(), flex_k.clone(), flex_v.clone(), settings);
        assert_gradient("out", &out, &wide(back(portable_out)));
        let weights = portable::weights::<Flex>(flex_q.clone(), flex_k.clone(), settings);
        assert_gradient("weights", &cpu::weights(Level::best(), &case.call(&q, &kv)), &wide(back(weights)));
        let [flex_dq, flex_dk, flex_dv] = portable::grad::<Flex>(flex_q, flex_k, flex_v, flex_dout, settings);
        let (dk, dv) = unpack(&dkv, hidden);
        assert_gradient("dq", &dq, &wide(back(flex_dq)));
        assert_gradient("dk", &dk, &wide(back(flex_dk)));
        assert_gradient("dv", &dv, &wide(back(flex_dv)));
    }
}

#[test]
fn a_cache_with_room_to_spare_is_read_in_place_and_decodes_like_the_whole() {
    let (batch, time, capacity, heads, hidden) = (2, 9, 16, 2, 12);
    let options = AttentionOptions { num_heads: heads, causal: true, dropout: Dropout::NONE };
    for device in devices() {
        let qkv = tensor(&normal(1, batch * time * 3 * hidden), [batch, time, 3 * hidden], &device);
        let whole = values(self_attention(qkv.clone(), None, &options));
        let kv = qkv.clone().narrow(2, hidden, 2 * hidden);
        let room = Tensor::full([batch, capacity - time, 2 * hidden], f32::NAN, &device);
        let cache = Tensor::cat(vec![kv, room], 1);
        for step in 0..time {
            let q = qkv.clone().narrow(1, step, 1).narrow(2, 0, hidden);
            let filled = [step + 1; 2];
            let by_length = cross_attention(q.clone(), cache.clone(), None, Some(&filled), &options);
            let view = cache.clone().narrow(1, 0, step + 1);
            let by_view = values(cross_attention(q, view, None, None, &options));
            let by_length = values(by_length);
            // The portable body sums over what the cache does not hold too, zeros, in another order.
            if device == Device::flex() {
                assert_eq!(by_length, by_view, "step {step}");
            }
            let expected = (0..batch).flat_map(|b| &whole[(b * time + step) * hidden..][..hidden]);
            for ((length, view), wanted) in by_length.iter().zip(&by_view).zip(expected) {
                assert!((length - wanted).abs() < 1e-5, "{device:?} step {step}: {length} is not {wanted}");
                assert!((view - wanted).abs() < 1e-5, "{device:?} step {step}, a view: {view} is not {wanted}");
            }
        }
    }
}

#[test]
fn weights_are_probabilities() {
    let options = AttentionOptions { num_heads: 2, causal: false, dropout: Dropout::new(0.5, 1) };
    for device in devices() {
        let (q, k) = (tensor(&normal(1, 24), [2, 3, 4], &device), tensor(&normal(2, 40), [2, 5, 4], &device));
        let weights = attention_weights(q, k, Some(&[5, 2]), &options);
        assert_eq!(weights.dims(), [2, 2, 3, 5]);
        for (row, p) in values(weights).chunks(5).enumerate() {
            let keys = if row < 6 { 5 } else { 2 };
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{device:?} row {row}: {p:?}");
            assert!(p[..keys].iter().all(|&p| p > 0.0) && p[keys..].iter().all(|&p| p == 0.0), "{device:?}: {p:?}");
        }
    }
}
